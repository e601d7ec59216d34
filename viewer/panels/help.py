"""The help panel: what mouse and keys of the camera do (those are viser's), and every shortcut there is."""

from __future__ import annotations

from splat.viewer.serving.page import Key, Page

MOUSE = """
left drag turns around the point in the middle, right drag shifts, the wheel goes nearer and farther. A double click
puts a point into the middle. W A S D Q E walk, the arrows turn. A tool that is chosen takes the left button; Escape
gives it back. While selecting, Shift adds, Ctrl takes away, both keep what is in both.
"""
_SIGNS = {
    "arrowleft": "←", "arrowright": "→", "arrowup": "↑", "arrowdown": "↓", "cmd/ctrl": "Ctrl", "shift": "Shift",
    "alt": "Alt", "delete": "Delete", "escape": "Esc", "space": "Space", "enter": "Enter", "tab": "Tab",
    "backspace": "Backspace", "insert": "Insert", "home": "Home", "end": "End",
    "pageup": "Page up", "pagedown": "Page down",
}  # fmt: skip


def build(page: Page) -> None:
    """Comes last, when all keys are known."""
    with page.tabs.add_tab("Help"):
        page.client.gui.add_markdown(f"**Camera.** {' '.join(MOUSE.split())}")
        page.client.gui.add_markdown(shortcuts(page.keys))
        page.client.gui.add_markdown("Ctrl+K opens the list of commands. Ctrl is Cmd on a Mac.")


def shortcuts(keys: list[Key]) -> str:
    """A table in Markdown."""
    if not keys:
        return "No shortcuts."
    rows = [f"| {shown(key)} | {key.label} |" for key in keys]
    return "\n".join(["| key | what it does |", "|---|---|", *rows])


def shown(key: Key) -> str:
    """As it stands on a keyboard."""
    parts = [*(key.modifier or "").split("+"), key.key]
    return "+".join(_SIGNS.get(part.lower(), part.upper() if len(part) == 1 else part) for part in parts if part)
