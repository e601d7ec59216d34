"""One view through the native core: buffers, structs, and the calls in their order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from splat.model.render_inputs import RenderInputs
from splat.native.library import cpu_library
from splat.native.ops import check, dtype_code, pointer
from splat.render.types import FILTER2D_VARIANCE_PX, CameraBatch, RenderOptions

FORWARD_BITS = {"fragments": 1, "blend_sum": 2, "blend_max": 4, "max_contrib": 8, "center_dist": 16, "weighted": 32}
BACKWARD_BITS = {"abs_grad2d": 1, "abs_grad2d_l2": 2, "opacity_grad_sq": 4, "texgrad": 8, "sensitivity": 16}
"""Bits of splat_forward_stat and splat_backward_stat; a slot holds its columns in this order."""

RECORD, SLOT, TILE = 16, 9, 16


def forward_bits(stats: frozenset[str]) -> int:
    names = {"weighted" if name.startswith("weighted_") else name for name in stats}
    return sum(bit for name, bit in FORWARD_BITS.items() if name in names)


def backward_bits(stats: frozenset[str]) -> int:
    return sum(bit for name, bit in BACKWARD_BITS.items() if name in stats)


@dataclass(eq=False)
class ViewImages:
    """Planar pictures of one view; None = not asked for."""

    color: Tensor  # [3,H,W]
    final_T: Tensor  # [H,W]
    depth_expected: Tensor | None
    depth_median: Tensor | None
    features: Tensor | None  # [F,H,W]
    top_id: Tensor | None  # [H,W] int32
    slot_stats: Tensor | None


@dataclass(eq=False)
class RowGrads:
    """Gradients of the raw rows; None = not wanted."""

    means: Tensor | None = None
    quats: Tensor | None = None
    log_scales: Tensor | None = None
    logit_opacities: Tensor | None = None
    sh0: Tensor | None = None
    sh_rest: Tensor | None = None
    features: Tensor | None = None
    mean2d: Tensor | None = None
    color: Tensor | None = None
    opacity: Tensor | None = None
    background: Tensor | None = None
    camera: Tensor | None = None  # [4,4], last row zero


@dataclass(eq=False)
class ImageGrads:
    """Cotangents of one view's pictures, planar and contiguous."""

    color: Tensor  # [3,H,W]
    alpha: Tensor | None = None
    depth_expected: Tensor | None = None
    depth_median: Tensor | None = None
    features: Tensor | None = None


