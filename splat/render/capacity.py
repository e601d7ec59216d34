"""How many slots to lay out for a view before it is known how many it takes."""

from __future__ import annotations

from collections import OrderedDict

from splat.render.native_cuda import roomy
from splat.render.native_view import NativeView

MOST_VIEWS = 4096
FIRST_SLOTS_PER_SPLAT = 4
"""For the first view of a size; too few costs one more binning, once."""


class CapacityBook:
    """Remembers the slots of the last visit of every view, and of the most demanding view of every size."""

    def __init__(self) -> None:
        self._by_view: OrderedDict[bytes, float] = OrderedDict()  # slots per splat
        self._by_size: dict[tuple[int, int], int] = {}

    def hint(self, view: NativeView) -> int:
        """Slots to lay out; without a visit of this very view, what the largest of its size took."""
        count, largest = view.inputs.count, self._by_size.get((view.width, view.height), 0)
        if not view.backend.is_cuda:
            return max(largest, 2 * count + 1024)
        seen = self._by_view.get(_key(view))
        if seen is not None:
            return roomy(seen * count)
        return roomy(largest or FIRST_SLOTS_PER_SPLAT * count)

    def learn(self, view: NativeView, slots: int) -> None:
        size = view.width, view.height
        if not view.backend.is_cuda:
            self._by_size[size] = max(self._by_size.get(size, 0), 2 * view.inputs.count + 1024, slots)
            return
        self._by_size[size] = max(self._by_size.get(size, 0), slots)
        key = _key(view)
        self._by_view[key] = slots / max(view.inputs.count, 1)
        self._by_view.move_to_end(key)
        if len(self._by_view) > MOST_VIEWS:
            self._by_view.popitem(last=False)


def _key(view: NativeView) -> bytes:
    """The camera by its numbers: where it stands, how it looks, how large its picture is."""
    poses, intrinsics = view.cameras.on_host()
    size = view.width.to_bytes(4, "little") + view.height.to_bytes(4, "little")
    return poses[view.index].numpy().tobytes() + intrinsics[view.index].numpy().tobytes() + size
