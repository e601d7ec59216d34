"""One view through the native core: buffers, structs, and the calls in their order, whatever the backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from splat.model.render_inputs import RenderInputs
from splat.native.backend import Backend
from splat.render.types import FILTER2D_COMPENSATES, CameraBatch, RenderOptions, RowUpdate

FORWARD_BITS = {"fragments": 1, "blend_sum": 2, "blend_max": 4, "max_contrib": 8, "center_dist": 16, "weighted": 32}
BACKWARD_BITS = {"abs_grad2d": 1, "abs_grad2d_l2": 2, "opacity_grad_sq": 4, "texgrad": 8, "sensitivity": 16}
"""Bits of splat_forward_stat and splat_backward_stat; a slot holds its columns in this order."""

SHAPES, TILE = 3, 16
GRADIENTS = ("means", "quats", "log_scales", "logit_opacities", "sh0", "sh_rest", "features", "mean2d", "color",
             "opacity")  # fmt: skip
"""Row arrays of splat_row_grads."""


def footprint_name(kind: str, filter2d: str) -> str:
    """What the native core calls it: the pixel-window integral of a Gaussian is a footprint of its own."""
    return "analytic" if (kind, filter2d) == ("gaussian", "analytic") else kind


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
    shape: list[Tensor | None] = field(default_factory=list)
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
class NativeView(ABC):
    """Splats seen by camera ``index`` of a batch. Holds everything the backward pass needs.

    Call ``project_and_bin``, ``blend`` and ``settle`` in this order; then counts and pictures are final, and
    ``gather`` and ``backward`` may follow.
    """

    backend: Backend
    inputs: RenderInputs  # detached, contiguous
    cameras: CameraBatch
    index: int
    options: RenderOptions
    visible_count: int = 0
    slots: int = 0
    """Slots of sums in use: known once settled."""
    images: ViewImages | None = None
    update: RowUpdate | None = None
    """Step the rows in the backward pass instead of filling their gradients (CUDA only)."""
    _keep: list[Tensor] = field(default_factory=list)
    """Tensors whose addresses the structs hold."""

    def __post_init__(self) -> None:
        self.ffi, self.lib = self.backend.ffi, self.backend.lib
        self.dtype, self.device = self.inputs.means.dtype, self.inputs.means.device
        self.footprint = self.lib.splat_footprint(footprint_name(self.inputs.kind, self.options.filter2d).encode())
        self.sums = self.lib.splat_footprint_sums(self.footprint) + 3
        """Sums of a slot before those of depth, features and statistics."""
        self.height, self.width = self.cameras.height, self.cameras.width
        self.rows, self.view = self._rows(), self._view()
        n = self.inputs.count
        self.records = self._new(n, self.lib.splat_record_reals(self.footprint))
        self.depth_keys, self.rect_tiles = self._ints(n), self._ints(n)
        self.projected = self.ffi.new(
            "splat_projected *",
            {
                "records": self._at(self.records),
                "depth_keys": self._u32(self.depth_keys),
                "rect_tiles": self._u32(self.rect_tiles),
            },
        )
        self.order, self.slot_begin, self.slot_count = self._ints(n), self._ints(n + 1), self._ints(n)
        self.tiles = -(-self.width // TILE) * -(-self.height // TILE)
        self.tile_begin = self._ints(self.tiles + 1)
        self.bins: Any = None

    # --- what differs between backends -----------------------------------------------------------------------

    @abstractmethod
    def project_and_bin(self, capacity: int) -> None:
        """Project, sort and bin into ``capacity`` slots or, where it is known at once, as many as it takes."""

    @abstractmethod
    def settle(self) -> int:
        """Wait until the counts are known; draw again if the slots did not suffice. Returns the slots needed."""

    @abstractmethod
    def _blend(self) -> int: ...

    @abstractmethod
    def _gather(self, *args: Any) -> int: ...

    @abstractmethod
    def _blend_backward(self, grads: Any) -> int: ...

    @abstractmethod
    def _project_backward(self, grads: Any, out: Any) -> int: ...

    @property
    @abstractmethod
    def _stat_slots(self) -> int:
        """Rows of the table of forward statistics."""

    # --- structs ---------------------------------------------------------------------------------------------

    def _new(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def _ints(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int32, device=self.device)

    def _at(self, tensor: Tensor | None, ctype: str = "void *") -> Any:
        return self.backend.pointer(tensor, ctype)

    def _u32(self, tensor: Tensor) -> Any:
        return self.backend.pointer(tensor, "uint32_t *")

    def _rows(self) -> Any:
        x = self.inputs
        return self.ffi.new(
            "splat_rows *",
            {
                "count": x.count,
                "dtype": self.backend.dtype_code(self.dtype),
                "sh_rest_count": x.sh_rest.shape[1],
                "feature_count": 0 if x.features is None else x.features.shape[1],
                "means": self._at(x.means),
                "quats": self._at(x.quats),
                "log_scales": self._at(x.log_scales),
                "logit_opacities": self._at(x.logit_opacities),
                "sh0": self._at(x.sh0),
                "sh_rest": self._at(x.sh_rest),
                "features": self._at(x.features),
                "filter3d": self._at(x.filter3d),
                "footprint": self.footprint,
                "shape": [self._at(table) for table in x.shape],
                "shape_columns": [table[:1].numel() if x.count else 0 for table in x.shape],
                "constants": list(x.constants),
            },
        )

    def _view(self) -> Any:
        poses, intrinsics = self.cameras.on_host()
        pose, K = poses[self.index].double(), intrinsics[self.index].double()
        options = self.options
        return self.ffi.new(
            "splat_view *",
            {
                "camera_from_world": pose[:3].reshape(-1).tolist(),
                "fx": K[0, 0].item(), "fy": K[1, 1].item(), "cx": K[0, 2].item(), "cy": K[1, 2].item(),
                "near_z": options.near, "far_z": options.far,
                "dilation": options.filter2d_variance_px,
                "compensate": int(options.filter2d in FILTER2D_COMPENSATES),
                "sh_degree": options.sh_degree,
                "width": self.width, "height": self.height,
                "tan_limits": options.tan_limits or (0.0, 0.0, 0.0, 0.0),
            },
        )  # fmt: skip

    def _bins(self, capacity: int) -> Any:
        self.instance_splat, self.instance_slot = self._ints(capacity), self._ints(capacity)
        return self.ffi.new(
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

    # --- forward ---------------------------------------------------------------------------------------------

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
            slot_stats=self._new(self._stat_slots, stride) if stride else None,
        )
        self._keep = [t for t in (background, weight_maps) if t is not None]
        self.images = im
        self.c_images = self.ffi.new(
            "splat_images *",
            {
                "background": self._at(background),
                "color": self._at(im.color), "final_T": self._at(im.final_T),
                "depth_expected": self._at(im.depth_expected), "depth_median": self._at(im.depth_median),
                "features": self._at(im.features), "top_id": self._at(im.top_id, "int32_t *"),
                "weight_maps": self._at(weight_maps), "weight_map_count": maps,
                "stats": stats, "slot_stats": self._at(im.slot_stats),
            },
        )  # fmt: skip
        self.backend.check(self._blend(), "blend")
        return im

    def gather(self, slot_rows: Tensor, first: int, columns: int, *, maximum: bool = False) -> Tensor:
        """Per splat, the sums (or maxima) of some columns of its slots: -> [N,columns]."""
        out = self._new(self.inputs.count, columns)
        if self.inputs.count:
            status = self._gather(
                self._at(slot_rows), slot_rows.shape[1], first, columns, 0 if maximum else -1, self._at(out)
            )
            self.backend.check(status, "gather_stats")
        return out

    # --- backward --------------------------------------------------------------------------------------------

    def backward(self, cotangents: ImageGrads, out: RowGrads, *, accumulate: bool) -> Tensor:
        """Fill ``out`` from the pictures' cotangents; returns the slots with the statistics' columns."""
        bits = backward_bits(self.options.stats)
        depth = cotangents.depth_expected is not None or cotangents.depth_median is not None
        extra = int(depth) + (0 if cotangents.features is None else cotangents.features.shape[0])
        stride = self.lib.splat_backward_slot_stride(self.footprint, bits, extra)
        slots = self._new(self.slots, stride)
        background = None if out.background is None else out.background.new_zeros(3, dtype=torch.float64)
        c_grads = self.ffi.new(
            "splat_image_grads *",
            {
                "color": self._at(cotangents.color), "alpha": self._at(cotangents.alpha),
                "depth_expected": self._at(cotangents.depth_expected),
                "depth_median": self._at(cotangents.depth_median),
                "features": self._at(cotangents.features),
                "stats": bits, "slot_stride": stride, "slots": self._at(slots),
                "background": self._at(background, "double *"),
            },
        )  # fmt: skip
        camera = self._rows_backward(c_grads, out, accumulate=accumulate) if self.inputs.count else None
        if out.camera is not None and camera is not None:
            out.camera[:3] = camera.reshape(3, 4).to(out.camera.dtype)
        if background is not None:
            # Without splats no kernel runs, and the picture is the background.
            out.background.copy_(background if self.inputs.count else cotangents.color.double().sum(dim=(1, 2)))
        return slots

    def _rows_backward(self, c_grads: Any, out: RowGrads, *, accumulate: bool) -> Tensor | None:
        """Both kernels; the gradient of the pose [12] in float64 if it is wanted."""
        self.backend.check(self._blend_backward(c_grads), "blend_backward")
        camera = scratch = None
        if out.camera is not None:
            camera = torch.zeros(12, dtype=torch.float64, device=self.device)
            scratch = torch.zeros(self.inputs.count // 1024 + 1, 12, dtype=torch.float64, device=self.device)
        c_rows = {name: self._at(getattr(out, name)) for name in GRADIENTS}
        c_out = self.ffi.new(
            "splat_row_grads *",
            c_rows | {
                "shape": [self._at(table) for table in out.shape],
                "camera": self._at(camera, "double *"), "camera_scratch": self._at(scratch, "double *"),
                "accumulate": int(accumulate),
            },
        )  # fmt: skip
        self.backend.check(self._project_backward(c_grads, c_out), "project_backward")
        return camera
