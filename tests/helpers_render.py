"""Scenes for rasterizer tests, and drawing them with everything asked for."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import torch
from helpers_footprints import (
    SHAPE_TABLES,
    axes_rows,
    convex_rows,
    gef_rows,
    inputs_of,
    make_hostile_convex,
    make_hostile_gef,
    rows_of,
)
from torch import Tensor

from splat.model.render_inputs import RenderInputs
from splat.render.types import (
    BACKWARD_STATS,
    FORWARD_STATS,
    CameraBatch,
    RenderOptions,
    RenderOutput,
)

NEAR = 0.2
IMAGES = ("color", "alpha", "depth_expected", "depth_median", "features")
SHAPE_STATS = frozenset({"shape_grad"})
"""Only of kinds with shape tables."""
ALL_STATS = (FORWARD_STATS | BACKWARD_STATS) - SHAPE_STATS


@dataclass(frozen=True)
class Case:
    """What a scene has in it; ``str`` is its name in the test list."""

    size: tuple[int, int] = (33, 40)  # width, height
    count: int = 60
    degree: int = 3
    filter2d: str = "classic"
    filter3d: bool = False
    views: int = 1
    background: str = "one"  # none, one, each
    features: int = 0
    off_center: bool = False
    hostile: bool = False
    """With rows behind the camera, at the near plane, off screen, huge, tiny, NaN, tied, and at the alpha limits."""
    opaque: float = 0.0
    """Added to the logits of the opacities: large values end rays early."""
    seed: int = 0
    kind: str = "gaussian"
    vertices: int = 6
    """Of convexes."""
    focal: float = 0.0
    """Reference focal length of convexes, px."""

    @property
    def boxes(self) -> str:
        """How a footprint's box compares with the reference's: "equal", "roomy" (by what keeps rounding out), or
        "within" it, where nobody knows the smallest one."""
        if self.filter2d == "analytic":
            return "within"
        return "equal" if self.kind == "gaussian" else "roomy"

    def __str__(self) -> str:
        parts = [f"{self.size[0]}x{self.size[1]}", f"n{self.count}", f"sh{self.degree}", self.filter2d]
        parts += [word for word in ("filter3d", "off_center", "hostile") if getattr(self, word)]
        parts += [f"{self.views}views", f"bg-{self.background}", f"f{self.features}"]
        if self.kind != "gaussian":
            parts.insert(0, self.kind + (f"{self.vertices}" if self.kind == "convex" else ""))
        return "-".join(parts + (["opaque"] if self.opaque else []) + (["f_ref"] if self.focal else []))


@dataclass(frozen=True, eq=False)
class SceneTensors:
    """Float64 tensors whose values float32 can hold, so that both precisions draw the same scene."""

    inputs: RenderInputs
    cameras: CameraBatch
    options: RenderOptions


@dataclass(frozen=True, eq=False)
class Drawn:
    """A rendering with everything asked for, and the gradients of a random linear loss."""

    output: RenderOutput
    gradients: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Doubt:
    """Where a comparison must not be tight."""

    pixels: Tensor  # [C,H,W] bool: a fragment is at a cut, at the clamp, at the stop, or its order is open
    median: Tensor  # [C,H,W] bool: T is at 0.5 somewhere
    top: Tensor  # [C,H,W] bool: the two largest blend weights are alike
    per_splat: Tensor  # [C,N] doubtful pixels (of ``pixels`` or ``top``) under the splat
    border: Tensor  # [C,N] bool: the footprint's box just touches, or its opacity is just enough


def native_rasterizer():
    """The native rasterizer, which loads its library."""
    from splat.render.native_rasterizer import NativeRasterizer

    return NativeRasterizer()


def rounded(tensor: Tensor) -> Tensor:
    """Float64 with the values of float32."""
    return tensor.float().double()


def build(case: Case) -> SceneTensors:
    random = torch.Generator().manual_seed(1000 + case.seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    n, (width, height) = case.count, case.size
    rows = {
        "means": normal(n, 3) * torch.tensor([1.2, 1.2, 0.7], dtype=torch.float64) + torch.tensor([0.0, 0.0, 4.0]),
        **({} if case.kind == "convex" else axes_rows(n, normal)),
        "logit_opacities": normal(n) + case.opaque,
        "sh0": normal(n, 3),
        "sh_rest": normal(n, (case.degree + 1) ** 2 - 1, 3) * 0.2,
    }
    if case.features:
        rows["features"] = normal(n, case.features)
    if case.filter3d:
        rows["filter3d"] = torch.rand(n, generator=random, dtype=torch.float64) * 0.15
    if case.kind == "gef":
        rows |= gef_rows(n, normal)
    if case.kind == "convex":
        rows |= convex_rows(n, normal, vertices=case.vertices)
    if case.hostile:
        spoil = {"gef": make_hostile_gef, "convex": make_hostile_convex}.get(case.kind)
        if case.kind != "convex":
            _make_hostile(rows)
        if spoil is not None:
            spoil(rows)
    poses = torch.eye(4, dtype=torch.float64).repeat(case.views, 1, 1)
    poses[:, :3, :3] = torch.linalg.matrix_exp(_skew(normal(case.views, 3) * 0.1))
    poses[:, :3, 3] = normal(case.views, 3) * 0.2
    focal = 0.9 * max(width, height)
    center = (0.31 * width, 0.62 * height) if case.off_center else (width / 2, height / 2)
    K = torch.tensor([[focal, 0, center[0]], [0, 1.1 * focal, center[1]], [0, 0, 1]], dtype=torch.float64)
    cameras = CameraBatch(rounded(poses), rounded(K.repeat(case.views, 1, 1)), width, height)
    background = {"none": None, "one": normal(3), "each": normal(case.views, 3)}[case.background]
    options = RenderOptions(
        sh_degree=case.degree, filter2d=case.filter2d, near=NEAR, top_id=True,
        background=None if background is None else rounded(background.sigmoid()),
        depth=frozenset({"expected", "median"}),
        stats=ALL_STATS | (SHAPE_STATS if SHAPE_TABLES[case.kind] else set()),
        pixel_weights=rounded(torch.rand(case.views, 3, height, width, generator=random, dtype=torch.float64)),
    )  # fmt: skip
    constants = (case.focal, 0.0) if case.kind == "convex" else ()
    rows = {name: rounded(table) for name, table in rows.items()}
    return SceneTensors(inputs_of(rows, kind=case.kind, constants=constants), cameras, options)


def _make_hostile(rows: dict[str, Tensor]) -> None:
    """Overwrite the first rows with what must not hurt the others. Needs at least 24 rows."""
    means, scales, logits = rows["means"], rows["log_scales"], rows["logit_opacities"]
    means[0, 2] = -3.0  # behind
    means[1, 2] = 0.0  # in the plane of the camera
    means[2] = torch.tensor([0.02, 0.01, 0.75])  # near, with poses that move up to 0.4
    means[3, :2] = torch.tensor([40.0, -3.0])  # far off screen: the Jacobian is clamped
    means[4, :2] = torch.tensor([4.5, 0.5])  # off screen but wide enough to reach in
    scales[4] = 0.3
    scales[5] = 2.0  # fills the screen
    means[5, 2] = 6.0
    scales[6] = -9.0  # far below a pixel
    scales[7] = torch.tensor([-9.0, -9.0, -0.5])  # a needle
    scales[8] = torch.tensor([-0.5, -0.7, -12.0])  # a flake
    means[9, 0] = torch.nan
    rows["quats"][10] = 0.0
    scales[11, 1] = torch.inf
    logits[12] = torch.nan
    rows["sh0"][13, 2] = torch.nan
    rows["quats"][14] = torch.tensor([torch.inf, 0.0, 0.0, 0.0])
    logits[15] = 9.0  # alpha clamps at 0.99
    logits[16] = 12.0
    scales[15:17] = -1.0
    faint = -torch.log(torch.tensor(254.0, dtype=torch.float64))  # sigmoid(faint) = 1/255
    logits[17], logits[18] = faint + 0.01, faint - 0.01
    for values in rows.values():  # rows 19-21 are one splat thrice: ties resolve by row
        values[20:22] = values[19].clone()
    rows["sh0"][20] += 1.0
    rows["sh0"][22] = -9.0  # colour clamps at 0
    rows["quats"][23] *= 1e-3


def _skew(v: Tensor) -> Tensor:  # [C,3] -> [C,3,3]
    x, y, z = v.unbind(1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)


def random_cotangents(scene: SceneTensors, *, seed: int = 7, doubt: Doubt | None = None) -> dict[str, Tensor]:
    """One random weight per picture value; 0 at doubtful pixels, so that no gradient comes from there."""
    random = torch.Generator().manual_seed(seed)
    views, shape = len(scene.cameras), (scene.cameras.height, scene.cameras.width)
    channels = {"color": (3,), "features": () if scene.inputs.features is None else scene.inputs.features.shape[1:]}
    cotangents = {}
    for name in IMAGES:
        weights = rounded(torch.randn(views, *shape, *channels.get(name, ()), generator=random, dtype=torch.float64))
        if doubt is not None:
            skip = doubt.pixels | doubt.median if name == "depth_median" else doubt.pixels
            weights = weights * (~skip).reshape(views, *shape, *([1] * (weights.ndim - 3)))
        cotangents[name] = weights
    return cotangents


def draw(
    rasterizer, scene: SceneTensors, dtype: torch.dtype, cotangents: dict[str, Tensor] | None = None,
    *, device: str = "cpu",
) -> Drawn:  # fmt: skip
    """Render a copy of the scene in ``dtype`` on ``device`` and, with ``cotangents``, run backward. What comes back
    is on the CPU."""
    leaves: dict[str, Tensor] = {}
    learn = cotangents is not None
    for name, table in rows_of(scene.inputs).items():
        leaves[name] = table.to(device, dtype).clone().requires_grad_(learn and name != "filter3d")
    poses = scene.cameras.camera_from_world.to(device, dtype).clone().requires_grad_(learn)
    weights = scene.options.pixel_weights
    options = replace(scene.options, pixel_weights=None if weights is None else weights.to(device, dtype))
    if options.background is not None:
        options = replace(options, background=options.background.to(device, dtype).clone().requires_grad_(learn))
    cameras = replace(scene.cameras, camera_from_world=poses, K=scene.cameras.K.to(device, dtype))
    inputs = inputs_of(leaves, kind=scene.inputs.kind, constants=scene.inputs.constants)
    output = rasterizer.render(inputs, cameras, options)
    if not learn:
        return Drawn(_on_cpu(output))
    leaves["camera_from_world"] = poses
    if options.background is not None:
        leaves["background"] = options.background
    pictures = {name: getattr(output, name) for name in IMAGES if getattr(output, name) is not None}
    loss = sum((picture * cotangents[name].to(device, dtype)).sum() for name, picture in pictures.items())
    if loss.requires_grad:
        loss.backward()
    gradients = {k: torch.zeros_like(v) if v.grad is None else v.grad for k, v in leaves.items() if v.requires_grad}
    return Drawn(_on_cpu(output), {name: gradient.cpu() for name, gradient in gradients.items()})


def _on_cpu(part):
    """A dataclass of tensors (and of such dataclasses) moved to the CPU."""
    values = {each.name: getattr(part, each.name) for each in fields(part)}
    moved = {k: v.cpu() if isinstance(v, Tensor) else _on_cpu(v) for k, v in values.items() if v is not None}
    return replace(part, **moved)
