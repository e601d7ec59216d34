"""Changing the selection: delete, duplicate, hide, lock, move by gizmo or numbers, colours; undo and redo."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np

from splat.edit.ops import Delete, Duplicate, Mark, Op, Transform
from splat.viewer.panels.recoloring import build_colors
from splat.viewer.serving.page import BEAT_SECS, Page
from splat.viewer.tools.matrices import about, euler, frozen, is_identity
from splat.viewer.tools.toolbox import TOOLS, Toolbox

GIZMOS = (("move", "1"), ("rotate", "2"), ("scale", "3"))
NOTHING = "Nothing is selected: draw around it first (R rectangle, L lasso, B brush)."
ACTIONS: tuple[tuple[str, str, str, str | None, Op], ...] = (
    ("Delete", "Delete the selection", "delete", None, Delete()),
    ("Keep only", "", "", None, Delete(outside=True)),
    ("Duplicate", "Duplicate the selection", "D", "shift", Duplicate()),
    ("Hide", "Hide the selection", "H", None, Mark("hide")),
    ("Show all", "Show everything", "H", "shift", Mark("show")),
    ("Lock", "Lock the selection", "K", None, Mark("lock")),
    ("Unlock all", "Unlock everything", "K", "shift", Mark("unlock")),
)
"""Words of the button, of the shortcut, its key and modifier, what is done."""
AXES = {"World": "world", "Its own": "own"}
FOR_ALL = (Mark("show"), Mark("unlock"))
"""These need no selection."""
BUTTON_ROWS = (
    ("Remove", 2, "Delete: key Delete. Keep only: everything else goes"),
    ("Copy", 1, "Shift+D"),
    ("Show", 2, "H, Shift+H. Hidden splats stay in the model; the tab Export can leave them out"),
    ("Lock", 2, "K, Shift+K. Locked splats cannot be selected or changed"),
)
"""Label, number of buttons, hint."""
SHOWN = 8
"""Entries of each half of the history."""


def build(page: Page) -> None:
    box: Toolbox = page.toolbox
    with box.tab:
        with page.client.gui.add_folder("Change"):
            _actions(page, box)
            _gizmos(page, box)
        with page.client.gui.add_folder("Move by numbers", expand_by_default=False):
            _numbers(page, box)
        with page.client.gui.add_folder("Colour", expand_by_default=False):
            build_colors(page, box)
        with page.client.gui.add_folder("History"):
            _history(page, box)


def _actions(page: Page, box: Toolbox) -> None:
    by_word = {word: op for word, _, _, _, op in ACTIONS}
    words = list(by_word)
    for label, count, hint in BUTTON_ROWS:
        row, words = words[:count], words[count:]
        group = page.client.gui.add_button_group(label, row, hint=hint)
        group.on_click(page.guarded(lambda event: act(page, box, by_word[event.target.value])))
    for _, label, key, modifier, op in ACTIONS:
        if key:
            page.on_key(label, key, functools.partial(act, page, box, op), modifier)


def act(page: Page, box: Toolbox, op: Op) -> None:
    """Do ``op``; say so where there was nothing to do it to."""
    before = page.desk.session.status
    reply = box.submit(op)
    if op in FOR_ALL:
        return

    def told(done: Future) -> None:
        # Only an operation that does nothing leaves the very same status; asked before, a selection on its way counts.
        if not done.cancelled() and done.exception() is None and done.result() is before and not before.selected:
            page.notify(NOTHING)

    reply.add_done_callback(page.guarded(told))


def _gizmos(page: Page, box: Toolbox) -> None:
    titles = {TOOLS[name].title: name for name, _ in GIZMOS}
    group = page.client.gui.add_button_group("Gizmo", list(titles), hint="Keys 1, 2, 3")
    group.on_click(page.guarded(lambda event: box.toggle(titles[event.target.value])))
    pivot = page.client.gui.add_button_group("Pivot", ["Middle", "Click a point"])

    def choose(event: Any) -> None:
        if box.name not in titles.values():
            page.notify("Choose a gizmo first.")
            return
        box.set(pick_pivot=event.target.value != "Middle")
        if event.target.value == "Middle":
            box.clicked_pivot = None
            box.set()

    pivot.on_click(page.guarded(choose))
    axes = page.client.gui.add_button_group("Axes", list(AXES), hint="Shift+C; its own: what it is long along")
    axes.on_click(page.guarded(lambda event: box.set(axes=AXES[event.target.value])))
    page.on_key("Gizmo: axes of the world, or its own", "C",
                lambda: box.set(axes="own" if box.options.axes == "world" else "world"), "shift")  # fmt: skip
    for name, key in GIZMOS:
        page.on_key(f"Gizmo: {TOOLS[name].title}", key, _toggling(box, name))


def _toggling(box: Toolbox, name: str) -> Callable[[], Any]:
    return lambda: box.toggle(name)


def _numbers(page: Page, box: Toolbox) -> None:
    gui = page.client.gui
    move = gui.add_vector3("Move", initial_value=(0.0, 0.0, 0.0), step=0.01, hint="World units")
    turn = gui.add_vector3("Turn °", initial_value=(0.0, 0.0, 0.0), step=1.0,
                           hint="About the world's x, then y, then z axis")  # fmt: skip
    scale = gui.add_number("Scale", initial_value=1.0, min=0.001, step=0.01)
    apply = gui.add_button("Apply to the selection")

    def run(_: Any) -> None:
        center = box.center()
        if center is None:
            page.notify("Nothing is selected.")
            return
        pivot = box.pivot(center)
        matrix = about(pivot, turn=euler(turn.value), scale=float(scale.value), move=move.value)
        if not is_identity(matrix):
            box.submit(Transform(frozen(matrix)))
            move.value, turn.value, scale.value = np.zeros(3), np.zeros(3), 1.0

    apply.on_click(page.guarded(run))


def _history(page: Page, box: Toolbox) -> None:
    gui = page.client.gui
    buttons = gui.add_button_group("Step", ["Undo", "Redo"], hint="Ctrl+Z, Ctrl+Shift+Z or Ctrl+Y")
    text = gui.add_markdown(history_text(page))

    def undo() -> None:
        if page.desk.session.status.undo:
            box.told(page.desk.undo())

    def redo() -> None:
        if page.desk.session.status.redo:
            box.told(page.desk.redo())

    buttons.on_click(page.guarded(lambda event: undo() if event.target.value == "Undo" else redo()))
    page.on_key("Undo", "Z", undo, "cmd/ctrl")
    page.on_key("Redo", "Z", redo, "cmd/ctrl+shift")
    page.on_key("Redo, too", "Y", redo, "cmd/ctrl")

    def show() -> None:
        now = history_text(page)
        if text.content != now:
            text.content = now

    page.every(BEAT_SECS, show)


def history_text(page: Page) -> str:
    """What was done, newest first, and above it what could be done again."""
    status = page.desk.session.status
    redo = [f"- *{entry}*" for entry in status.redo[-SHOWN:]]
    undo = [f"- {entry}" for entry in reversed(status.undo[-SHOWN:])]
    hidden = len(status.undo) - len(undo)
    more = [f"- … {hidden} before"] if hidden else []
    return "\n".join((*redo, *undo, *more)) or "*Nothing was changed yet.*"
