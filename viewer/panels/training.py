"""The training panel: what the training does, curves of it, and what can be asked of it while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import viser

from splat.live.commands import Change, Command, Pause, Resume, Save, Step, Stop
from splat.live.news import Status
from splat.live.snapshot import Snapshot
from splat.viewer.figures.curves import condition, figures, thinned
from splat.viewer.serving.pace import MOST_SHARE
from splat.viewer.serving.page import BEAT_SECS, Page

STOPPING = """A finished run is evaluated and exported. An interrupted one leaves a checkpoint and can be taken up again
with `splat train --resume`."""
OPENED = "An opened model: nothing trains here. It can be looked at, edited and exported."
OVER = "The training is over. Its last model can be edited and exported."
CURVE_SECS = 1.5
SETTLED_SECS = 0.4
"""A setting is sent once it has not been touched for this long: a slider on its way asks for nothing."""
CURVES = {"loss": ("loss", "#e8825a"), "psnr": ("PSNR of training views, dB", "#5aa9e8"),
          "psnr_held_out": ("PSNR of held-out views, dB", "#b08ae0"),
          "splats": ("thousands of splats", "#7cc56e")}  # fmt: skip
"""Name in ``News`` -> title and colour of its chart."""
UNITS = {"splats": 1000.0}
"""What values are divided by: long numbers do not fit beside an axis."""


def build(page: Page) -> None:
    was_trained = any(page.desk.link.news.curve(name) for name in CURVES)
    if page.desk.standing and not was_trained:
        with page.tabs.add_tab("Model"):
            Opened(page)
        return
    with page.tabs.add_tab("Training"):
        Figures(page)
        if page.desk.standing:
            page.client.gui.add_markdown(OVER)
            with page.client.gui.add_folder("Curves"):
                Charts(page)
            return
        controls = Controls(page)
        with page.client.gui.add_folder("Curves"):
            Charts(page)
        with page.client.gui.add_folder("Settings of this run"):
            settings = Settings(page)
        page.every(BEAT_SECS, controls.follow)
        page.every(BEAT_SECS, settings.follow)


class Opened:
    """What was opened."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._text = page.client.gui.add_markdown("")
        page.client.gui.add_markdown(OPENED)
        self._follow()
        page.every(BEAT_SECS, self._follow)

    def _follow(self) -> None:
        snapshot, desk = self._page.snapshot, self._page.desk
        of_scene = "splats" if desk.scene is None else desk.scene.name
        name = of_scene if desk.run_dir is None else desk.run_dir.name
        rows = [] if snapshot is None else [f"| {name} | {value} |" for name, value in opened_figures(snapshot)]
        content = "\n".join([f"**{name}**", "", "| | |", "|---|---|", *rows])
        if content != self._text.content:
            self._text.content = content


class Figures:
    """The numbers of the moment."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._text = page.client.gui.add_markdown("")
        self._follow()
        page.every(BEAT_SECS, self._follow)

    def _follow(self) -> None:
        status = self._page.desk.status
        lines = [f"**{condition(status, standing=self._page.desk.standing)}**", ""]
        lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in figures(status))]
        if status.message:
            lines += ["", f"*{status.message.replace('*', '')}*"]
        content = "\n".join(lines)
        if content != self._text.content:
            self._text.content = content


class Controls:
    """Pause, step, save, stop, and how the time is shared."""

    def __init__(self, page: Page) -> None:
        self._page, gui = page, page.client.gui
        self._pause = gui.add_button("Pause", icon="player-pause", hint="Take no further steps until resumed")
        self._steps = gui.add_number("Steps", initial_value=1, min=1, max=10_000, step=1,
                                     hint="How many steps the next button takes")  # fmt: skip
        self._step = gui.add_button("Step, then pause", icon="player-track-next")
        self._save = gui.add_button("Save a checkpoint", icon="device-floppy")
        self._stop = gui.add_button("Stop ...", icon="player-stop", color="red")
        self._share = gui.add_slider(
            "Training's share", min=0.0, max=MOST_SHARE, step=0.01,
            initial_value=min(page.desk.share.training, MOST_SHARE),
            hint="Of the time, while somebody moves the view, 0 to 1; the rest goes into pictures",
        )  # fmt: skip
        self._modal: viser.GuiModalHandle | None = None
        self._pause.on_click(page.guarded(lambda _: self._toggle()))
        self._step.on_click(page.guarded(lambda _: self._ask(Step(count=int(self._steps.value)))))
        self._save.on_click(page.guarded(lambda _: self._ask(Save(), _saved)))
        self._stop.on_click(page.guarded(lambda _: self._confirm()))
        self._share.on_update(page.guarded(self._shared))

    def follow(self) -> None:
        """Labels and switches as the training stands."""
        status = self._page.desk.status
        over = status.ended is not None
        for button in (self._pause, self._step, self._save, self._stop, self._steps):
            _set(button, "disabled", over)
        _set(self._pause, "label", "Resume" if status.paused else "Pause")
        _set(self._pause, "icon", "player-play" if status.paused else "player-pause")
        if time.time() - self._share.update_timestamp > 1.0:  # another page may have moved it
            self._share.value = min(self._page.desk.share.training, MOST_SHARE)

    def _toggle(self) -> None:
        self._ask(Resume() if self._page.desk.status.paused else Pause())

    def _shared(self, event: viser.GuiEvent) -> None:
        if event.client is not None:
            self._page.desk.share.training = float(self._share.value)

    def _confirm(self) -> None:
        if self._modal is not None and not self._modal.closed:
            return
        gui = self._page.client.gui
        self._modal = gui.add_modal("Stop the training?")
        with self._modal:
            gui.add_markdown(STOPPING)
            finish = gui.add_button("Finish now", hint="Evaluate and export")
            interrupt = gui.add_button("Interrupt", color="red", hint="Save a checkpoint only")
            stay = gui.add_button("Go on training", color="gray")
        for button, how in ((finish, "finish"), (interrupt, "interrupt"), (stay, None)):
            button.on_click(self._page.guarded(lambda _, how=how: self._decided(how)))

    def _decided(self, how: str | None) -> None:
        if self._modal is not None and not self._modal.closed:
            self._modal.close()
        if how is not None:
            self._ask(Stop(how=how))

    def _ask(self, command: Command, said: Callable[[Any], str] | None = None) -> None:
        answered(self._page, self._page.desk.command(command), said)


class Charts:
    """Curves of the run so far."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._shown: dict[str, tuple[int, int]] = {}
        self._charts = {name: _chart(page, *CURVES[name]) for name in CURVES}
        self._follow()
        page.every(CURVE_SECS, self._follow)

    def _follow(self) -> None:
        for name, chart in self._charts.items():
            points = self._page.desk.link.news.curve(name)
            if len(points) < 2:  # one evaluation is no curve; it stands among the figures
                continue
            seen = (len(points), points[-1][0])
            if seen != self._shown.get(name):
                self._shown[name] = seen
                steps, values = thinned(points)
                chart.data = steps, values / UNITS.get(name, 1.0)
                chart.visible = True


