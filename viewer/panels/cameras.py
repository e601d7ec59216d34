"""The capture's views: where they stand, what they took, how well they are met."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from splat.geometry.camera import Camera
from splat.viewer.figures.scores import ViewScore, measured, remarks
from splat.viewer.panels.frusta import Frusta
from splat.viewer.picture.compare import covers, shows_grey
from splat.viewer.picture.thumbnails import thumbnail
from splat.viewer.serving.page import BEAT_SECS, Page
from splat.viewer.serving.spurt import Spurt
from splat.viewer.tools.swipe import SwipeTool

HELD_OUT_MARK = " (held out)"
NO_SCORES = "not measured yet"
CHOOSE = "fly to ..."
"""First in the list of the worst: what is chosen already cannot be chosen."""
ELSEWHERE = "*A photograph is shown only from where it was taken: 'Fly there'.*"
UNCOUNTED = "*What masks or edits take out of the photograph is grey: it does not count.*"
OFF, PHOTO, ERROR = "Off", "Photo", "Error"


def build(page: Page) -> None:
    """The tab "Cameras"."""
    with page.tabs.add_tab("Cameras"):
        scene = page.desk.scene
        if scene is None or not scene.cameras:
            page.client.gui.add_markdown("The model was opened without its capture: there are no views to show.")
        else:
            CamerasPanel(page)


class CamerasPanel:
    """One per page. ``current`` is the view that was flown to last."""

    def __init__(self, page: Page) -> None:
        self.page, self.scene, self.gui = page, page.desk.scene, page.client.gui
        held_out = set(self.scene.test_indices)
        self.labels = {
            camera.name + (HELD_OUT_MARK if index in held_out else ""): camera
            for index, camera in enumerate(self.scene.cameras)
        }
        self.current: Camera | None = None
        self.scores: list[ViewScore] = []
        self._measuring: Iterator[ViewScore | None] | None = None
        self._done = 0
        self._is_protected = False
        """Whether the model that is measured left pixels out for edits."""
        self._ranked: dict[str, Camera] = {}
        self._followed = page.look.swipe
        """Where the slider knows the line to be."""
        self._lock = threading.RLock()
        """Clicks and keys come on several threads: one step begins where the one before has ended."""
        self.frusta = Frusta(page, self.go)
        self._frusta_spurt, self._measure_spurt = Spurt(page, self.frusta.tick), Spurt(page, self._measure_one)
        self._view_controls()
        self._compare_controls()
        self._score_controls()
        page.on_key("Next view", "pagedown", lambda: self.step(1))
        page.on_key("View before", "pageup", lambda: self.step(-1))
        page.on_key("Show the cameras", "C", lambda: setattr(self.show, "value", not self.show.value))
        page.every(BEAT_SECS, self._tick)

    def go(self, camera: Camera) -> None:
        """Stand where ``camera`` stood, with all of its picture in sight."""
        with self._lock:
            self.current = camera
            self.page.fly_to(camera)
            label = next(label for label, known in self.labels.items() if known is camera)
            if self.view.value != label:
                self.view.value = label
            self._show_thumbnail()
            if self.page.look.compare is not None:
                self.page.change(compare=camera.name)

    def step(self, by: int) -> None:
        """The view after (or before) the current one, in the order of the capture."""
        cameras = self.scene.cameras
        with self._lock:
            here = None if self.current is None else cameras.index(self.current)
            self.go(cameras[0 if here is None else (here + by) % len(cameras)])

    # controls --------------------------------------------------------------------------------------------

    def _view_controls(self) -> None:
        gui, guarded = self.gui, self.page.guarded
        self.show = gui.add_checkbox("Show cameras", False, hint="Key C. Click one to fly there. Orange: held out")
        self.size = gui.add_slider("Size of cameras", 0.1, 4.0, 0.1, 1.0, hint="Times their usual size")
        self.view = gui.add_dropdown("View", tuple(self.labels))
        self.steps = gui.add_button_group("", ("◀", "Fly there", "▶"), hint="Page up, page down")
        self.picture = gui.add_image(np.zeros((2, 3, 3), np.uint8), format="jpeg", visible=False)
        self.show.on_update(guarded(lambda _: self._show_frusta()))
        self.size.on_update(guarded(lambda _: self.frusta.resize(self.size.value)))
        self.view.on_update(guarded(self._chosen))
        self.steps.on_click(guarded(self._stepped))

    def _compare_controls(self) -> None:
        gui, guarded = self.gui, self.page.guarded
        with gui.add_folder("Compare"):
            self.compare = gui.add_dropdown("With", (OFF, PHOTO, ERROR), hint="Right of the line, from this very place")
            self.swipe = gui.add_slider("Swipe", 0.0, 1.0, 0.01, 0.5, visible=False,
                                        hint="Where the line is: 0 left, 1 right")  # fmt: skip
            self.dragged = gui.add_button(
                "Drag the line in the picture",
                icon="arrows-horizontal",
                visible=False,
                hint="The mouse moves the line; Escape gives it back to the camera",
            )
            self.elsewhere = gui.add_markdown(ELSEWHERE, visible=False)
            self.uncounted = gui.add_markdown(UNCOUNTED, visible=False)
        self.compare.on_update(guarded(lambda _: self._compared()))
        self.swipe.on_update(guarded(self._swiped))
        self.dragged.on_click(guarded(lambda _: self.page.set_tool(SwipeTool.name)))

    def _score_controls(self) -> None:
        gui, guarded = self.gui, self.page.guarded
        with gui.add_folder("Worst views"):
            self.measure = gui.add_button("Measure all views", hint="PSNR against the photographs where they count, "
                                          "in the background")  # fmt: skip
            self.progress = gui.add_progress_bar(0.0, visible=False)
            self.summary = gui.add_markdown(f"*{NO_SCORES}*")
            self.worst = gui.add_dropdown("Worst first", (NO_SCORES,), disabled=True)
        self.measure.on_click(guarded(lambda _: self.start_measuring()))
        self.worst.on_update(guarded(self._worst_chosen))

    # what they do ----------------------------------------------------------------------------------------

    def _chosen(self, event: Any) -> None:
        if event.client_id is not None:  # not when it only follows
            self.go(self.labels[self.view.value])

    def _stepped(self, event: Any) -> None:
        if event.target.value == "Fly there":
            self.go(self.labels[self.view.value])
        else:
            self.step(1 if event.target.value == "▶" else -1)

    def _compared(self) -> None:
        if self.compare.value == OFF:
            self.page.change(compare=None)
            if self.page.tool == SwipeTool.name:
                self.page.set_tool("")
            return
        if self.current is None or not self._stands_there():
            self.go(self.labels[self.view.value])
        self.page.change(compare=self.current.name, compare_with=self.compare.value.lower(),
                         swipe=float(self.swipe.value))  # fmt: skip
        self.page.set_tool(SwipeTool.name)

    def _swiped(self, event: Any) -> None:
        if event.client_id is not None:  # not when it follows the mouse
            self._followed = float(self.swipe.value)
            self.page.change(swipe=self._followed)

    def _stands_there(self) -> bool:
        return covers(self.page.camera(), self.current, self.scene)

    def _follow_compare(self) -> None:
        """The slider goes with the line; a photograph that cannot be shown from here is said."""
        look = self.page.look
        on = look.compare is not None
        away = on and self.current is not None and not self._stands_there()
        if on and look.swipe != self._followed:  # not where the slider itself was moved, and is about to tell
            self._followed = look.swipe
            if abs(self.swipe.value - look.swipe) > 0.005:
                self.swipe.value = round(look.swipe, 2)
        for handle, visible in ((self.swipe, on), (self.dragged, on), (self.elsewhere, away)):
            if handle.visible != visible:
                handle.visible = visible

    def _show_frusta(self) -> None:
        with self._lock:
            self.frusta.show(self.show.value)
        self._frusta_spurt.begin()

    def _show_thumbnail(self) -> None:
        small = None if self.current is None else thumbnail(self.page.desk, self.current)
        self.picture.visible = small is not None
        if small is not None:
            self.picture.image = small

    def start_measuring(self) -> None:
        """Begin, or begin again with the model of now; it goes a view at a time."""
        snapshot = self.page.snapshot
        if snapshot is None:
            self.page.notify("There is no model yet.")
            return
        self.scores, self._done = [], 0
        self.progress.value, self.progress.visible = 0.0, True
        self.summary.content = f"*measuring step {snapshot.step}*"
        self._is_protected = snapshot.protection is not None
        self._measuring = measured(self.page.desk, snapshot)
        self._measure_spurt.begin()

    def _tick(self) -> None:
        if self.frusta.tick():
            self._frusta_spurt.begin()
        self._follow_compare()
        look = self.page.look
        grey = look.compare is not None and look.compare_with == "error" and shows_grey(self.page.desk, look.compare)
        if self.uncounted.visible != grey:
            self.uncounted.visible = grey

    def _measure_one(self) -> bool:
        """The next view, in the page's own thread: pictures are drawn by another. Whether there may be more."""
        run = self._measuring
        if run is None:
            return False
        try:
            score = next(run)
        except StopIteration:
            if run is self._measuring:
                self._measuring = None
                self._show_scores()
            return self._measuring is not None
        except Exception:
            self._measuring = None
            self.progress.visible = False
            raise
        if run is not self._measuring:  # it was begun again
            return True
        self._done += 1
        self.progress.value = 100.0 * self._done / len(self.scene.cameras)
        if score is not None:
            self.scores.append(score)
        return True

    def _show_scores(self) -> None:
        self.progress.visible = False
        if not self.scores:
            self.summary.content = "*there is no photograph that can be read and counts*"
            return
        ranked = sorted(self.scores, key=lambda score: score.psnr)
        cameras = {camera.name: camera for camera in self.scene.cameras}
        self._ranked = {score_label(score): cameras[score.name] for score in ranked}
        desk = self.page.desk
        edited = bool(desk.standing and desk.session is not None and desk.session.status.undo)
        told = remarks(self.scores, is_protected=self._is_protected, is_edited_standing=edited)
        self.summary.content = summary_text(self.scores) + (f"  \n{told}" if told else "")
        self.worst.options = (CHOOSE, *self._ranked)
        self.worst.value = CHOOSE
        self.worst.disabled = False

    def _worst_chosen(self, event: Any) -> None:
        if event.client_id is not None and self.worst.value in self._ranked:
            self.go(self._ranked[self.worst.value])


def score_label(score: ViewScore) -> str:
    return f"{score.psnr:.2f} dB  {score.name}{HELD_OUT_MARK if score.held_out else ''}"


def summary_text(scores: list[ViewScore]) -> str:
    """Means of the training and the held-out views."""
    parts = []
    for word, held_out in (("training", False), ("held out", True)):
        values = [score.psnr for score in scores if score.held_out == held_out]
        if values:
            parts.append(f"{len(values)} {word}: **{sum(values) / len(values):.2f} dB**")
    return " · ".join(parts)
