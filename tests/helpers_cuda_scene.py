"""Scenes for the C interface, as numpy arrays: what a case asks for, and memory nobody should rely on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Case:
    """What a scene has in it and what is asked of it."""

    size: tuple[int, int] = (33, 40)  # width, height
    count: int = 60
    degree: int = 3
    stored: int | None = None  # SH degree the rows hold; None = degree
    filter2d: str = "classic"
    filter3d: bool = False
    features: int = 0
    depth: tuple[str, ...] = ("expected", "median")
    stats: int = 63
    backward_stats: int = 31
    maps: int = 2
    off_center: bool = False
    hostile: bool = False
    opaque: float = 0.0
    near: float = 0.0  # added to the scales' logarithms: large splats
    top_id: bool = True
    alpha_grad: bool = True
    camera: bool = True
    accumulate: bool = False
    footprint: str = "gaussian"
    vertices: int = 6  # of a convex
    published: bool = False  # gradients of a convex
    seed: int = 0

    def __str__(self) -> str:
        parts = [] if self.footprint == "gaussian" else [self.footprint]
        parts += [f"{self.size[0]}x{self.size[1]}", f"n{self.count}", f"sh{self.degree}", self.filter2d]
        parts += [f"f{self.features}"] if self.features else []
        parts += [word for word in ("filter3d", "off_center", "hostile", "accumulate") if getattr(self, word)]
        parts += ["opaque"] if self.opaque else []
        return "-".join([*parts, *(["large"] if self.near else []), f"s{self.stats}-{self.backward_stats}"])


@dataclass(eq=False)
class Scene:
    """Rows and cotangents (float32) and the view of a case."""

    case: Case
    rows: dict[str, np.ndarray]
    pose: np.ndarray  # [3,4]
    background: np.ndarray  # [3]
    weight_maps: np.ndarray  # [maps,H,W]
    cotangents: dict[str, np.ndarray]
    constants: tuple[float, ...] = ()
    """Of the footprint."""


def build(case: Case) -> Scene:
    random = np.random.default_rng(case.seed)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    n, (width, height) = case.count, case.size
    coefficients = ((case.degree if case.stored is None else case.stored) + 1) ** 2 - 1
    rows = {
        "means": normal(n, 3) * np.float32([1.2, 1.2, 0.7]) + np.float32([0, 0, 4]),
        "quats": normal(n, 4),
        "log_scales": normal(n, 3) * np.float32(0.5) - np.float32(2 - case.near),
        "logit_opacities": normal(n) + np.float32(case.opaque),
        "sh0": normal(n, 3),
        "sh_rest": normal(n, coefficients, 3) * np.float32(0.2),
    }
    if case.features:
        rows["features"] = normal(n, case.features)
    if case.filter3d:
        rows["filter3d"] = random.random(n, dtype=np.float32) * np.float32(0.15)
    if case.hostile:
        _make_hostile(rows)
    constants = _give_shape(rows, case)
    angles = normal(3) * 0.1
    skew = np.array([[0, -angles[2], angles[1]], [angles[2], 0, -angles[0]], [-angles[1], angles[0], 0]])
    rotation = np.linalg.qr(np.eye(3) + skew)[0]
    rotation *= np.sign(np.diag(rotation))
    pose = np.concatenate([rotation, normal(3, 1) * 0.2], axis=1).astype(np.float32).astype(np.float64)
    channels = {"color": 3, "alpha": 0, "depth_expected": 0, "depth_median": 0, "features": case.features}
    shape = (height, width)
    cotangents = {name: normal(*((c,) if c else ()), *shape) for name, c in channels.items()}
    if not case.alpha_grad:
        del cotangents["alpha"]
    for kind in {"expected", "median"} - set(case.depth):
        del cotangents[f"depth_{kind}"]
    if not case.features:
        del cotangents["features"]
    background, maps = random.random(3, dtype=np.float32), random.random((case.maps, *shape), dtype=np.float32)
    rows = {k: np.ascontiguousarray(v) for k, v in rows.items()}
    return Scene(case, rows, pose, background, maps, cotangents, constants)


def _make_hostile(rows: dict[str, np.ndarray]) -> None:
    """Overwrite the first rows with what must not hurt the others. Needs at least 24 rows."""
    means, scales, logits = rows["means"], rows["log_scales"], rows["logit_opacities"]
    means[0, 2], means[1, 2] = -3.0, 0.0  # behind, in the camera's plane
    means[2] = 0.02, 0.01, 0.75
    means[3, :2], means[4, :2] = (40.0, -3.0), (4.5, 0.5)  # far off screen; off screen but reaching in
    scales[4], scales[5], scales[6] = 0.3, 2.0, -9.0  # wide, filling the screen, far below a pixel
    means[5, 2] = 6.0
    scales[7], scales[8] = (-9.0, -9.0, -0.5), (-0.5, -0.7, -12.0)  # a needle, a flake
    means[9, 0], logits[12], rows["sh0"][13, 2] = np.nan, np.nan, np.nan
    rows["quats"][10], scales[11, 1], rows["quats"][14] = 0.0, np.inf, (np.inf, 0, 0, 0)
    logits[15], logits[16] = 9.0, 12.0  # alpha clamps at 0.99
    scales[15:17] = -1.0
    logits[17], logits[18] = -np.log(254.0) + 0.01, -np.log(254.0) - 0.01  # just above and below 1/255
    for values in rows.values():  # rows 19-21 are one splat thrice: ties resolve by row
        values[20:22] = values[19].copy()
    rows["sh0"][20] += 1.0
    rows["sh0"][22] = -9.0  # colour clamps at 0
    rows["quats"][23] *= np.float32(1e-3)


def _give_shape(rows: dict[str, np.ndarray], case: Case) -> tuple[float, ...]:
    """Adds the tables of the case's footprint, which convexes have in the place of axes; returns its constants."""
    random = np.random.default_rng(1000 + case.seed)
    n = case.count
    if case.footprint == "gef":
        rows["shapes"] = random.normal(size=n).astype(np.float32)
        if case.hostile:
            rows["shapes"][12:20] = -30, 30, -3, 3, 0, 1e9, -1e9, np.nan
    if case.footprint != "convex":
        return ()
    sizes = np.exp(rows.pop("log_scales") + np.float32(0.5))
    del rows["quats"]
    vertices = random.normal(size=(n, case.vertices, 3)).astype(np.float32) * sizes[:, None]
    rows["vertices"] = np.where(np.isfinite(vertices), vertices, np.float32(0.2))
    rows["log_deltas"] = random.normal(size=n).astype(np.float32) * np.float32(0.7) - np.float32(2.0)
    rows["log_sigmas"] = random.normal(size=n).astype(np.float32) - np.float32(2.0)
    if case.hostile:
        _make_convex_hostile(rows)
    return (0.8 * max(case.size), float(case.published))


