"""Our own rasterizer as a differentiable torch operation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from splat.model.render_inputs import RenderInputs
from splat.native import cuda
from splat.native.backend import Backend, backend_of
from splat.native.library import NativeLibrary, NativeLibraryError, cpu_library, cuda_library
from splat.render.capacity import CapacityBook
from splat.render.footprints import FOOTPRINTS, check_tables, misfit
from splat.render.native_cpu import CpuView
from splat.render.native_cuda import ADAM_FIELDS, CudaView
from splat.render.native_view import (
    BACKWARD_BITS,
    FORWARD_BITS,
    SHAPES,
    ImageGrads,
    NativeView,
    RowGrads,
    footprint_name,
)
from splat.render.types import FORWARD_STATS, CameraBatch, RenderOptions, RenderOutput, RowUpdate, SplatStats

ROW_FIELDS = ("means", "quats", "log_scales", "logit_opacities", "sh0", "sh_rest", "features")
TABLES = (*ROW_FIELDS, *(f"shape {i}" for i in range(SHAPES)))
"""What autograd sees of the rows, in its order."""


@dataclass(eq=False)
class _Call:
    """What one render carries around autograd: settings, the statistics to fill, the sizes of buffers."""

    backend: Backend
    cameras: CameraBatch  # on the host
    options: RenderOptions
    inputs: RenderInputs
    """As given: its tensors are those autograd sees, everything else of it is meant."""
    stats: SplatStats
    capacities: CapacityBook
    update: RowUpdate | None = None


class NativeRasterizer:
    """Draws where the splats are: on the CPU with SIMD (float64 takes the generic path, which is the oracle's speed),
    or on an NVIDIA GPU in float32."""

    name = "native"

    def __init__(self) -> None:
        self._capacities = CapacityBook()

    def supports(self, inputs: RenderInputs, options: RenderOptions, device: torch.device) -> str | None:
        kind = torch.device(device).type
        if kind not in ("cpu", "cuda"):
            return f"the native rasterizer draws on CPUs and NVIDIA GPUs, not on '{kind}'"
        if kind == "cuda" and (reason := _no_cuda(inputs)) is not None:
            return reason
        try:
            library = cpu_library() if kind == "cpu" else cuda_library()
        except NativeLibraryError as error:
            return str(error)
        return _unfit(library, inputs, options)

    def can_update(self, inputs: RenderInputs) -> bool:
        plain = inputs.features is None and not inputs.shape
        return plain and backend_of(inputs.means.device).is_cuda and (
            all(getattr(inputs, name).is_contiguous() for name in ADAM_FIELDS)
        )

    def render(
        self, inputs: RenderInputs, cameras: CameraBatch, options: RenderOptions, *, update: RowUpdate | None = None
    ) -> RenderOutput:
        """See ``Rasterizer.render``. Raises ValueError for shapes, dtypes or devices that do not fit."""
        _check(inputs, cameras, options)
        if update is not None and (len(cameras) != 1 or not self.can_update(inputs)):
            raise ValueError("rows can be updated in place for one camera, on CUDA, from contiguous rows only")
        backend = backend_of(inputs.means.device)
        backend.dtype_code(inputs.means.dtype)
        host = CameraBatch(*cameras.on_host(), cameras.width, cameras.height)
        call = _Call(backend, host, options, inputs, SplatStats(), self._capacities, update)
        background = options.background
        if background is None:
            background = torch.zeros(3, dtype=inputs.means.dtype, device=inputs.means.device)
        rows = [*(getattr(inputs, name) for name in ROW_FIELDS), *inputs.shape]
        rows += [None] * (len(TABLES) - len(rows))
        color, alpha, expected, median, features, top_id = _Render.apply(
            call, *rows, background, cameras.camera_from_world
        )
        return RenderOutput(color, alpha, expected, median, features, top_id, call.stats)


def _unfit(library: NativeLibrary, inputs: RenderInputs, options: RenderOptions) -> str | None:
    """Why these splats cannot be drawn with these options."""
    reason = misfit(inputs, options.filter2d)
    if reason is not None:
        return reason
    if library.lib.splat_footprint(footprint_name(inputs.kind, options.filter2d).encode()) < 0:
        known = library.ffi.string(library.lib.splat_footprints()).decode().replace(" ", ", ")
        return f"the native library has no footprint for '{inputs.kind}' splats; it has: {known}"
    return None


def _no_cuda(inputs: RenderInputs) -> str | None:
    """Why the CUDA library cannot draw these, in one line."""
    reason = cuda.absent()
    if reason is not None:
        return f"{reason[0]} (fix: {reason[1]})"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} does not see the GPU; install a build of torch with CUDA"
    if inputs.means.dtype != torch.float32:
        return f"the CUDA backend draws float32, not {inputs.means.dtype}"
    return None


def _check(inputs: RenderInputs, cameras: CameraBatch, options: RenderOptions) -> None:
    reason = misfit(inputs, options.filter2d)
    if reason is not None:
        raise ValueError(reason)
    check_tables(inputs)
    device = inputs.means.device
    everything = {name: getattr(inputs, name) for name in (*ROW_FIELDS, "filter3d")}
    everything |= dict(zip(FOOTPRINTS[inputs.kind].shape, inputs.shape, strict=True))
    everything |= {"background": options.background, "pixel_weights": options.pixel_weights}
    for name, tensor in everything.items():
        if tensor is not None and tensor.device != device:
            raise ValueError(f"{name} is on {tensor.device}, means on {device}: all must be on one device")
    weights = options.pixel_weights
    if weights is not None and tuple(weights.shape[2:]) != (cameras.height, cameras.width):
        raise ValueError(f"pixel_weights must be [C,M,{cameras.height},{cameras.width}], got {list(weights.shape)}")
    if weights is None and any(name.startswith("weighted_") or name == "texgrad" for name in options.stats):
        raise ValueError("the weighted_* and texgrad statistics need RenderOptions.pixel_weights")
    if "shape_grad" in options.stats and (not inputs.shape or inputs.shape[-1].ndim != 1):
        raise ValueError(f"the shape_grad statistic needs a shape table [N] as the last, '{inputs.kind}' have none")
    if cameras.K.requires_grad:
        raise ValueError("gradients of the intrinsics are not computed; detach CameraBatch.K")


class _Render(torch.autograd.Function):
    @staticmethod
    def forward(ctx, call: _Call, *tensors):
        *rows, background, poses = tensors
        ctx.set_materialize_grads(False)
        dtype = rows[0].dtype
        plain = [None if t is None else t.detach().contiguous() for t in rows]
        filter3d = call.inputs.filter3d
        filter3d = None if filter3d is None else filter3d.detach().to(dtype).contiguous()
        count = len(ROW_FIELDS)
        inputs = RenderInputs(
            *plain[:count], filter3d=filter3d, kind=call.inputs.kind, constants=call.inputs.constants,
            shape=tuple(plain[count : count + len(call.inputs.shape)]),
        )  # fmt: skip
        behind = background.detach().to(dtype).expand(len(call.cameras), 3)
        weights = call.options.pixel_weights
        kind = CudaView if call.backend.is_cuda else CpuView
        views = []
        for c in range(len(call.cameras)):
            view = kind(call.backend, inputs, call.cameras, c, call.options)
            view.project_and_bin(call.capacities.hint(view))
            view.blend(behind[c].contiguous(), None if weights is None else weights[c].to(dtype).contiguous())
            views.append(view)
        for view in views:  # only now, so that every view's work is under way before one is waited for
            call.capacities.learn(view, view.settle())
        _forward_stats(call, views)
        ctx.call, ctx.views, ctx.background_shape, ctx.poses_at = call, views, background.shape, poses.device
        return _stacked(views)

    @staticmethod
    def backward(ctx, *cotangents):
        color, alpha, expected, median, features, _top_id = cotangents
        call, views = ctx.call, ctx.views
        n, new = views[0].inputs.count, views[0].inputs.means.new_empty
        need = dict(zip((*TABLES, "background", "camera"), ctx.needs_input_grad[1:], strict=True))
        inputs = views[0].inputs
        rows = {
            name: None if call.update is not None else torch.empty_like(getattr(inputs, name))
            for name in ROW_FIELDS
            # At degree 0 the higher bands are not read: no gradient rather than a table of zeros.
            if need[name] and not (name == "sh_rest" and (call.options.sh_degree == 0 or inputs.sh_rest.shape[1] == 0))
            and not (name == "features" and features is None)
        }
        shape = [torch.empty_like(table) if need[f"shape {i}"] else None for i, table in enumerate(inputs.shape)]
        if call.update is not None:
            if call.update.taken is not None:
                raise RuntimeError("backward ran already: the rows were updated in place")
            call.update.taken, rows = frozenset(rows), {}
            views[0].update = call.update
        backgrounds, poses, per_view = [], [], []
        for c, view in enumerate(views):
            out = RowGrads(**rows, shape=list(shape))
            stats = call.options.stats
            if "shape_grad" in stats:  # of each view
                out.shape[-1] = torch.zeros_like(inputs.shape[-1])
            out.mean2d = new(n, 2) if "grad2d" in stats else None
            out.color = new(n, 3) if "color_grad" in stats else None
            out.opacity = new(n) if "opacity_grad_sum" in stats else None
            out.background = new(3).zero_() if need["background"] else None
            out.camera = new(4, 4).zero_() if need["camera"] else None
            grads = ImageGrads(
                color=new(3, view.height, view.width).zero_()
                if color is None
                else color[c].permute(2, 0, 1).contiguous(),
                alpha=_plane(alpha, c), depth_expected=_plane(expected, c), depth_median=_plane(median, c),
                features=None if features is None else features[c].permute(2, 0, 1).contiguous(),
            )  # fmt: skip
            slots = _backward_view(view, grads, out, accumulate=c > 0)
            backgrounds.append(out.background)
            poses.append(out.camera)
            per_view.append((view, out, slots, grads))
        if "shape_grad" in call.options.stats:
            shape[-1] = torch.stack([out.shape[-1] for _, out, _, _ in per_view]).sum(0)
        _backward_stats(call, per_view)
        g_background = None
        if need["background"]:
            g_background = torch.stack(backgrounds)
            if len(ctx.background_shape) == 1:
                g_background = g_background.sum(0)
        g_poses = torch.stack(poses).to(ctx.poses_at) if need["camera"] else None
        shape += [None] * (SHAPES - len(shape))
        return (None, *(rows.get(name) for name in ROW_FIELDS), *shape, g_background, g_poses)


def _backward_view(view: NativeView, grads: ImageGrads, out: RowGrads, *, accumulate: bool) -> Tensor:
    """As ``NativeView.backward``; statistics are per view, so only row gradients accumulate."""
    if not accumulate:
        return view.backward(grads, out, accumulate=False)
    for name in ("mean2d", "color", "opacity"):
        if getattr(out, name) is not None:
            getattr(out, name).zero_()
    return view.backward(grads, out, accumulate=True)


def _plane(images: Tensor | None, index: int) -> Tensor | None:
    return None if images is None else images[index].contiguous()


def _stacked(views: list[NativeView]) -> tuple[Tensor | None, ...]:
    def stack(name: str) -> Tensor | None:
        planes = [getattr(view.images, name) for view in views]
        if planes[0] is None:
            return None
        return planes[0].unsqueeze(0) if len(planes) == 1 else torch.stack(planes)

    features = stack("features")
    return (
        stack("color").permute(0, 2, 3, 1),
        1 - stack("final_T"),
        stack("depth_expected"),
        stack("depth_median"),
        None if features is None else features.permute(0, 2, 3, 1),
        stack("top_id"),
    )


def _forward_stats(call: _Call, views: list[NativeView]) -> None:
    wanted, stats = call.options.stats & FORWARD_STATS, call.stats
    if not wanted:
        return
    drawn = torch.stack([view.depth_keys != -1 for view in views])  # 0xffffffff as int32
    if "visible" in wanted:
        stats.visible = drawn
    if "radii_px" in wanted:
        radii = torch.stack([view.records[:, 10:12] for view in views])
        stats.radii_px = torch.where(drawn[..., None], radii, torch.zeros_like(radii))
    if "depths" in wanted:
        depths = torch.stack([view.records[:, 9] for view in views])
        stats.depths = torch.where(drawn, depths, torch.zeros_like(depths))
    column = 0
    for name in list(FORWARD_BITS)[:-1]:
        if name in wanted:
            parts = [view.gather(view.images.slot_stats, column, 1, maximum=name == "blend_max") for view in views]
            setattr(stats, name, torch.stack(parts).squeeze(-1))
            column += 1
    if any(name.startswith("weighted_") for name in wanted):
        maps = call.options.pixel_weights.shape[1]
        table = torch.stack([view.gather(view.images.slot_stats, column, 2 * maps) for view in views])
        both = table.reshape(len(views), -1, maps, 2).permute(3, 0, 2, 1)  # [2,C,M,N]
        stats.weighted_count, stats.weighted_blend = both[0], both[1]


@lru_cache(maxsize=64)  # a copy to a GPU would wait for it
def _half_size(width: int, height: int, dtype: torch.dtype, device: torch.device) -> Tensor:  # [2]
    return torch.tensor([width / 2, height / 2], dtype=dtype, device=device)


def _backward_stats(call: _Call, per_view: list) -> None:
    wanted, stats = call.options.stats, call.stats
    half = _half_size(call.cameras.width, call.cameras.height, per_view[0][0].dtype, per_view[0][0].device)
    if "grad2d" in wanted:
        stats.grad2d = torch.stack([(out.mean2d * half).norm(dim=1) for _, out, _, _ in per_view])
    if "color_grad" in wanted:
        stats.color_grad = torch.stack([out.color.norm(dim=1) for _, out, _, _ in per_view])
    if "shape_grad" in wanted:
        stats.shape_grad = torch.stack([out.shape[-1] for _, out, _, _ in per_view])
    if "opacity_grad_sum" in wanted:
        stats.opacity_grad_sum = torch.stack([out.opacity for _, out, _, _ in per_view])
    for name in BACKWARD_BITS:
        if name not in wanted:
            continue
        parts = []
        for view, _, slots, grads in per_view:
            extra = int(grads.depth_expected is not None or grads.depth_median is not None)
            extra += 0 if grads.features is None else grads.features.shape[0]
            before = [other for other in BACKWARD_BITS if other in wanted]
            first = view.sums + extra + sum(2 if o == "abs_grad2d" else 1 for o in before[: before.index(name)])
            table = view.gather(slots, first, 2 if name == "abs_grad2d" else 1)
            parts.append((table * half).norm(dim=1) if name == "abs_grad2d" else table[:, 0])
        setattr(stats, name, torch.stack(parts))
