"""What the picture shows: mode, colours, depth of view, camera, crop box."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from splat.io.ramps import color_table
from splat.model.filter2d import FILTERS_2D
from splat.model.splat_model import SplatModel
from splat.render.footprints import FOOTPRINTS
from splat.viewer.panels import framing, preview
from splat.viewer.panels.crop import CropPanel
from splat.viewer.picture.look import Look
from splat.viewer.picture.modes import MODES
from splat.viewer.picture.modes.categories import legend
from splat.viewer.picture.ramps import RAMPS
from splat.viewer.serving.page import BEAT_SECS, Page

AS_TRAINED = "as trained"
NO_LIMIT = 0.0
"""In the field of the far end: nothing is cut."""


def build(page: Page) -> None:
    """The tab "View"."""
    legend = page.client.gui.add_html("", order=-0.7, visible=False)  # above the tabs: keys change the mode, too
    with page.tabs.add_tab("View"):
        DisplayPanel(page, legend)
        framing.build(page)
        CropPanel(page)
        preview.build(page)


class DisplayPanel:
    """Controls of ``page.look``; a change of the look from elsewhere is not shown here."""

    def __init__(self, page: Page, legend: Any) -> None:
        """``legend`` (HTML) shows what the picture's colours mean."""
        self.page, self.legend = page, legend
        self.gui = page.client.gui
        look = page.look
        self._shown: Any = None
        self._fitted = False
        has_photos = page.desk.scene is not None and bool(page.desk.scene.train_indices)
        names = tuple(name for name, mode in MODES.items() if not mode.needs or has_photos)
        self.mode = self.gui.add_dropdown("Mode", names, initial_value=look.mode if look.mode in names else "color",
                                          hint="Keys M and Shift+M")  # fmt: skip
        with self.gui.add_folder("Numbers", visible=MODES[self.mode.value].has_ramp) as self.numbers:
            self._ramp_controls(look)
        with self.gui.add_folder("Splats"):
            self._splat_controls(look)
        self._on(self.mode, self._mode_chosen)
        page.on_key("Next mode", "M", lambda: self.step(1))
        page.on_key("Mode before", "M", lambda: self.step(-1), "shift")
        page.every(BEAT_SECS, self.refresh)

    def step(self, by: int) -> None:
        """Another mode."""
        names = list(self.mode.options)
        self.mode.value = names[(names.index(self.mode.value) + by) % len(names)]

    def refresh(self) -> None:
        """Show what the picture's numbers and colours mean, once it is another."""
        frame, snapshot = self.page.last, self.page.snapshot
        if frame is None or snapshot is None:
            return
        if not self._fitted:
            self._fit(snapshot.model)
        look, values = frame.look, frame.drawn.values
        state = (look.mode, look.ramp, look.log_scale, look.invert, values, snapshot.labels.names)
        if state == self._shown:
            return
        self._shown = state
        content = ""
        if look.mode == "reason":
            content = legend_html(legend(snapshot.labels))
        elif values is not None:
            content = ramp_html(look, values)
        self.legend.content, self.legend.visible = content, bool(content)

    def _fit(self, model: SplatModel) -> None:
        """Offer what this model can be drawn with, once there is one."""
        self._fitted = True
        possible = FOOTPRINTS[model.render_inputs().kind].filters2d
        self.filter.options = (AS_TRAINED, *(name for name in FILTERS_2D if name in possible))
        self.degree.value = min(int(self.degree.value), model.sh_degree)
        self.degree.max = max(model.sh_degree, 1)  # a slider needs some length
        self.degree.disabled = model.sh_degree == 0

    def _on(self, control: Any, change: Callable[[], Any]) -> None:
        control.on_update(self.page.guarded(lambda _: change()))

    def _ramp_controls(self, look: Look) -> None:
        gui = self.gui
        self.ramp = gui.add_dropdown("Ramp", tuple(RAMPS), initial_value=look.ramp)
        self.auto = gui.add_checkbox("Range from what is seen", look.low is None and look.high is None)
        self.low = gui.add_number("Low", look.low or 0.0, step=0.0001, disabled=self.auto.value)
        self.high = gui.add_number("High", look.high or 1.0, step=0.0001, disabled=self.auto.value)
        self.log = gui.add_checkbox("Equal factors (log)", look.log_scale)
        self.invert = gui.add_checkbox("Turned round", look.invert)
        self._on(self.ramp, lambda: self.page.change(ramp=self.ramp.value))
        self._on(self.auto, self._range_kind)
        self._on(self.low, self._range)
        self._on(self.high, self._range)
        self._on(self.log, lambda: self.page.change(log_scale=self.log.value))
        self._on(self.invert, lambda: self.page.change(invert=self.invert.value))

    def _splat_controls(self, look: Look) -> None:
        gui, page = self.gui, self.page
        filters = (AS_TRAINED, *FILTERS_2D)
        self.degree = gui.add_slider("SH degree", 0, 3, 1, 3 if look.sh_degree is None else look.sh_degree,
                                     hint="Highest band of view-dependent colour")  # fmt: skip
        self.filter = gui.add_dropdown("Filter", filters, initial_value=look.filter2d or AS_TRAINED)
        self.background = gui.add_rgb("Background", tuple(round(255 * part) for part in look.background))
        self.near = gui.add_number("Near", look.near, min=0.0001, step=0.01, hint="World units")
        self.far = gui.add_number("Far", NO_LIMIT if look.far >= 1e10 else look.far, min=0.0, step=0.01,
                                  hint="World units; 0 cuts nothing")  # fmt: skip
        self.tint = gui.add_checkbox("Tint the selection", look.show_selection)
        self.hidden = gui.add_checkbox("Show hidden splats", look.show_hidden)
        self._on(self.degree, lambda: page.change(sh_degree=int(self.degree.value)))
        self._on(self.filter, self._filter_chosen)
        self._on(self.background, lambda: page.change(background=tuple(part / 255 for part in self.background.value)))
        self._on(self.near, lambda: page.change(near=float(self.near.value)))
        self._on(self.far, lambda: page.change(far=float(self.far.value) or 1e10))
        self._on(self.tint, lambda: page.change(show_selection=self.tint.value))
        self._on(self.hidden, lambda: page.change(show_hidden=self.hidden.value))

    def _mode_chosen(self) -> None:
        name = self.mode.value
        self.numbers.visible = MODES[name].has_ramp
        if not self.auto.value:  # a range of other units says nothing
            self.auto.value = True
        self.page.change(mode=name)

    def _filter_chosen(self) -> None:
        name = self.filter.value
        self.page.change(filter2d=None if name == AS_TRAINED else name)

    def _range_kind(self) -> None:
        frame = self.page.last
        self.low.disabled = self.high.disabled = self.auto.value
        if self.auto.value:
            self.page.change(low=None, high=None)
            return
        if frame is not None and frame.drawn.values is not None:
            self.low.value, self.high.value = frame.drawn.values
        self._range()

    def _range(self) -> None:
        if not self.auto.value:
            self.page.change(low=float(self.low.value), high=float(self.high.value))


