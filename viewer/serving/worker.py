"""The thread that makes the pictures of one page."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from splat.geometry.camera import Camera
from splat.live.snapshot import Snapshot
from splat.viewer.picture.draw import Drawn, draw
from splat.viewer.picture.look import Look
from splat.viewer.serving.loop import Loop
from splat.viewer.serving.pace import Pace, Plan

if TYPE_CHECKING:
    from splat.viewer.serving.page import Page

ACKNOWLEDGED_IN_SECS = 1.0
"""After this long without an answer the next picture goes out all the same: a page in the background is slow."""
ASK_GAP_SECS, ASK_GAP_MOVING_SECS = 0.25, 1.0
"""At least this long between two requests for a newer model."""
IDLE_BEAT_SECS = 0.5
DEPTH_PX_MOVING, DEPTH_PX_STILL = 128, 512
"""Longest side of the depth that is sent; it is packed as PNG, which costs far more than the picture's JPEG."""
COPY_BYTES_PER_SEC = {"cpu": 3e9, "cuda": 500e9}
"""At which a training copies its model for us; on the low side of what machines do."""
NO_DEPTH_PAGE = 167.0
"""The page's farthest depth, where nothing is."""


@dataclass(frozen=True, eq=False)
class DrawnFrame:
    """What a page shows."""

    camera: Camera
    """At the size that was drawn."""
    look: Look
    version: int
    """Of the snapshot."""
    step: int
    width: int
    height: int
    scale: float
    """Share of the page's own resolution."""
    why: str
    """``moving``, ``still`` or ``refresh``."""
    drawn: Drawn
    secs: float
    """Drawing and packing."""
    number: int
    """Counts the pictures of this page."""


class Worker:
    """Takes the newest view when it is ready for one, so that nothing queues up."""

    def __init__(self, page: Page) -> None:
        self._page, self._desk = page, page.desk
        self.loop = Loop("splat-viewer-draw", self._turn, lambda error: page.failed(error, "drawing"))
        self._pace = Pace(self._desk.share)
        self._held = False
        self._asked_at = -float("inf")
        self._was_training = False
        self._count = 0
        self._plan: Plan | None = None
        self.last: DrawnFrame | None = None
        self._shown_version: int | None = None
        self._unsubscribe = self._desk.on_snapshot(self._arrived)

    def event(self) -> None:
        """The view moved, or how it is drawn has changed."""
        self.loop.tell(self._pace.event)

    def hold(self, on: bool) -> None:
        """Rest until told to go on; going on begins with a picture."""
        self._held = on
        self.event()

    def close(self) -> None:
        self._unsubscribe()
        self.loop.close()

    def _arrived(self, snapshot: Snapshot) -> None:
        """A newer model, or the same again for another page."""
        if snapshot.version != self._shown_version:
            self.loop.tell(self._pace.event if self._desk.snapshot_is_answer else self._pace.arrived)

    # the thread ------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        if self._count == 0:
            torch.set_num_threads(1)  # as the training has it: torch's own threads would take the cores from it
        plan = self._next()
        if plan is not None:
            self._show(plan)  # holds a snapshot only while it draws: there may be many pages, and the model large
            self._acknowledged()

    def _next(self) -> Plan | None:
        """What is due; None after a while of waiting."""
        training = self._desk.is_training
        if not self._held:
            self._ask(training)
        with self.loop.changed:
            if self.loop.is_closed():
                return None
            if self._held or self._desk.snapshot is None:
                self.loop.changed.wait(IDLE_BEAT_SECS)
                return None
            plan, wait = self._pace.due(training=training)
            if plan is None:
                self.loop.changed.wait(min(IDLE_BEAT_SECS if wait is None else wait, IDLE_BEAT_SECS, self._ask_in()))
                return None
            self._pace.begin(plan)
            self._plan = plan
            return plan

    def _ask(self, training: bool) -> None:
        """Progress is asked for as often as the share of time allows; a model at rest only when it came to rest."""
        came_to_rest, self._was_training = self._was_training and not training, training
        if self._desk.snapshot is None or came_to_rest or (training and self._ask_in() <= 0):
            self._asked_at = time.monotonic()
            self._desk.refresh()

    def _ask_in(self) -> float:
        if not self._desk.is_training:
            return IDLE_BEAT_SECS
        gap = ASK_GAP_MOVING_SECS if self._pace.is_moving else ASK_GAP_SECS
        return max(self._asked_at + gap - time.monotonic(), self._desk.share.wait_secs(idle=True))

    def _show(self, plan: Plan) -> None:
        page, snapshot, start = self._page, self._desk.snapshot, time.perf_counter()
        if snapshot is None:  # this page was the last, and has gone since
            return
        look, full, self._shown_version = page.look, page.camera_to_draw(), snapshot.version
        camera = full.resized(max(round(full.width * plan.scale), 1), max(round(full.height * plan.scale), 1))
        drawn = draw(
            snapshot, camera, look, rasterizer=self._desk.rasterizer, want_depth=page.wants_depth,
            preview=page.preview_rows, desk=self._desk,
        )  # fmt: skip
        page.client.scene.set_background_image(
            drawn.rgb, format="jpeg", jpeg_quality=plan.quality, depth=self._page_depth(drawn, plan)
        )
        secs = time.perf_counter() - start
        with self.loop.changed:
            copied = copy_secs(snapshot) if plan.why == "refresh" else 0.0
            self._pace.drew(plan, secs, training=self._desk.is_training, copied_secs=copied)
        self._count += 1
        self.last = DrawnFrame(
            camera, look, snapshot.version, snapshot.step, camera.width, camera.height, plan.scale, plan.why, drawn,
            secs, self._count,
        )  # fmt: skip

    def _page_depth(self, drawn: Drawn, plan: Plan) -> np.ndarray | None:  # [h,w] float32
        if drawn.depth is None:
            return None
        limit = DEPTH_PX_MOVING if plan.why == "moving" else DEPTH_PX_STILL
        stride = -(-max(drawn.depth.shape) // limit)
        depth = drawn.depth[stride // 2 :: stride, stride // 2 :: stride] * self._desk.space.scale
        return np.where(depth > 0, depth, NO_DEPTH_PAGE).astype(np.float32)

    def _acknowledged(self) -> None:
        """Wait until the page has taken the picture: one at a time is on its way."""
        try:
            self._page.client.local_storage.get_item("splat-frame", timeout=ACKNOWLEDGED_IN_SECS)
        except (TimeoutError, RuntimeError):  # slow, or gone (then we are told), or its storage is blocked
            return


def copy_secs(snapshot: Snapshot) -> float:
    """What the copy of its rows has about cost the training."""
    size = sum(table.numel() * table.element_size() for table in snapshot.model.rows.values())
    return size / COPY_BYTES_PER_SEC.get(snapshot.model.device.type, 3e9)
