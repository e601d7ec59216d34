"""Selecting: tools, how they combine, and the shortcuts of other editors."""

from __future__ import annotations

from typing import Any

import numpy as np

from splat.edit.ops import Invert, Select
from splat.edit.shapes import Everything, Nothing
from splat.viewer.serving.page import Page
from splat.viewer.tools.combine import COMBINES, MODIFIERS
from splat.viewer.tools.options import BRUSH_STEP, LEAST_BRUSH_PX, MOST_BRUSH_PX
from splat.viewer.tools.toolbox import TOOLS, Toolbox

ROWS = (
    ("Draw", ("rect", "lasso", "polygon"), "Keys R, L, P"),
    ("", ("brush", "click"), "Keys B, V"),
    ("Colour", ("flood", "eyedropper"), "Keys O, Ctrl+E"),
    ("Solid", ("sphere", "box"), "Placed by a click; Enter selects what is inside"),
)
"""Label, tools and hint of each row of buttons."""
KEYS = (
    ("rect", "R", None), ("lasso", "L", None), ("polygon", "P", None), ("brush", "B", None), ("click", "V", None),
    ("flood", "O", None), ("eyedropper", "E", "cmd/ctrl"),
)  # fmt: skip
REACHES = {"All behind": "centers", "Visible only": "visible"}


def build(page: Page) -> None:
    """The tab "Edit" with its first folder; editing and dragging add theirs."""
    box: Toolbox = page.toolbox
    with page.tabs.add_tab("Edit") as box.tab, page.client.gui.add_folder("Select"):
        _tool_buttons(page, box)
        _combining(page, box)
        _sizes(page, box)
        _whole(page, box)
    _shortcuts(page, box)


def _tool_buttons(page: Page, box: Toolbox) -> None:
    names = {TOOLS[name].title: name for _, row, _ in ROWS for name in row}
    for label, row, hint in ROWS:
        group = page.client.gui.add_button_group(label, [TOOLS[name].title for name in row], hint=hint)
        group.on_click(page.guarded(lambda event: box.toggle(names[event.target.value])))


def _combining(page: Page, box: Toolbox) -> None:
    gui = page.client.gui
    combine = gui.add_dropdown(
        "Combine", tuple(COMBINES), hint="Whatever is set: Shift adds, Ctrl takes away, both keep what is in both"
    )
    combine.on_update(page.guarded(lambda _: box.set(combine=COMBINES[combine.value])))
    reach = gui.add_dropdown(
        "Reach", tuple(REACHES),
        hint="All behind: every centre in the shape. Visible only: what is seen in it.",
    )  # fmt: skip
    reach.on_update(page.guarded(lambda _: box.set(reach=REACHES[reach.value])))


def _sizes(page: Page, box: Toolbox) -> None:
    gui, options = page.client.gui, box.options
    brush = gui.add_slider("Brush px", min=LEAST_BRUSH_PX, max=MOST_BRUSH_PX, step=1.0, initial_value=options.brush_px,
                           hint="Radius; [ and ]")  # fmt: skip
    tolerance = gui.add_slider("Tolerance", min=0.0, max=1.0, step=0.01, initial_value=options.tolerance,
                               hint="Of colour, for flood and colour")  # fmt: skip
    radius = gui.add_number("Radius", initial_value=0.0, min=0.0, visible=False, hint="Of the sphere, world units")
    size = gui.add_vector3("Sides", initial_value=(0.0, 0.0, 0.0), min=(0.0, 0.0, 0.0), visible=False,
                           hint="Of the box, world units")  # fmt: skip
    inside = gui.add_button("Select inside (Enter)", visible=False)
    brush.on_update(page.guarded(lambda _: box.set(brush_px=float(brush.value))))
    tolerance.on_update(page.guarded(lambda _: box.set(tolerance=float(tolerance.value))))
    # Not by ourselves: what is only shown may be older than what was chosen meanwhile.
    radius.on_update(page.guarded(lambda event: event.client and box.set(radius=float(radius.value))))
    size.on_update(page.guarded(lambda event: event.client and box.set(size=tuple(map(float, size.value)))))
    inside.on_click(page.guarded(lambda _: box.apply()))

    def follow() -> None:
        name = "" if box.tool is None else box.tool.name
        for handle, owners in ((radius, ("sphere",)), (size, ("box",)), (inside, ("sphere", "box"))):
            handle.visible = name in owners
        if name == "sphere":
            show_number(radius, options.radius, options.radius)
        if name == "box":
            show_number(size, options.size, max(options.size))

    def resize(factor: float) -> None:
        brush.value = float(np.clip(options.brush_px * factor, LEAST_BRUSH_PX, MOST_BRUSH_PX))
        box.set(brush_px=float(brush.value))

    box.listen(follow)
    page.on_key("Smaller brush", "[", lambda: resize(1 / BRUSH_STEP))
    page.on_key("Larger brush", "]", lambda: resize(BRUSH_STEP))


def show_number(handle: Any, value: Any, size: float) -> None:
    """Lengths about as large as ``size``: with digits and steps that fit it, whatever a scene is measured in."""
    step = 10.0 ** np.floor(np.log10(size / 20)) if size > 0 else 0.01
    handle.step, handle.precision = float(step), max(0, 1 - round(float(np.log10(step))))
    handle.value = value


def _whole(page: Page, box: Toolbox) -> None:
    actions = {
        "All": Select(Everything()), "None": Select(Nothing()), "Invert": Invert(),
    }  # fmt: skip
    group = page.client.gui.add_button_group("Whole", list(actions))
    group.on_click(page.guarded(lambda event: box.submit(actions[event.target.value])))
    page.on_key("Select all", "A", lambda: box.submit(actions["All"]), "cmd/ctrl")
    page.on_key("Select none", "A", lambda: box.submit(actions["None"]), "cmd/ctrl+shift")
    page.on_key("Invert selection", "I", lambda: box.submit(actions["Invert"]), "cmd/ctrl")


def _shortcuts(page: Page, box: Toolbox) -> None:
    for name, key, modifier in KEYS:
        page.on_key(f"Tool: {TOOLS[name].title}", key, _toggling(box, name), modifier)
    page.on_key("End the tool", "escape", lambda: box.use(""))
    for modifier, combine in MODIFIERS.items():
        label = "Close or apply" if modifier is None else f"Close or apply: {combine}"
        page.on_key(label, "enter", _applying(box, modifier), modifier)
    page.on_key("One step back in the tool", "backspace", box.back)


def _toggling(box: Toolbox, name: str) -> Any:
    return lambda: box.toggle(name)


def _applying(box: Toolbox, modifier: str | None) -> Any:
    return lambda: box.apply(modifier)