def _make_convex_hostile(rows: dict[str, np.ndarray]) -> None:
    vertices, deltas, sigmas = rows["vertices"], rows["log_deltas"], rows["log_sigmas"]
    vertices[24:32] = np.random.default_rng(3).normal(size=vertices[24:32].shape).astype(np.float32) * np.float32(0.3)
    rows["means"][24:32] = (0.1, -0.1, 3.0)
    vertices[24] = vertices[24, 0]  # a point; a line; points twice; edges that continue each other
    vertices[25] = vertices[25, :1] * np.linspace(-1, 1, vertices.shape[1], dtype=np.float32)[:, None]
    vertices[26, 1], vertices[27, 2] = vertices[26, 0], (vertices[27, 0] + vertices[27, 1]) / 2
    vertices[28, 0, 2], vertices[29, 0] = -9.0, (300.0, 0, 0)  # behind the camera; far beyond the picture
    vertices[30, 1, 1], vertices[31] = np.nan, vertices[31] * np.float32(1e-5)
    deltas[8:12], sigmas[8:12] = (-12, 9, 30, -60), (4, -8, 0, 0)  # blurred, sharp, too steep, nothing
    deltas[13], sigmas[14] = np.nan, np.inf


def off_alignment(array: np.ndarray) -> np.ndarray:
    """A copy four bytes beyond a multiple of sixteen, as a view of a torch tensor may be."""
    place = np.empty(array.size + 1, array.dtype)[1:].reshape(array.shape)
    place[...] = array
    return place


def garbage(shape: tuple[int, ...] | int, dtype: type = np.float32) -> np.ndarray:
    """Memory as nobody should rely on: NaN, or large integers."""
    array = np.empty(shape, dtype)
    array.view(np.uint8).reshape(-1)[:] = 0xFF if np.issubdtype(dtype, np.floating) else 0xA5
    return array
