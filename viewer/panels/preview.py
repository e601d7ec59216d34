"""The browser's own drawing of the model, as a preview: smooth to turn where the server is slow or busy training."""

from __future__ import annotations

import time
from enum import Enum, auto
from typing import Any

import numpy as np

from splat.errors import UserError
from splat.viewer.picture.light_copy import NODE_UNITS, light_copy
from splat.viewer.serving.page import BEAT_SECS, Page
from splat.viewer.serving.spurt import Spurt

NODE = "/splat/preview"
AMOUNTS = {"20,000": 20_000, "50,000": 50_000, "100,000": 100_000}
RENEW_SECS = 4.0
OFF, MOVING, ALWAYS = "Off", "While moving", "Always"
STILL_SECS = 0.35
"""Without a movement: then the streamed picture comes back."""
ARRIVES_SECS = {MOVING: 0.4, ALWAYS: 2.0}
"""From a copy that was sent to one that is drawn and sorted. At rest the streamed picture behind it does no harm."""
WHAT_IT_IS = """A light copy drawn by the browser itself: fewer splats, one colour from all sides, fine detail missing.
Turning it costs the training nothing. While moving: once the view rests, the streamed picture, the true one, comes
back."""
LABELS = {
    MOVING: ("Preview while moving", "Then the browser draws: a light copy, not the true picture."),
    ALWAYS: ("Preview", "Drawn by the browser: a light copy, not the true picture."),
}


def build(page: Page) -> PreviewPanel:
    """A folder of the tab "View"."""
    with page.client.gui.add_folder("Preview"):
        return PreviewPanel(page)


class Turn(Enum):
    """Whose turn it is to be seen."""

    STREAMED = auto()
    BOTH = auto()
    """The copy is on its way into the browser; the streamed picture stands behind it until then."""
    COPY = auto()
    BACK = auto()
    """Streaming goes on; the copy stays until the first sharp picture is there."""


