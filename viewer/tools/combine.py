"""What a held modifier makes of a selection."""

from __future__ import annotations

from splat.edit.ops import Combine

MODIFIERS: dict[str | None, Combine] = {
    None: "set", "shift": "add", "cmd/ctrl": "subtract", "cmd/ctrl+shift": "intersect",
}  # fmt: skip
"""As the page tells them; the habit of other editors."""
COMBINES: dict[str, Combine] = {"Set": "set", "Add": "add", "Subtract": "subtract", "Intersect": "intersect"}
"""Words of the panel, which hold where no modifier is held."""


def combined(modifier: str | None, chosen: Combine) -> Combine:
    """A held modifier wins over the panel's choice."""
    return chosen if modifier is None else MODIFIERS[modifier]
