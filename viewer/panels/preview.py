"""The browser's own drawing of the model, as a preview: smooth to turn where the server is slow or busy training."""

from __future__ import annotations

import threading

from splat.errors import UserError
from splat.viewer.picture.light_copy import NODE_UNITS, light_copy
from splat.viewer.serving.page import Page

NODE = "/splat/preview"
AMOUNTS = {"20,000": 20_000, "50,000": 50_000, "100,000": 100_000}
RENEW_SECS = 4.0
WHAT_IT_IS = """The browser draws a light copy by itself: fewer splats, one colour from all sides, fine detail missing.
Turning it costs the training nothing. The streamed picture is the true one."""


def build(page: Page) -> PreviewPanel:
    with page.tabs.add_tab("Preview"):
        return PreviewPanel(page)


class PreviewPanel:
    """While it is on, no pictures are streamed."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._lock = threading.Lock()
        self._version: int | None = None
        self._node = None
        self._label = None
        gui = page.client.gui
        gui.add_markdown(" ".join(WHAT_IT_IS.split()))
        self._on = gui.add_checkbox("Preview in the browser", initial_value=False)
        self._most = gui.add_dropdown("Splats at most", tuple(AMOUNTS), initial_value="20,000")
        self._renew = gui.add_checkbox("Follow the training", initial_value=True,
                                       hint="Send a new copy every few seconds")  # fmt: skip
        self._told = gui.add_markdown("")
        self._on.on_update(page.guarded(lambda _: self.switch(bool(self._on.value))))
        self._most.on_update(page.guarded(lambda _: self._send(again=True)))
        page.every(RENEW_SECS, self._follow)

    def switch(self, on: bool) -> None:
        """Show the copy instead of the streamed picture, or the other way round."""
        if on:
            self._send(again=True)
            self._page.stream(False)
            self._label = self._page.client.add_notification(
                "Preview", "drawn by the browser: a light copy, not the true picture", with_close_button=False
            )
            return
        with self._lock:
            if self._node is not None:
                self._node.remove()
            self._node = self._version = None
        if self._label is not None:
            self._label.remove()
            self._label = None
        self._told.content = ""
        self._page.stream(True)

    def _follow(self) -> None:
        if self._on.value and self._renew.value:
            self._page.desk.refresh()
            self._send(again=False)

    def _send(self, *, again: bool) -> None:
        """A copy of the newest model; ``again``: even of one that was sent."""
        snapshot = self._page.snapshot
        if not self._on.value:
            return
        if snapshot is None:
            raise UserError("there is no model yet")
        with self._lock:
            if snapshot.version == self._version and not again:
                return
            camera, space = self._page.camera(), self._page.desk.space
            copy = light_copy(snapshot, most=AMOUNTS[self._most.value], scale=space.scale, eye=camera.center_world,
                              focal_px=camera.focal_px[1])  # fmt: skip
            parts = {"centers": copy.centers, "covariances": copy.covariances, "rgbs": copy.rgbs,
                     "opacities": copy.opacities}  # fmt: skip
            if self._node is None:
                self._node = self._page.overlay.add_gaussian_splats(NODE, **parts, scale=1 / NODE_UNITS)
            else:
                self._node.set_gaussians(**parts)
            self._version = snapshot.version
        self._told.content = f"**Preview**: {len(copy.centers):,} of {copy.of:,} splats of step {snapshot.step:,}"