class PreviewPanel:
    """Where the copy is seen no pictures are streamed: always, or from a movement to the sharp picture after it. All
    but the listeners runs in the page's own thread."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._version: int | None = None
        self._node: Any = None
        self._label: Any = None
        self._moved_at, self._pose = -STILL_SECS, None
        self._now = OFF
        """What is in force; the dropdown's word follows within a beat."""
        self._turn, self._since = Turn.STREAMED, 0.0
        self._seen = -1
        """Number of the last streamed picture that is known to stand behind the copy."""
        gui = page.client.gui
        self._when = gui.add_dropdown("In the browser", (OFF, MOVING, ALWAYS), initial_value=OFF,
                                      hint=" ".join(WHAT_IT_IS.split()))  # fmt: skip
        self._most = gui.add_dropdown("Splats at most", tuple(AMOUNTS), initial_value="20,000")
        self._renew = gui.add_checkbox("Follow the training", initial_value=True,
                                       hint="Send a new copy every few seconds")  # fmt: skip
        self._told = gui.add_markdown("", visible=False)
        self._most.on_update(page.guarded(lambda _: self._another_size()))
        page.every(RENEW_SECS, self._follow)
        page.every(BEAT_SECS, self.tick)
        self._quick = Spurt(page, self._step)

        @page.client.camera.on_update
        async def _(camera: Any) -> None:
            pose = (*camera.position, *camera.wxyz, float(camera.fov))
            if pose != self._pose:  # a window that changes its size does not move
                self._pose, self._moved_at = pose, time.monotonic()
                if self._now != OFF:
                    self._quick.begin()

    def tick(self) -> None:
        """Do what was chosen; begin and end the copy's turn."""
        if self._step():
            self._quick.begin()

    def _step(self) -> bool:
        """Whether the next step should come soon."""
        if self._when.value != self._now:
            self._switch(self._when.value)
        if self._now == OFF:
            return False
        if self._version is None:
            self._send()
        now = time.monotonic()
        if self._now == ALWAYS or self._moves(now):
            self._forward(now)
        else:
            self._back()
        resting = Turn.COPY if self._now == ALWAYS else Turn.STREAMED
        return self._turn is not resting or now - self._since < STILL_SECS

    def _switch(self, when: str) -> None:
        self._remove()
        self._now = when
        if when == OFF:
            return
        if self._page.snapshot is None:
            self._now = self._when.value = OFF
            raise UserError("there is no model yet")
        self._label = self._page.client.add_notification(*LABELS[when], with_close_button=False)

    def _moves(self, now: float) -> bool:
        """Whether a copy would do: it knows colours only."""
        look = self._page.look
        return now - self._moved_at < STILL_SECS and look.mode == "color" and look.compare is None

    def _forward(self, now: float) -> None:
        """A step towards the copy alone."""
        if self._turn is Turn.STREAMED:
            self._send()
            self._node.visible = True
            self._turn, self._since = Turn.BOTH, now
        elif self._turn is Turn.BACK or (self._turn is Turn.BOTH and self._has_arrived(now)):
            self._page.stream(False)
            self._wipe()
            self._turn, self._since = Turn.COPY, now
        elif self._turn is Turn.COPY and self._last_number() != self._seen:
            self._wipe()  # it was on its way when the copy's turn began

    def _has_arrived(self, now: float) -> bool:
        """The copy may stand alone; at rest a sharp picture comes first, which is the last one for long."""
        last = self._page.last
        sharp = last is not None and last.why != "moving"
        return now - self._since > ARRIVES_SECS[self._now] and (sharp or self._now == MOVING)

    def _back(self) -> None:
        """A step towards the streamed picture alone."""
        last = self._page.last
        sharp = last is not None and last.number > self._seen and last.why != "moving"
        if self._turn is Turn.BOTH or (self._turn is Turn.BACK and sharp):
            self._node.visible = False
            self._turn = Turn.STREAMED
        elif self._turn is Turn.COPY:
            self._turn, self._seen = Turn.BACK, self._last_number()
            self._page.stream(True)

    def _wipe(self) -> None:
        """What was streamed last would shine through, and its depth hide what lies behind it."""
        self._seen = self._last_number()
        color = np.array(self._page.look.background) * 255
        self._page.client.scene.set_background_image(np.full((2, 2, 3), color, np.uint8), format="png")

    def _last_number(self) -> int:
        last = self._page.last
        return -1 if last is None else last.number

    def _remove(self) -> None:
        for handle in (self._node, self._label):
            if handle is not None:
                handle.remove()
        self._node = self._label = self._version = None
        self._turn = Turn.STREAMED
        self._told.content, self._told.visible = "", False
        self._page.stream(True)

    def _another_size(self) -> None:
        self._version = None  # the next beat sends it

    def _follow(self) -> None:
        if self._turn is Turn.COPY and self._renew.value:
            self._page.desk.refresh()
            self._send()

    def _send(self) -> None:
        """A copy of the newest model, unless it was sent already."""
        snapshot = self._page.snapshot
        if snapshot is None or (snapshot.version == self._version and self._node is not None):
            return
        camera, space = self._page.camera(), self._page.desk.space
        copy = light_copy(snapshot, most=AMOUNTS[self._most.value], scale=space.scale, eye=camera.center_world,
                          focal_px=camera.focal_px[1])  # fmt: skip
        parts = {"centers": copy.centers, "covariances": copy.covariances, "rgbs": copy.rgbs,
                 "opacities": copy.opacities}  # fmt: skip
        if self._node is None:
            self._node = self._page.overlay.add_gaussian_splats(NODE, **parts, scale=1 / NODE_UNITS, visible=False)
        else:
            self._node.set_gaussians(**parts)
        self._version = snapshot.version
        self._told.content = f"**Preview**: {len(copy.centers):,} of {copy.of:,} splats of step {snapshot.step:,}"
        self._told.visible = True
