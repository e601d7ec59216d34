"""The list of shortcuts."""

from __future__ import annotations

from splat.viewer.panels.help import shortcuts, shown
from splat.viewer.serving.page import Key


def test_keys_read_as_on_a_keyboard() -> None:
    told = {
        ("A", "cmd/ctrl+shift"): "Ctrl+Shift+A", ("arrowleft", None): "←", ("[", None): "[", 
        ("delete", "shift"): "Shift+Delete",
    }  # fmt: skip
    for (key, modifier), text in told.items():
        assert shown(Key("x", key, modifier)) == text


def test_every_key_has_its_row() -> None:
    assert shortcuts([]) == "No shortcuts."
    table = shortcuts([Key("Undo", "Z", "cmd/ctrl"), Key("Grow", "]", None)]).splitlines()
    assert table[2:] == ["| Ctrl+Z | Undo |", "| ] | Grow |"]
