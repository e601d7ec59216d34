"""The histogram of an attribute, and selecting by a range of it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from torch import Tensor

from splat.edit.attributes import ATTRIBUTES
from splat.edit.ops import Select
from splat.edit.shapes import AttributeRange
from splat.live.snapshot import Snapshot
from splat.model.labels import SELECTED
from splat.viewer.figures.histogram import BIN_PX, BINS, HEIGHT_PX, Histogram, count_in_range, histogram, picture
from splat.viewer.serving.page import BEAT_SECS, Page
from splat.viewer.serving.spurt import Spurt

COMBINES = ("set", "add", "subtract", "intersect")
SETTLED_SECS = 0.4
"""A range that is being dragged selects once it has rested this long: one step of undo, not fifty."""
RECOUNT_SECS, SELDOM_SECS = 2.0, 15.0
"""A model in training is counted anew this often; seldom where nobody has used the panel or edited for a while: no
browser tells which tab is open."""
IN_USE_SECS = 60.0


class SpreadPanel:
    """A folder of the tab "Inspect"."""

    def __init__(self, page: Page) -> None:
        self.page, self.gui = page, page.client.gui
        self.found: Histogram | None = None
        self._counted: tuple[Any, ...] | None = None
        self._counted_at = 0.0
        self._values: tuple[Any, Tensor] | None = None
        self._due_at: float | None = None
        self._used_at, self._status = time.monotonic(), page.desk.session.status
        self._settling = Spurt(page, self._settle)
        gui, guarded = self.gui, page.guarded
        with gui.add_folder("Histogram"):
            self.attribute = gui.add_dropdown("Attribute", tuple(ATTRIBUTES), initial_value="opacity")
            self.purpose = gui.add_markdown(_purpose("opacity"))
            self.image = gui.add_image(np.zeros((HEIGHT_PX, BINS * BIN_PX, 3), np.uint8), format="png")
            self.range = gui.add_multi_slider("Range", 0, BINS, 1, (0, BINS), min_range=1)
            self.counts = gui.add_markdown("")
            self.log_counts = gui.add_checkbox("Log counts", True, hint="Heights by their logarithm")
            self.log_values = gui.add_checkbox("Log values", False, hint="Bins of equal factors")
            self.combine = gui.add_dropdown("Selection", COMBINES, hint="What becomes of what is selected already")
            self.live = gui.add_checkbox("Dragging selects", True, hint="A range that comes to rest is selected")
            self.select = gui.add_button("Select the range")
        self.attribute.on_update(guarded(lambda _: self._another()))
        self.log_values.on_update(guarded(lambda _: self._another()))
        self.log_counts.on_update(guarded(lambda _: self._paint()))
        self.range.on_update(guarded(self._dragged))
        self.select.on_click(guarded(lambda _: self.submit()))
        page.every(BEAT_SECS, self.tick)

    @property
    def bins(self) -> tuple[int, int]:
        first, last = sorted(int(value) for value in self.range.value)
        return first, max(last, first + 1)

    @property
    def limits(self) -> tuple[float, float]:
        """The range in the attribute's own unit; ends included."""
        return (0.0, 1.0) if self.found is None else self.found.range_of(*self.bins)

    def submit(self) -> None:
        """Select what is in the range."""
        self._due_at = None
        low, high = self.limits
        self.page.toolbox.submit(Select(AttributeRange(self.attribute.value, low, high), self.combine.value))

    def tick(self) -> None:
        """Count when the model or the selection is another."""
        now, status = time.monotonic(), self.page.desk.session.status
        if status is not self._status:
            self._status, self._used_at = status, now
        snapshot = self.page.snapshot
        if snapshot is None:
            return
        wanted = (snapshot.version, self.attribute.value, self.log_values.value)
        if wanted == self._counted:
            return
        only_version = self._counted is not None and wanted[1:] == self._counted[1:]
        pause = RECOUNT_SECS if now - self._used_at < IN_USE_SECS else SELDOM_SECS
        if only_version and self.page.desk.is_training and now - self._counted_at < pause:
            return
        self._counted, self._counted_at = wanted, now
        self._count(snapshot)

    def _settle(self) -> bool:
        """Select once the drag has come to rest. Whether it is still to come."""
        due = self._due_at
        if due is not None and time.monotonic() >= due:
            self.submit()
        return self._due_at is not None

    def _count(self, snapshot: Snapshot) -> None:
        values = ATTRIBUTES[self.attribute.value].values(snapshot.model, snapshot.labels)
        self._values = (snapshot, values)
        self.found = histogram(values, snapshot.labels.having(SELECTED), log_values=self.log_values.value)
        self._paint()

    def _paint(self) -> None:
        if self.found is None or self._values is None:
            return
        self.image.image = picture(self.found, *self.bins, log_counts=self.log_counts.value)
        low, high = self.limits
        unit = ATTRIBUTES[self.attribute.value].unit
        inside = count_in_range(self._values[1], low, high)
        self.counts.content = f"**{inside:,}** of {self.found.total:,} from {low:.4g} to {high:.4g} {unit}".rstrip()

    def _another(self) -> None:
        self.purpose.content = _purpose(self.attribute.value)
        self._due_at, self._used_at = None, time.monotonic()
        self.range.value = (0, BINS)
        self._counted = None
        self.tick()

    def _dragged(self, event: Any) -> None:
        self._paint()
        self._used_at = time.monotonic()
        if event.client_id is not None and self.live.value:
            self._due_at = self._used_at + SETTLED_SECS
            self._settling.begin()


def _purpose(name: str) -> str:
    return f"*{ATTRIBUTES[name].purpose}*"
