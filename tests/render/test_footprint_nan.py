"""Numbers at the edge of sense through the native footprints: every picture and every gradient stays finite, and a row
that cannot be drawn leaves the others alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers_footprints import rows_of, with_rows
from helpers_parity import everything
from helpers_render import Case, Drawn, SceneTensors, build, draw, native_rasterizer, random_cotangents
from torch import Tensor

from splat.render.reference import ReferenceRasterizer

KINDS = [("gaussian", "classic"), ("gaussian", "mip"), ("gaussian", "analytic"), ("gef", "classic"), ("gef", "aa"),
         ("convex", "classic")]  # fmt: skip
GOOD, COUNT = 24, 40  # the first rows are left alone
footprints = pytest.mark.parametrize(("kind", "filter2d"), KINDS)
precisions = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


def scene_of(kind: str, filter2d: str, *, count: int = COUNT, seed: int = 0) -> SceneTensors:
    return build(Case(size=(19, 17), count=count, degree=1, kind=kind, filter2d=filter2d, features=1, opaque=-1.0,
                      seed=70 + seed, focal=20.0))  # fmt: skip


def drawn(scene: SceneTensors, dtype: torch.dtype, what: object = "") -> Drawn:
    """Everything of the scene, and finite."""
    result = draw(native_rasterizer(), scene, dtype, random_cotangents(scene))
    for name, tensor in everything(result).items():
        assert tensor.isfinite().all(), f"{name} of {what}: {(~tensor.isfinite()).nonzero()[:3].tolist()}"
    return result


def first_rows(scene: SceneTensors, count: int) -> SceneTensors:
    return replace(scene, inputs=with_rows(scene.inputs, **{k: v[:count] for k, v in rows_of(scene.inputs).items()}))


def assert_only_the_first_rows_count(scene: SceneTensors, dtype: torch.dtype, what: object) -> None:
    mine, alone = drawn(scene, dtype, what), drawn(first_rows(scene, GOOD), dtype)
    assert torch.equal(mine.output.color, alone.output.color), what
    for name, gradient in mine.gradients.items():
        per_row = name not in ("background", "camera_from_world")
        others = gradient[:GOOD] if per_row else gradient
        torch.testing.assert_close(others, alone.gradients[name], rtol=1e-5, atol=1e-5)
        assert not per_row or not gradient[GOOD:].any(), f"{what}: {name}"


@footprints
@precisions
def test_a_row_that_is_no_number_leaves_the_others_alone(kind: str, filter2d: str, dtype: torch.dtype) -> None:
    """In every column of every table, one after another. The infinities of logarithms have a meaning: see below."""
    for name in rows_of(scene_of(kind, filter2d).inputs):
        for value in (math.nan,) if name.startswith("log") or name == "shapes" else (math.nan, math.inf, -math.inf):
            scene = scene_of(kind, filter2d)
            cells = rows_of(scene.inputs)[name][GOOD:].view(COUNT - GOOD, -1)
            for row in range(COUNT - GOOD):
                cells[row, row % cells.shape[1]] = value
            assert_only_the_first_rows_count(scene, dtype, (name, value))


EXTREMES = {
    "means": [0.0, 1e-30, -1e-3, 0.2, 1e4, 1e15, -1e30],
    "quats": [0.0, 1e-30, 1e-12, 1e12, 1e30],
    "log_scales": [-1e30, -88.0, -40.0, -14.0, 5.0, 20.0, 40.0, 88.0],
    "logit_opacities": [-math.inf, -1e30, -100.0, -5.5, 5.0, 20.0, 100.0, 1e30, math.inf],
    "sh0": [0.0, -1e3, 1e3],
    "shapes": [-math.inf, -1e30, -100.0, -8.0, 8.0, 100.0, 1e30, math.inf],
    "vertices": [0.0, 1e-30, 1e-4, -3.7, 30.0, 1e6, 1e20],
    "log_deltas": [-math.inf, -1e30, -100.0, -20.0, 0.0, 8.0, 20.0, 100.0, 1e30, math.inf],
    "log_sigmas": [-math.inf, -1e30, -100.0, -20.0, 0.0, 8.0, 20.0, 100.0, 1e30, math.inf],
}


def extreme_scene(kind: str, filter2d: str, seed: int, *, widest: float = math.inf) -> SceneTensors:
    """Some numbers of the last rows replaced: here and there, whole rows of a table alike, or most of them."""
    random = torch.Generator().manual_seed(seed)
    scene = scene_of(kind, filter2d, seed=seed)
    for name, table in rows_of(scene.inputs).items():
        choices = EXTREMES.get(name, [0.0])
        values = torch.tensor([v for v in choices if name != "log_scales" or v <= widest], dtype=torch.float64)
        cells = table[GOOD:].reshape(COUNT - GOOD, -1)
        picks = values[torch.randint(len(values), cells.shape, generator=random)]
        picks = picks[:, :1].expand_as(picks) if seed % 3 == 1 else picks
        hit = torch.rand(cells.shape, generator=random) < (0.05, 0.2, 0.6)[seed % 3]
        table[GOOD:] = torch.where(hit, picks, cells).reshape(table[GOOD:].shape)
    return scene


@footprints
@precisions
def test_extreme_numbers_give_finite_pictures_and_gradients(kind: str, filter2d: str, dtype: torch.dtype) -> None:
    for seed in range(12):
        result = drawn(extreme_scene(kind, filter2d, seed), dtype, seed)
        assert result.output.stats.visible[0, :GOOD].sum() > 5


@footprints
def test_extreme_numbers_mean_what_the_reference_says(kind: str, filter2d: str) -> None:
    """But for scales of e^20 and more, whose products leave the digits of float64."""
    hits = 0
    for seed in range(6):
        scene = extreme_scene(kind, filter2d, seed, widest=5.0)
        mine = drawn(scene, torch.float64, seed)
        theirs = draw(ReferenceRasterizer(), scene, torch.float64, random_cotangents(scene))
        assert torch.equal(mine.output.stats.fragments, theirs.output.stats.fragments)
        hits += int((mine.output.stats.fragments[0, GOOD:] > 0).sum())
        torch.testing.assert_close(mine.output.color, theirs.output.color, rtol=1e-6, atol=1e-6)
        for name, gradient in theirs.gradients.items():
            size = gradient.square().mean().sqrt().item()
            torch.testing.assert_close(mine.gradients[name], gradient, rtol=1e-5, atol=1e-5 * size)
    assert hits > 10


def shaped(kind: str, filter2d: str, name: str) -> SceneTensors:
    """A scene all of whose rows have one peculiarity, seen straight from the front."""
    scene = scene_of(kind, filter2d)
    scene = replace(scene, cameras=replace(scene.cameras, camera_from_world=torch.eye(4, dtype=torch.float64)[None]))
    rows = rows_of(scene.inputs)
    PECULIAR[name](rows)
    return scene


def set_axes(rows: dict[str, Tensor], *log_scales: float, on_axis: bool = False) -> None:
    rows["quats"][:] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    rows["log_scales"][:] = torch.tensor(log_scales)
    if on_axis:
        rows["means"][:, :2] = 0.0


def set_vertices(rows: dict[str, Tensor], vertices: list[list[float]]) -> None:
    rows["vertices"][:] = torch.tensor(vertices, dtype=torch.float64)


EDGE_ON = [[0.3 * i, 0.0, 0.1 * i * i] for i in range(6)]
SQUARE = [[-0.5, -0.5, 0.0], [0.5, -0.5, 0.0], [0.5, 0.5, 0.0], [-0.5, 0.5, 0.0]]
PECULIAR = {
    "axis-aligned, wide": lambda r: set_axes(r, -1.0, -2.0, -3.0, on_axis=True),
    "axis-aligned, tall": lambda r: set_axes(r, -2.0, -1.0, -3.0, on_axis=True),
    "isotropic": lambda r: set_axes(r, -2.0, -2.0, -2.0, on_axis=True),
    "isotropic and tiny": lambda r: set_axes(r, -9.0, -9.0, -9.0, on_axis=True),
    "isotropic off axis": lambda r: set_axes(r, -2.0, -2.0, -2.0),
    "a flake seen edge-on": lambda r: set_axes(r, -1.0, -40.0, -1.0, on_axis=True),
    "a needle seen from its tip": lambda r: set_axes(r, -40.0, -40.0, -1.0, on_axis=True),
    "a needle": lambda r: set_axes(r, 0.0, -40.0, -40.0),
    "huge": lambda r: set_axes(r, 12.0, 12.0, 12.0),
}
PECULIAR_CONVEX = {
    "a point": lambda r: r["vertices"].mul_(0.0),
    "a line": lambda r: set_vertices(r, [[0.1 * i, 0.05 * i, 0.0] for i in range(6)]),
    "a plane seen edge-on": lambda r: (set_vertices(r, EDGE_ON), r["means"][:, 1].zero_()),
    "two points": lambda r: set_vertices(r, [SQUARE[0], SQUARE[2]] * 3),
    "every vertex twice": lambda r: set_vertices(r, (SQUARE[:3]) * 2),
    "vertices on edges": lambda r: set_vertices(r, [*SQUARE, [0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]),
    "a vertex inside": lambda r: set_vertices(r, [*SQUARE, [0.0, 0.0, 0.0], [0.1, 0.2, 0.0]]),
    "some vertices behind the camera": lambda r: r["vertices"][:, 0, 2].sub_(20.0),
    "a vertex at the near plane": lambda r: (r["vertices"].mul_(0.1), r["means"][:, 2].fill_(0.2)),
    "all behind": lambda r: r["means"][:, 2].sub_(30.0),
    "hard": lambda r: (r["log_deltas"].fill_(12.0), r["log_sigmas"].fill_(12.0)),
    "soft": lambda r: (r["log_deltas"].fill_(-30.0), r["log_sigmas"].fill_(-30.0)),
    "soft inside a hard border": lambda r: (r["log_deltas"].fill_(20.0), r["log_sigmas"].fill_(-20.0)),
    "hard inside a soft border": lambda r: (r["log_deltas"].fill_(-20.0), r["log_sigmas"].fill_(20.0)),
}
COMMON = {
    "transparent": lambda r: r["logit_opacities"].fill_(-1e4),
    "opaque": lambda r: r["logit_opacities"].fill_(1e4),
    "all at one place": lambda r: r["means"].copy_(r["means"][:1].clone().expand_as(r["means"])),
}
PECULIAR |= PECULIAR_CONVEX | COMMON


PECULIAR_CASES = [
    (kind, filter2d, name)
    for kind, filter2d in KINDS for name in PECULIAR
    if name in COMMON or (name in PECULIAR_CONVEX) == (kind == "convex")
]  # fmt: skip
SEEN = {
    "axis-aligned, wide", "axis-aligned, tall", "isotropic", "isotropic off axis", "huge", "opaque", "all at one place",
    "every vertex twice", "vertices on edges", "a vertex inside", "hard", "soft inside a hard border",
}  # fmt: skip
SEEN_BY_NOBODY = {
    "a point", "a line", "a plane seen edge-on", "two points", "some vertices behind the camera", "all behind",
    "transparent",
}  # fmt: skip


@precisions
@pytest.mark.parametrize(("kind", "filter2d", "name"), PECULIAR_CASES)
def test_peculiar_shapes_are_drawn_or_left_out(kind: str, filter2d: str, name: str, dtype: torch.dtype) -> None:
    result = drawn(shaped(kind, filter2d, name), dtype, name)
    if name in SEEN_BY_NOBODY:
        assert not result.output.alpha.any()
        assert not any(g.any() for key, g in result.gradients.items() if key != "background")
    if name in SEEN:
        assert result.output.alpha.max() > 0.05 and any(g.any() for g in result.gradients.values())


@precisions
def test_collinear_vertices_count_for_nothing(dtype: torch.dtype) -> None:
    """A square is the same with vertices on its edges, inside it, or repeated, as long as its centroid stays."""
    inside = [[0.0, 0.1, 0.0], [0.0, -0.1, 0.0]]
    on_edges = [[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]]
    repeated = [[-0.5, -0.5, 0.0], [0.5, 0.5, 0.0]]
    pictures = []
    for extra in (inside, on_edges, repeated):
        scene = scene_of("convex", "classic", count=8)
        pose = torch.eye(4, dtype=torch.float64)[None]
        scene = replace(scene, cameras=replace(scene.cameras, camera_from_world=pose))
        set_vertices(rows_of(scene.inputs), [*SQUARE, *extra])
        pictures.append(drawn(scene, dtype).output.color)
    for other in pictures[1:]:
        torch.testing.assert_close(other, pictures[0], rtol=2e-5, atol=2e-5)
