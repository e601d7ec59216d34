"""The brush's ring about the pointer, drawn by the browser itself: of a mouse that only hovers the server hears
nothing."""

from __future__ import annotations

from typing import Any

from viser import _messages

_INSTALL = """
if (!window.splatBrush) {
  const ring = document.createElement("div");
  ring.id = "splat-brush";
  ring.style.cssText = "position:fixed;display:none;pointer-events:none;border-radius:50%;box-sizing:border-box;" +
    "border:2px solid;box-shadow:0 0 0 1px #141414,inset 0 0 0 1px #141414;transform:translate(-50%,-50%);z-index:1";
  document.body.appendChild(ring);
  const nowhere = {x: 0, y: 0, over: false};
  let share = 0, last = null;
  const colors = ["#ffd60a", "#5ad27a", "#ff5a5a", "#ffffff"];  // set, add, take away, keep what is in both
  const draw = () => {
    const canvas = document.querySelector("canvas[data-engine]");
    const frame = canvas && canvas.getBoundingClientRect();
    if (!share || !frame || !last) { ring.style.display = "none"; return; }
    ring.style.display = "block";
    ring.style.left = (last.over ? last.x : frame.left + frame.width / 2) + "px";
    ring.style.top = (last.over ? last.y : frame.top + frame.height / 2) + "px";
    ring.style.width = ring.style.height = 2 * share * frame.width + "px";
    ring.style.borderColor = colors[(last.shift ? 1 : 0) + (last.ctrl ? 2 : 0)];
  };
  const hear = (event) => {
    const at = {x: event.clientX, y: event.clientY, over: event.target instanceof HTMLCanvasElement};
    const place = "clientX" in event ? at : last || nowhere;
    last = {...place, shift: event.shiftKey, ctrl: event.ctrlKey || event.metaKey};
    draw();
  };
  for (const name of ["pointermove", "pointerdown", "keydown", "keyup"]) window.addEventListener(name, hear, true);
  window.splatBrush = (size) => { share = size; last = last || nowhere; draw(); };
}
"""


class BrushCursor:
    """Follows the pointer over the picture; beside it, it stands in the middle, so that a slider shows its size. Its
    colour tells what a held Shift or Ctrl will do."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self._installed = False
        self._share = 0.0

    def show(self, radius_px: float) -> None:
        """``radius_px`` as in the page's pictures."""
        self._set(radius_px / self.page.camera().width)

    def hide(self) -> None:
        self._set(0.0)

    def _set(self, share: float) -> None:
        """Radius as a share of the picture's width: that is another number of the window's pixels."""
        if share == self._share:
            return
        self._share = share
        source = f"{'' if self._installed else _INSTALL}window.splatBrush({share:.6f});"
        self._installed = True
        self.page.client.gui._websock_interface.queue_message(_messages.RunJavascriptMessage(source=source))
