"""A view drawn by the CPU library: every call returns when the work is done."""

from __future__ import annotations

from typing import Any

from splat.render.native_view import NativeView


class CpuView(NativeView):
    """Counts are known as soon as binning returns, so buffers grow on the spot."""

    def project_and_bin(self, capacity: int) -> None:
        self.backend.check(self.lib.splat_cpu_project(self.rows, self.view, self.projected), "project")
        visible = self.ffi.new("int64_t *")
        while True:
            self.bins = self._bins(capacity)
            needed = self._bin(visible)
            if needed <= capacity:
                break
            capacity = needed
        self.visible_count, self.slots = visible[0], needed

    def _bin(self, visible: Any) -> int:
        if not self.inputs.count:
            self.tile_begin.zero_()
            return 0
        status = self.lib.splat_cpu_bin(self.rows, self.view, self.projected, self.bins, visible)
        return self.backend.check(status, "bin")

    def settle(self) -> int:
        return self.slots

    @property
    def _stat_slots(self) -> int:
        return self.slots

    def _blend(self) -> int:
        return self.lib.splat_cpu_blend(self.rows, self.view, self.projected, self.bins, self.c_images)

    def _gather(self, *args: Any) -> int:
        return self.lib.splat_cpu_gather_stats(self.rows, self.bins, *args)

    def _blend_backward(self, grads: Any) -> int:
        return self.lib.splat_cpu_blend_backward(
            self.rows, self.view, self.projected, self.bins, self.c_images, grads
        )

    def _project_backward(self, grads: Any, out: Any) -> int:
        return self.lib.splat_cpu_project_backward(self.rows, self.view, self.projected, self.bins, grads, out)
