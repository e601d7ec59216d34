"""What stands above the tabs, whichever is open: how many splats are selected, what the mouse does, what is shown."""

from __future__ import annotations

from splat.viewer.picture.look import Look
from splat.viewer.picture.modes import MODES
from splat.viewer.serving.page import BEAT_SECS, Page
from splat.viewer.tools.toolbox import Toolbox

FIRST_STEPS = (
    "Left drag turns, right drag shifts, the wheel goes nearer, a double click turns about that point. "
    "Keys: **R** rectangle, **B** brush, **G** drag, **M** mode. *Help* has them all."
)
"""Where no tool is active: the first words that a stranger reads."""


def build(page: Page) -> None:
    """Comes first: the panels of tools need the toolbox."""
    box = page.toolbox = Toolbox(page)
    gui = page.client.gui
    counts = gui.add_markdown(counts_text(page), order=-1.0)  # above the tabs: always in sight
    hint = gui.add_markdown(hint_text(box), order=-0.9)
    shown = gui.add_markdown("", order=-0.8, visible=False)

    def follow() -> None:
        for handle, text in ((counts, counts_text(page)), (shown, mode_text(page.look))):
            if handle.content != text:
                handle.content, handle.visible = text, bool(text)

    def show_tool() -> None:
        hint.content = hint_text(box)

    box.listen(show_tool)
    page.every(BEAT_SECS, follow)


def counts_text(page: Page) -> str:
    """Hidden and locked splats only where there are some."""
    status = page.desk.session.status
    snapshot = page.snapshot
    splats = [] if snapshot is None else [(snapshot.model.count, "splats")]
    marks = [(number, word) for number, word in ((status.hidden, "hidden"), (status.locked, "locked")) if number]
    return " · ".join(f"**{count:,}** {word}" for count, word in (*splats, (status.selected, "selected"), *marks))


def hint_text(box: Toolbox) -> str:
    """What the mouse does now."""
    said = box.says()
    return FIRST_STEPS if said is None else f"**{said[0]}**: {said[1]} *Escape ends.*"


def mode_text(look: Look) -> str:
    """What the picture shows, where that is not simply the splats."""
    if look.compare is not None:
        return f"Right of the line: **{look.compare_with}** of {look.compare}"
    return "" if look.mode == "color" else f"Shown: **{look.mode}**, {MODES[look.mode].purpose}"