def ramp_html(look: Look, values: tuple[float, float]) -> str:
    """A bar of the ramp's colours with its ends."""
    colors = color_table(look.ramp)[:: -15 if look.invert != (look.mode == "depth") else 15]
    stops = ", ".join(f"rgb({r},{g},{b})" for r, g, b in colors)
    low, high = (f"{value:.4g}" for value in values)
    unit = MODES[look.mode].unit + (", log" if look.log_scale else "")
    bar = f'<div style="height:12px;border-radius:3px;background:linear-gradient(to right,{stops})"></div>'
    ends = f"<span>{low}</span><span>{unit.strip(', ')}</span><span>{high}</span>"
    below = f'<div style="display:flex;justify-content:space-between;font-size:11px">{ends}</div>'
    return f'<div style="margin:0 10px 6px">{bar}{below}</div>'


def legend_html(entries: list[tuple[str, tuple[int, int, int]]]) -> str:
    """A patch per category."""
    patch = "display:inline-block;width:10px;height:10px;border-radius:2px;margin:0 4px 0 8px;background:rgb({},{},{})"
    rows = [f'<span style="{patch.format(*color)}"></span><span>{_escaped(name)}</span>' for name, color in entries]
    return f'<div style="margin:0 10px 6px;font-size:12px;line-height:1.6">{"<wbr>".join(rows)}</div>'


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