@dataclass(eq=False)
class NativeView:
    """Splats seen by camera ``index`` of a batch. Holds everything the backward pass needs."""

    inputs: RenderInputs  # detached, contiguous
    cameras: CameraBatch
    index: int
    options: RenderOptions
    visible_count: int = 0
    slots: int = 0
    images: ViewImages | None = None
    _keep: list[Tensor] = field(default_factory=list)
    """Tensors whose addresses the structs hold."""

    def __post_init__(self) -> None:
        native = cpu_library()
        self.ffi, self.lib = native.ffi, native.lib
        self.dtype = self.inputs.means.dtype
        self.height, self.width = self.cameras.height, self.cameras.width
        self.rows, self.view = self._rows(), self._view()
        n = self.inputs.count
        self.records = self._new(n, RECORD)
        self.depth_keys, self.rect_tiles = self._ints(n), self._ints(n)
        self.projected = self.ffi.new(
            "splat_projected *",
            {
                "records": pointer(self.records),
                "depth_keys": self._u32(self.depth_keys),
                "rect_tiles": self._u32(self.rect_tiles),
            },
        )
        self.order, self.slot_begin, self.slot_count = self._ints(n), self._ints(n + 1), self._ints(n)
        tiles = -(-self.width // TILE) * -(-self.height // TILE)
        self.tile_begin = self._ints(tiles + 1)
        self.bins: Any = None

    # --- structs ---------------------------------------------------------------------------------------------

    def _new(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.dtype)

    @staticmethod
    def _ints(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int32)

    def _u32(self, tensor: Tensor):  # noqa: ANN202 - a cffi pointer
        return pointer(tensor, "uint32_t *")

    def _rows(self) -> Any:
        x = self.inputs
        return self.ffi.new(
            "splat_rows *",
            {
                "count": x.count,
                "dtype": dtype_code(self.dtype),
                "sh_rest_count": x.sh_rest.shape[1],
                "feature_count": 0 if x.features is None else x.features.shape[1],
                "means": pointer(x.means),
                "quats": pointer(x.quats),
                "log_scales": pointer(x.log_scales),
                "logit_opacities": pointer(x.logit_opacities),
                "sh0": pointer(x.sh0),
                "sh_rest": pointer(x.sh_rest),
                "features": pointer(x.features),
                "filter3d": pointer(x.filter3d),
            },
        )

    def _view(self) -> Any:
        pose = self.cameras.camera_from_world[self.index].detach().double()
        K = self.cameras.K[self.index].detach().double()
        options = self.options
        return self.ffi.new(
            "splat_view *",
            {
                "camera_from_world": pose[:3].reshape(-1).tolist(),
                "fx": K[0, 0].item(), "fy": K[1, 1].item(), "cx": K[0, 2].item(), "cy": K[1, 2].item(),
                "near_z": options.near, "far_z": options.far,
                "dilation": FILTER2D_VARIANCE_PX[options.filter2d],
                "compensate": int(options.filter2d != "classic"),
                "sh_degree": options.sh_degree,
                "width": self.width, "height": self.height,
            },
        )  # fmt: skip

    # --- forward ---------------------------------------------------------------------------------------------

    def project_and_bin(self, capacity: int) -> int:
        """Project, sort, bin. Returns the slots used, to be the capacity hint of the next call."""
        check(self.lib.splat_cpu_project(self.rows, self.view, self.projected), "project")
        visible = self.ffi.new("int64_t *")
        while True:
            self.instance_splat, self.instance_slot = self._ints(capacity), self._ints(capacity)
            self.bins = self.ffi.new(
                "splat_bins *",
                {
                    "order": self._u32(self.order),
                    "slot_begin": self._u32(self.slot_begin), "slot_count": self._u32(self.slot_count),
                    "tile_begin": self._u32(self.tile_begin),
                    "instance_splat": self._u32(self.instance_splat),
                    "instance_slot": self._u32(self.instance_slot),
                    "capacity": capacity,
                },
            )  # fmt: skip
            needed = check(
                self.lib.splat_cpu_bin(self.rows, self.view, self.projected, self.bins, visible), "bin"
            ) if self.inputs.count else self._no_instances(visible)
            if needed <= capacity:
                break
            capacity = needed
        self.visible_count, self.slots = visible[0], needed
        return needed

    def _no_instances(self, visible: Any) -> int:
        self.tile_begin.zero_()
        visible[0] = 0
        return 0

    def blend(self, background: Tensor, weight_maps: Tensor | None) -> ViewImages:
        """Blend the binned splats: ``background [3]``, ``weight_maps [M,H,W]``."""
        h, w, options = self.height, self.width, self.options
        stats = forward_bits(options.stats)
        maps = 0 if weight_maps is None else weight_maps.shape[0]
        stride = self.lib.splat_forward_stat_stride(stats, maps)
        features = self.inputs.features
        im = ViewImages(
            color=self._new(3, h, w),
            final_T=self._new(h, w),
            depth_expected=self._new(h, w) if "expected" in options.depth else None,
            depth_median=self._new(h, w) if "median" in options.depth else None,
            features=None if features is None else self._new(features.shape[1], h, w),
            top_id=self._ints(h, w) if options.top_id else None,
            slot_stats=self._new(self.slots, stride) if stride else None,
        )
        self._keep = [t for t in (background, weight_maps) if t is not None]
        self.images = im
        self.c_images = self.ffi.new(
            "splat_images *",
            {
                "background": pointer(background),
                "color": pointer(im.color), "final_T": pointer(im.final_T),
                "depth_expected": pointer(im.depth_expected), "depth_median": pointer(im.depth_median),
                "features": pointer(im.features), "top_id": pointer(im.top_id, "int32_t *"),
                "weight_maps": pointer(weight_maps), "weight_map_count": maps,
                "stats": stats, "slot_stats": pointer(im.slot_stats),
            },
        )  # fmt: skip
        check(self.lib.splat_cpu_blend(self.rows, self.view, self.projected, self.bins, self.c_images), "blend")
        return im

    def gather(self, slot_rows: Tensor, first: int, columns: int, *, maximum: bool = False) -> Tensor:
        """Per splat, the sums (or maxima) of some columns of its slots: -> [N,columns]."""
        out = self._new(self.inputs.count, columns)
        check(
            self.lib.splat_cpu_gather_stats(
                self.rows, self.bins, pointer(slot_rows), slot_rows.shape[1], first, columns, 0 if maximum else -1,
                pointer(out),
            ),
            "gather_stats",
        )
        return out

    # --- backward --------------------------------------------------------------------------------------------

    def backward(self, cotangents: ImageGrads, out: RowGrads, *, accumulate: bool) -> Tensor:
        """Fill ``out`` from the pictures' cotangents; returns the slots with the statistics' columns."""
        bits = backward_bits(self.options.stats)
        depth = cotangents.depth_expected is not None or cotangents.depth_median is not None
        extra = int(depth) + (0 if cotangents.features is None else cotangents.features.shape[0])
        stride = self.lib.splat_backward_slot_stride(bits, extra)
        slots = self._new(self.slots, stride)
        c_grads = self.ffi.new(
            "splat_image_grads *",
            {
                "color": pointer(cotangents.color), "alpha": pointer(cotangents.alpha),
                "depth_expected": pointer(cotangents.depth_expected),
                "depth_median": pointer(cotangents.depth_median),
                "features": pointer(cotangents.features),
                "stats": bits, "slot_stride": stride, "slots": pointer(slots),
            },
        )  # fmt: skip
        args = (self.rows, self.view, self.projected, self.bins)
        check(self.lib.splat_cpu_blend_backward(*args, self.c_images, c_grads), "blend_backward")
        camera = torch.zeros(12, dtype=torch.float64)
        scratch = torch.zeros(self.inputs.count // 1024 + 1, 12, dtype=torch.float64)
        names = ("means", "quats", "log_scales", "logit_opacities", "sh0", "sh_rest", "features", "mean2d", "color",
                 "opacity")  # fmt: skip
        c_rows = {name: pointer(getattr(out, name)) for name in names}
        want_camera = out.camera is not None
        c_out = self.ffi.new(
            "splat_row_grads *",
            c_rows | {
                "camera": pointer(camera if want_camera else None, "double *"),
                "camera_scratch": pointer(scratch if want_camera else None, "double *"),
                "accumulate": int(accumulate),
            },
        )
        check(self.lib.splat_cpu_project_backward(*args, c_grads, c_out), "project_backward")
        if want_camera:
            out.camera[:3] = camera.reshape(3, 4).to(out.camera.dtype)
        if out.background is not None:
            out.background.copy_((cotangents.color * self.images.final_T).double().sum(dim=(1, 2)))
        return slots
