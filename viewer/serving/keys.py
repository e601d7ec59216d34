"""Keys with a modifier are commands: viser's camera, which flies by W A S D Q E, would take them for its own."""

from __future__ import annotations

import viser
from viser import _messages

_QUIET = """
document.documentElement.addEventListener("keydown", (event) => {
  const held = event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
  if (held && /^Key[WASDQE]$/.test(event.code)) event.stopPropagation();
});
"""
"""The page hears of commands at this element already, of the camera's keys only above it."""


def leave_camera_alone(client: viser.ClientHandle) -> None:
    """From now on Ctrl+A selects all, and nothing else (a tap after a rest would throw the view by a room's length)."""
    client.gui._websock_interface.queue_message(_messages.RunJavascriptMessage(source=_QUIET))