def _chart(page: Page, title: str, color: str) -> viser.GuiUplotHandle:
    return page.client.gui.add_uplot(
        (np.zeros(2), np.zeros(2)), ({"label": "step"}, {"label": title, "stroke": color, "width": 1.5}),
        title=title, scales={"x": {"time": False}}, legend={"show": False}, cursor={"drag": {"x": True, "y": False}},
        visible=False, height=120,
        axes=({"stroke": "#999", "size": 28}, {"stroke": "#999", "size": 52}), padding=(4, 18, 0, 0),
    )  # fmt: skip


class Settings:
    """What ``Change`` can set. Shows what is in force; what is touched goes out once it has settled."""

    def __init__(self, page: Page) -> None:
        self._page, gui = page, page.client.gui
        now = page.desk.status.settings or {}
        degree = 3 if page.snapshot is None else page.snapshot.model.sh_degree
        chosen = min(int(now.get("sh_degree", degree) or 0), degree)
        self._handles = {
            "lr_scale": gui.add_slider("Learning rates x", min=0.05, max=3.0, step=0.05, initial_value=1.0,
                                       hint="Factor on all learning rates"),
            "densify": gui.add_checkbox("Splats appear and vanish", initial_value=True, hint="Densify and prune"),
            "max_splats": gui.add_number("Most splats", initial_value=0, min=0, step=1000, hint="0 = no limit"),
            "sh_degree": gui.add_dropdown("SH degree", [str(i) for i in range(degree + 1)], initial_value=str(chosen),
                                          hint="Highest band of view-dependent colour in use"),
            "background": gui.add_rgb("Background", initial_value=(0, 0, 0), hint="Behind the splats, in training"),
        }  # fmt: skip
        self._touched: dict[str, float] = {}
        self.follow()
        for name, handle in self._handles.items():
            handle.on_update(page.guarded(lambda event, name=name: self._touch(name, event)))

    def follow(self) -> None:
        """Send what has settled; show what is in force for the rest."""
        status, now = self._page.desk.status, time.monotonic()
        for name, handle in self._handles.items():
            _set(handle, "disabled", status.ended is not None)
            touched = self._touched.get(name)
            if touched is None:
                self._show(name, status)
            elif now - touched > SETTLED_SECS:
                del self._touched[name]
                value = self._value(name)
                if value != (status.settings or {}).get(name, object()):
                    self._page.desk.command(Change(name, value)).add_done_callback(self._page.guarded(_raised))

    def _touch(self, name: str, event: viser.GuiEvent) -> None:
        if event.client is not None:
            self._touched[name] = time.monotonic()

    def _value(self, name: str) -> Any:
        """As ``Change`` takes it."""
        value = self._handles[name].value
        if name == "max_splats":
            return int(value) or None
        if name == "sh_degree":
            return int(value)
        if name == "background":
            return tuple(round(channel / 255, 4) for channel in value)
        return value

    def _show(self, name: str, status: Status) -> None:
        settings = status.settings or {}
        if name not in settings:
            return
        value = settings[name]
        if name == "max_splats":
            value = value or 0
        elif name == "sh_degree":
            value = str(value)
            if value not in self._handles[name].options:
                return
        elif name == "background":
            value = tuple(round(255 * channel) for channel in value)
        self._handles[name].value = value


def opened_figures(snapshot: Snapshot) -> list[tuple[str, str]]:
    """What a model is made of, as words."""
    model = snapshot.model
    rows = [("splats", f"{model.count:,}"), ("primitive", model.primitive.kind), ("SH degree", str(model.sh_degree))]
    return [*rows, ("trained for", f"{snapshot.step:,} steps")] if snapshot.step else rows


def answered(page: Page, reply: Future, said: Callable[[Any], str] | None = None) -> None:
    """Tell the outcome of a command on the page once it is known; of one without words only a failure."""

    def tell(future: Future) -> None:
        outcome = future.result()
        if said is not None:
            page.notify(said(outcome))

    reply.add_done_callback(page.guarded(tell))


def _saved(step: int) -> str:
    return f"checkpoint of step {step:,} saved"


def _raised(future: Future) -> None:
    future.result()


def _set(handle: Any, name: str, value: Any) -> None:
    """Only what changes is sent to the browser."""
    if getattr(handle, name) != value:
        setattr(handle, name, value)
