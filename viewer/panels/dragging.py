"""Drag-editing: placing handles and anchors, and how the selection follows."""

from __future__ import annotations

from splat.edit.ops import Drag
from splat.viewer.serving.page import Page
from splat.viewer.tools.handles import DragTool
from splat.viewer.tools.toolbox import Toolbox

MODES = {
    "As rigid as possible": "arap", "Rigid": "rigid", "Smooth": "smooth", "Lattice": "lattice",
}  # fmt: skip
PLACES = {"Handles": "handle", "Anchors": "anchor"}
MOST_NODES = 3000


def build(page: Page) -> None:
    box: Toolbox = page.toolbox
    with box.tab, page.client.gui.add_folder("Drag"):
        _start(page, box)
        _how(page, box)


def _start(page: Page, box: Toolbox) -> None:
    gui = page.client.gui
    start = gui.add_button("Drag (G)", hint="Click the selection to place handles, then drag them")
    place = gui.add_button_group("A click places", list(PLACES), hint="Shift-click places the other kind")
    clear = gui.add_button_group("Placed", ["Clear all", "Take one back"])
    start.on_click(page.guarded(lambda _: box.toggle(DragTool.name)))
    place.on_click(page.guarded(lambda event: box.set(place=PLACES[event.target.value])))
    clear.on_click(page.guarded(lambda event: box.clear() if event.target.value == "Clear all" else box.back()))
    page.on_key("Drag handles", "G", lambda: box.toggle(DragTool.name))

    def follow() -> None:
        active = box.tool is not None and box.tool.name == DragTool.name
        start.label = "End dragging (G)" if active else "Drag (G)"

    box.listen(follow)


def _how(page: Page, box: Toolbox) -> None:
    gui, options, still = page.client.gui, box.options, Drag(())
    mode = gui.add_dropdown("Mode", tuple(MODES), hint="How the selection follows the handles")
    radius = gui.add_slider("Handle size", min=0.0, max=1.0, step=0.01, initial_value=options.handle_share,
                            hint="Of new handles, against the selection; 0: a point, which may turn")  # fmt: skip
    turn = gui.add_checkbox("Turn last", initial_value=False, hint="Shows a gizmo at the handle that was placed last")
    band = gui.add_slider("Soft band", min=0.0, max=10.0, step=0.5, initial_value=still.band,
                          hint="Around the selection, in node spacings")  # fmt: skip
    nodes = gui.add_slider("Nodes", min=50, max=MOST_NODES, step=50, initial_value=still.nodes,
                           hint="Most nodes of the graph")  # fmt: skip
    alike = gui.add_slider("Turn alike", min=0.0, max=5.0, step=0.1, initial_value=still.smooth_rotations,
                           hint="Neighbours turn alike")  # fmt: skip
    live = gui.add_checkbox("Live", initial_value=options.live, hint="Show the selection while it is dragged")

    mode.on_update(page.guarded(lambda _: box.set(mode=MODES[mode.value])))
    radius.on_update(page.guarded(lambda _: box.set(handle_share=float(radius.value))))
    turn.on_update(page.guarded(lambda _: box.set(turn_handles=bool(turn.value))))
    band.on_update(page.guarded(lambda _: box.set(band=float(band.value))))
    nodes.on_update(page.guarded(lambda _: box.set(nodes=int(nodes.value))))
    alike.on_update(page.guarded(lambda _: box.set(smooth_rotations=float(alike.value))))
    live.on_update(page.guarded(lambda _: box.set(live=bool(live.value))))
