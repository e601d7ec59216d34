"""Colours and opacity of the selection: seen while the sliders move, one operation when it is applied."""

from __future__ import annotations

from typing import Any

from splat.edit.ops import Recolor
from splat.edit.recolor import recolored_values
from splat.viewer.serving.page import Page
from splat.viewer.tools.toolbox import Toolbox

SLIDERS = (
    ("temperature", "Temperature", -1.0, 1.0, "Cold to warm"),
    ("saturation", "Saturation", 0.0, 2.0, "0 is grey"),
    ("brightness", "Brightness", -1.0, 1.0, "Added to every channel"),
    ("black", "Black point", 0.0, 0.9, "What becomes black"),
    ("white", "White point", 0.1, 2.0, "What becomes white"),
    ("opacity", "Opacity", 0.0, 2.0, "Factor"),
)
"""Field of the operation, word, range, hint."""
STILL = Recolor()


def build_colors(page: Page, box: Toolbox) -> None:
    gui = page.client.gui
    tint = gui.add_rgb(
        "Tint", initial_value=(255, 255, 255), hint="Factors on red, green and blue; white changes nothing"
    )
    sliders = {
        name: gui.add_slider(word, min=low, max=high, step=0.01, initial_value=getattr(STILL, name), hint=hint)
        for name, word, low, high, hint in SLIDERS
    }
    apply = gui.add_button("Apply colours")
    reset = gui.add_button("Reset", color="gray")

    def operation() -> Recolor:
        values = {name: float(slider.value) for name, slider in sliders.items()}
        return Recolor(tint=tuple(channel / 255 for channel in tint.value), **values)

    def show() -> None:
        op, snapshot = operation(), page.desk.snapshot
        rows = box.selected().nonzero().squeeze(1)
        if op == STILL or snapshot is None or len(rows) == 0:
            box.preview.end()
        else:
            box.preview.show(snapshot.labels.ids[rows], recolored_values(snapshot.model, rows, op))

    def put_back() -> None:
        tint.value = (255, 255, 255)
        for name, slider in sliders.items():
            slider.value = getattr(STILL, name)

    def commit(_: Any) -> None:
        op = operation()
        if op != STILL:
            reply = box.submit(op)
            put_back()
            box.runner.do(lambda: box.preview.end_after(reply))

    def cancel(_: Any) -> None:
        put_back()
        box.runner.do(box.preview.end)

    def changed(event: Any) -> None:
        if event.client is not None:  # not by ourselves
            box.runner.newest("recolor", show)

    for handle in (tint, *sliders.values()):
        handle.on_update(page.guarded(changed))
    apply.on_click(page.guarded(commit))
    reset.on_click(page.guarded(cancel))
