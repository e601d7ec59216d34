"""Flying along a camera path, and writing it as a video."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import viser

from splat.errors import UserError
from splat.geometry.keyframe_json import FASTEST_FPS, SIDES_PX
from splat.geometry.keyframes import CameraPath
from splat.viewer.output.exports import FOLDER, size_text
from splat.viewer.output.movie import look_with, shots, write_movie
from splat.viewer.output.placement import world_from_input
from splat.viewer.panels.path_nodes import PathNodes
from splat.viewer.serving.jobs import Job, Jobs
from splat.viewer.serving.page import Page

BEAT_SECS = 1 / 20
SIZES = {"1920x1080": (1920, 1080), "1280x720": (1280, 720), "640x480": (640, 480), "own": None}


class Film:
    """``path()`` is asked whenever something happens; its own frame is the capture's."""

    def __init__(self, page: Page, path: Callable[[], CameraPath], nodes: PathNodes) -> None:
        self._page, self._path, self._nodes = page, path, nodes
        self._jobs = Jobs(page)
        self._started: float | None = None
        self._end_beat: Callable[[], None] | None = None
        self._file: Path | None = None
        gui = page.client.gui
        with gui.add_folder("Preview"):
            self._at = gui.add_slider("Second", min=0.0, max=1.0, step=0.01, initial_value=0.0)
            self._play = gui.add_button("Play", icon="player-play", hint="Space")
        with gui.add_folder("Video"):
            self._movie_controls()
        self._at.on_update(page.guarded(self._scrubbed))
        self._play.on_click(page.guarded(lambda _: self.toggle()))
        page.on_key("Play the camera path", "space", self.toggle)

    def _movie_controls(self) -> None:
        gui, page = self._page.client.gui, self._page
        self._fps = gui.add_number("Frames per second", initial_value=30.0, min=1.0, max=FASTEST_FPS, step=1.0)
        self._size = gui.add_dropdown("Size", tuple(SIZES), initial_value="1280x720")
        self._own = gui.add_vector2("Own size, px", initial_value=(800, 600), min=(SIDES_PX[0],) * 2,
                                    max=(SIDES_PX[1],) * 2, step=2, visible=False)  # fmt: skip
        self._write = gui.add_button("Write the video", icon="movie")
        self._stop = gui.add_button("Stop writing", color="gray", visible=False)
        self._bar = gui.add_progress_bar(0.0, visible=False)
        self._told = gui.add_markdown("")
        self._download = gui.add_button("Download", icon="download", visible=False)
        self._size.on_update(page.guarded(lambda _: setattr(self._own, "visible", self._size.value == "own")))
        self._write.on_click(page.guarded(lambda _: self.write()))
        self._stop.on_click(page.guarded(lambda _: self._jobs.stop()))
        self._download.on_click(page.guarded(lambda _: self._send()))

    # what the video is -----------------------------------------------------------------------------------

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the video, px."""
        chosen = SIZES[self._size.value]
        return chosen if chosen is not None else tuple(int(side) for side in self._own.value)

    def with_settings(self, path: CameraPath) -> CameraPath:
        """``path`` with the frames per second and the size that are set here."""
        return replace(path, fps=float(self._fps.value), size=self.size)

    def take(self, path: CameraPath) -> None:
        """Show the settings of a path that was opened."""
        self._fps.value = path.fps
        if path.size is not None:
            known = next((name for name, size in SIZES.items() if size == path.size), "own")
            self._size.value = known
            self._own.visible = known == "own"
            self._own.value = path.size

    def follow(self, path: CameraPath) -> None:
        """The path has changed."""
        longest = max(path.duration_secs, 0.01)
        if longest != self._at.max:
            self._at.max = longest
            self._at.value = min(self._at.value, longest)

    # preview ---------------------------------------------------------------------------------------------

    def toggle(self) -> None:
        """Play, or stay where the flight is."""
        if self._end_beat is not None:
            self._land()
            return
        path = self._path()
        if len(path.keys) < 2:
            raise UserError("a flight needs two keys at least")
        begin = float(self._at.value)
        begin = 0.0 if begin >= path.duration_secs - 0.02 else begin
        self._started = time.monotonic() - begin
        self._play.label, self._play.icon = "Pause", "player-pause"
        self._nodes.hide(True)
        self._end_beat = self._page.every(BEAT_SECS, self._beat)

    def _beat(self) -> None:
        path = self._path()
        if self._started is None or len(path.keys) < 2:
            self._land()
            return
        now = time.monotonic() - self._started
        if path.loop:
            now %= path.duration_secs
        self._at.value = round(min(now, path.duration_secs), 2)
        self._look_from(path, now)
        if now >= path.duration_secs:
            self._land()

    def _land(self) -> None:
        end, self._end_beat, self._started = self._end_beat, None, None
        if end is not None:
            end()
        self._play.label, self._play.icon = "Play", "player-play"
        self._nodes.hide(False)

    def _scrubbed(self, event: viser.GuiEvent) -> None:
        path = self._path()
        if event.client is not None and path.keys:
            self._started = None if self._started is None else time.monotonic() - float(self._at.value)
            self._look_from(path, float(self._at.value))

    def _look_from(self, path: CameraPath, secs: float) -> None:
        (key,) = path.moved(world_from_input(self._page.desk)).at(np.array([secs]))
        self._page.fly_to(key.camera(*self.size))
        look = look_with(self._page.look, key.look)
        if look != self._page.look:
            self._page.change(**{name: getattr(look, name) for name in key.look if hasattr(look, name)})

    # video -----------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Draw the whole path from the newest model, in a thread of its own."""
        path, snapshot, desk = self.with_settings(self._path()), self._page.snapshot, self._page.desk
        if not path.keys or snapshot is None:
            raise UserError("there is nothing to film yet: a key and a model are needed")
        pictures = shots(path.moved(world_from_input(desk)), self._page.look, size=self.size)
        folder = Path(tempfile.mkdtemp(prefix="splat-film-")) if desk.run_dir is None else desk.run_dir / FOLDER
        file = folder / f"path_{snapshot.step}.mp4"

        def work(job: Job) -> None:
            def drew(count: int, secs: float) -> None:
                job.progress(count / len(pictures), f"picture {count} of {len(pictures)}")
                job.leave_time(desk, secs)

            write_movie(file, pictures, snapshot, desk.rasterizer, fps=path.fps, desk=desk, drew=drew)
            self._file = file
            size = size_text(file.stat().st_size)
            place = "" if desk.run_dir is None else f": `{file}`"
            self._told.content = f"{len(pictures)} pictures of step {snapshot.step:,}, {size}{place}"

        if not self._jobs.is_running:  # before it starts: a refusal may be there at once
            self._told.content = "drawing ..."
            buttons = ((self._stop, True), (self._bar, True), (self._write, False), (self._download, False))
            for handle, visible in buttons:
                handle.visible = visible
        self._jobs.start("writing the video", work, self._progress, self._ended)

    def _progress(self, share: float, text: str) -> None:
        self._bar.value = 100 * share
        self._told.content = text

    def _ended(self) -> None:
        if self._told.content.startswith(("drawing", "picture ")):
            self._told.content = "stopped; nothing was written"
        self._stop.visible = self._bar.visible = False
        self._write.visible = True
        self._download.visible = self._file is not None

    def _send(self) -> None:
        if self._file is not None:
            self._page.client.send_file_download(self._file.name, self._file.read_bytes(), save_immediately=True)
