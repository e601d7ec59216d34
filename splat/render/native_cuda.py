"""A view drawn by the CUDA library: calls return at once, and counts come back while the GPU goes on.

Slots are laid out before anyone knows how many are needed, in as many as the last visit of the view took and a
quarter more. The counters travel to pinned memory behind the binning; ``settle`` waits for them while the blend
runs, so the GPU always has work queued. When the slots did not suffice, the device has binned nothing, and
``settle`` bins and blends again into larger ones: always at the same place, and never with a part of the splats.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from splat.render.native_view import NativeView, ViewImages
from splat.render.types import RowUpdate

COUNTERS = 8  # uint32 fields of splat_counters
VISIBLE, SLOTS, INSTANCES, OVERFLOW = range(4)
ADAM_FIELDS = ("means", "quats", "log_scales", "logit_opacities", "sh0", "sh_rest")
"""Row arrays of splat_adam_rows, in its order."""
MOST_SLOTS = 2**31
LEAST_SLOTS = 1024


def roomy(slots: float) -> int:
    """At least a quarter more than ``slots``, in steps of an eighth, so that torch's allocator sees few sizes."""
    wanted = max(int(slots * 1.25), LEAST_SLOTS)
    step = 1 << max(wanted.bit_length() - 4, 8)
    return min(-(-wanted // step) * step, MOST_SLOTS - 1)


class CudaView(NativeView):
    """See ``NativeView``; float32 only."""

    def project_and_bin(self, capacity: int) -> None:
        with self.backend.on(self.device):
            if self.inputs.count:
                status = self.lib.splat_cuda_project(self.rows, self.view, self.projected, self._stream())
                self.backend.check(status, "project")
            self._start_bin(capacity)

    def _start_bin(self, capacity: int) -> None:
        self._capacity = min(max(capacity, LEAST_SLOTS), MOST_SLOTS - 1)
        self.bins = self._bins(self._capacity)
        self._counters = torch.zeros(COUNTERS, dtype=torch.int32, device=self.device)
        self._c_counters = self._at(self._counters, "splat_counters *")
        self._checkpoints = torch.empty(
            self.lib.splat_cuda_checkpoint_bytes(self._capacity, self.width, self.height), dtype=torch.uint8,
            device=self.device,
        )  # fmt: skip
        if not self.inputs.count:
            self.tile_begin.zero_()
        else:
            size = self.lib.splat_cuda_bin_scratch(self.inputs.count, self._capacity, self.width, self.height)
            scratch, _kept = self.backend.scratch(size, self.device)
            status = self.lib.splat_cuda_bin(
                self.rows, self.view, self.projected, self.bins, self._c_counters, scratch, self._stream()
            )
            self.backend.check(status, "bin")
        self._counted, self._arrived = _to_host(self._counters)

    def settle(self) -> int:
        while True:
            if self._arrived is not None:
                self._arrived.synchronize()
            counted = [value & 0xFFFFFFFF for value in self._counted.tolist()]
            needed = counted[SLOTS]
            if needed >= MOST_SLOTS:
                self.backend.check(-2, "bin")
            if not counted[OVERFLOW]:
                break
            if needed <= self._capacity:
                raise RuntimeError(f"native bin: {needed} slots did not fit into {self._capacity}")
            background, *weight_maps = self._keep
            with self.backend.on(self.device):
                self._release()
                self._start_bin(roomy(needed))
                self.blend(background, weight_maps[0] if weight_maps else None)
        self.visible_count, self.slots, self.instances = counted[VISIBLE], needed, counted[INSTANCES]
        return needed

    def _release(self) -> None:
        """Drop what was too small, so that its memory can serve what replaces it."""
        self.instance_splat = self.instance_slot = self._checkpoints = self.images = None

    def blend(self, background: Tensor, weight_maps: Tensor | None) -> ViewImages:
        with self.backend.on(self.device):
            return super().blend(background, weight_maps)

    def _stream(self) -> Any:
        return self.backend.stream(self.device)

    @property
    def _stat_slots(self) -> int:
        return self._capacity

    def _blend(self) -> int:
        return self.lib.splat_cuda_blend(
            self.rows, self.view, self.projected, self.bins, self._c_counters, self.c_images,
            self._at(self._checkpoints), self._stream(),
        )  # fmt: skip

    def _gather(self, *args: Any) -> int:
        with self.backend.on(self.device):
            return self.lib.splat_cuda_gather_stats(self.rows, self.bins, *args, self._stream())

    def _blend_backward(self, grads: Any) -> int:
        with self.backend.on(self.device):
            return self.lib.splat_cuda_blend_backward(
                self.rows, self.view, self.projected, self.bins, self._c_counters, self.c_images, grads,
                self._at(self._checkpoints), self._stream(),
            )  # fmt: skip

    def _project_backward(self, grads: Any, out: Any) -> int:
        args = self.rows, self.view, self.projected, self.bins, self._c_counters, grads, out
        with self.backend.on(self.device):
            if self.update is None:
                return self.lib.splat_cuda_project_backward(*args, self._stream())
            return self.lib.splat_cuda_project_backward_adam(*args, self._adam_rows(self.update), self._stream())

    def _adam_rows(self, update: RowUpdate) -> Any:
        """The struct; fields that rest have no moments in it."""
        moving = [name if name in update.taken else None for name in ADAM_FIELDS]
        null = self.ffi.NULL
        return self.ffi.new(
            "splat_adam_rows *",
            {
                "param": [null if name is None else self._at(getattr(self.inputs, name)) for name in moving],
                "m": [null if name is None else self._at(update.first[name]) for name in moving],
                "v": [null if name is None else self._at(update.second[name]) for name in moving],
                "lr": [0.0 if name is None else update.lrs[name] for name in moving],
                "step": [1 if name is None else update.steps[name] for name in moving],
                "beta1": update.betas[0], "beta2": update.betas[1], "eps": update.eps,
            },
        )  # fmt: skip


def _to_host(counters: Tensor) -> tuple[Tensor, Any]:
    """A copy on its way to pinned memory, and the event that says it is there (None: it is)."""
    if counters.device.type != "cuda":
        return counters, None
    pinned = torch.empty(counters.shape, dtype=counters.dtype, pin_memory=True)
    pinned.copy_(counters, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(counters.device))
    return pinned, arrived
