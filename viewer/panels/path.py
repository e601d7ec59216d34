"""The camera path panel: keys from the views of the page, times, preview, file and video."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import viser

from splat.errors import UserError
from splat.geometry.keyframe_json import LONGEST_SECS, MOST_BYTES, MOST_KEYS, path_from_bytes, path_to_text, read_path
from splat.geometry.keyframes import EASES, FOV_DEG, TIMINGS, CameraPath
from splat.io.atomic import write_text
from splat.viewer.output.movie import key_at
from splat.viewer.output.placement import world_from_input
from splat.viewer.panels.path_film import Film
from splat.viewer.panels.path_nodes import PathNodes
from splat.viewer.serving.page import Page

FOLDER = "paths"
NO_FILE = "(choose)"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")


def build(page: Page) -> PathPanel:
    with page.tabs.add_tab("Path"):
        return PathPanel(page)


class PathPanel:
    """Holds the path as a value, in the capture's own frame; every change makes another one."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.path = CameraPath()
        self.chosen = 0
        """Number of the key at hand."""
        self._shown: dict[int, Any] = {}
        """What each control (its ``id``) was set to last, by us or by a person."""
        self._lock = threading.RLock()
        gui = page.client.gui
        gui.add_button("Add a key here", icon="plus", hint="Where you look from now, after the chosen key (Insert)"
                       ).on_click(self._does(self.add))  # fmt: skip
        with gui.add_folder("Keys"):
            self._key_controls()
        with gui.add_folder("Way"):
            self._way_controls()
        self.nodes = PathNodes(page, self.choose)
        self.film = Film(page, lambda: self.path, self.nodes)
        with gui.add_folder("File", expand_by_default=False):
            self._file_controls()
        page.on_key("Add a key to the camera path", "insert", lambda: self._one_at_a_time(self.add))
        self._changed(self.path)

    # controls --------------------------------------------------------------------------------------------

    def _key_controls(self) -> None:
        gui = self.page.client.gui
        self._list = gui.add_dropdown("Key", ("none",), initial_value="none")
        self._move = gui.add_button_group("Move", ("Go there", "Put here", "Earlier", "Later", "Delete"))
        self._secs = gui.add_number("Seconds to the next", initial_value=2.0, min=0.01, max=LONGEST_SECS, step=0.1)
        self._hold = gui.add_number("Stay, seconds", initial_value=0.0, min=0.0, max=LONGEST_SECS, step=0.1)
        self._fov = gui.add_slider("Field of view", min=FOV_DEG[0], max=FOV_DEG[1], step=0.5, initial_value=50.0,
                                   hint="Vertical, degrees")  # fmt: skip
        self._keeps_look = gui.add_checkbox("Keeps the display settings", initial_value=False,
                                            hint="New keys remember mode, background and colours")  # fmt: skip
        self._list.on_update(self._typed(self._list, lambda name: self.choose(_number(name))))
        self._move.on_click(self._does(self.move))
        self._secs.on_update(self._typed(self._secs, lambda value: self.edit(secs=float(value))))
        self._hold.on_update(self._typed(self._hold, lambda value: self.edit(hold_secs=float(value))))
        self._fov.on_update(self._typed(self._fov, lambda value: self.edit(fov_deg=float(value))))

    def _way_controls(self) -> None:
        gui = self.page.client.gui
        self._loop = gui.add_checkbox("Loop", initial_value=self.path.loop)
        self._timing = gui.add_dropdown(
            "Timing", tuple(TIMINGS), initial_value=self.path.timing, hint=_choices(TIMINGS)
        )
        self._ease = gui.add_dropdown("Ease", tuple(EASES), initial_value=self.path.ease, hint=_choices(EASES))
        self._tension = gui.add_slider("Tension", min=-1.0, max=1.0, step=0.05, initial_value=self.path.tension,
                                       hint="1: corners, 0: round")  # fmt: skip
        for name, handle in (("loop", self._loop), ("timing", self._timing), ("ease", self._ease),
                             ("tension", self._tension)):  # fmt: skip
            handle.on_update(self._typed(handle, lambda value, name=name: self._way(name, value)))

    def _file_controls(self) -> None:
        gui, page = self.page.client.gui, self.page
        self._name = gui.add_text("Name", initial_value="path")
        gui.add_button("Save", icon="device-floppy", hint="Into the run folder, and as a download"
                       ).on_click(self._does(self.save))  # fmt: skip
        upload = gui.add_upload_button("Open a file", mime_type="application/json", icon="upload")
        upload.on_upload(page.guarded(lambda event: self._one_at_a_time(lambda: self._sent(event.target.value))))
        self._files = gui.add_dropdown(
            "In the run folder", (NO_FILE,), initial_value=NO_FILE, visible=self._folder is not None
        )
        self._files.on_update(self._typed(self._files, self._open))
        self._list_files()

    # keys ------------------------------------------------------------------------------------------------

    def move(self) -> None:
        """What the button that was clicked says."""
        actions = {
            "Go there": lambda: self.page.fly_to(self._world_key(self.chosen).camera(*self.film.size)),
            "Put here": self.put_here, "Earlier": lambda: self.reorder(-1), "Later": lambda: self.reorder(1),
            "Delete": self.delete,
        }  # fmt: skip
        actions[self._move.value]()

    def add(self) -> None:
        """The view of the page becomes a key after the chosen one."""
        if len(self.path.keys) >= MOST_KEYS:
            raise UserError(f"a path has at most {MOST_KEYS} keys")
        keys = list(self.path.keys)
        at = min(self.chosen + 1, len(keys))
        keys.insert(at, self._key_here(secs=float(self._secs.value)))
        self.chosen = at
        self._changed(replace(self.path, keys=tuple(keys)))

    def put_here(self) -> None:
        """The chosen key takes the view of the page."""
        old = self._key()
        key = self._key_here(secs=old.secs, hold_secs=old.hold_secs, name=old.name)
        self.edit(position=key.position, wxyz=key.wxyz, fov_deg=key.fov_deg, look=key.look or old.look)

    def edit(self, **fields: Any) -> None:
        """Set fields of the chosen key."""
        key = replace(self._key(), **fields)
        keys = self.path.keys
        self._changed(replace(self.path, keys=(*keys[: self.chosen], key, *keys[self.chosen + 1 :])))

    def reorder(self, by: int) -> None:
        """The chosen key changes its place with a neighbour."""
        self._key()
        to = self.chosen + by
        if 0 <= to < len(self.path.keys):
            keys = list(self.path.keys)
            keys[self.chosen], keys[to] = keys[to], keys[self.chosen]
            self.chosen = to
            self._changed(replace(self.path, keys=tuple(keys)))

    def delete(self) -> None:
        self._key()
        keys = (*self.path.keys[: self.chosen], *self.path.keys[self.chosen + 1 :])
        self.chosen = max(min(self.chosen, len(keys) - 1), 0)
        self._changed(replace(self.path, keys=keys))

    def choose(self, number: int) -> None:
        """Make another key the one at hand."""
        self.chosen = max(min(number, len(self.path.keys) - 1), 0)
        self._changed(self.path)

    def _key(self) -> Any:
        if not self.path.keys:
            raise UserError("there is no key yet: add one where you look from")
        return self.path.keys[self.chosen]

    def _key_here(self, **rest: Any) -> Any:
        camera = self.page.camera()
        key = key_at(camera, self.page.look if self._keeps_look.value else None, **rest)
        return CameraPath((key,)).moved(np.linalg.inv(world_from_input(self.page.desk))).keys[0]

    def _world_key(self, number: int) -> Any:
        self._key()
        return CameraPath((self.path.keys[number],)).moved(world_from_input(self.page.desk)).keys[0]

    def _way(self, name: str, value: Any) -> None:
        self._changed(replace(self.path, **{name: value}))

    # files -----------------------------------------------------------------------------------------------

    @property
    def _folder(self) -> Path | None:
        run_dir = self.page.desk.run_dir
        return None if run_dir is None else run_dir / FOLDER

    def save(self) -> None:
        """Write the JSON into the run folder, and hand it to the browser."""
        self._key()
        name = str(self._name.value)
        if not _NAME.fullmatch(name):
            raise UserError(f"a path cannot be called {name[:80]!r}: use letters, digits, '_' and '-', 60 at most")
        text = path_to_text(self.film.with_settings(self.path))
        if self._folder is not None:
            file = write_text(self._folder / f"{name}.json", text)
            self.page.notify(f"{file} written; 'splat render {self.page.desk.run_dir} --path {file}' draws it")
            self._list_files()
        self.page.client.send_file_download(f"{name}.json", text.encode(), save_immediately=True)

    def _sent(self, file: viser.UploadedFile) -> None:
        self.load(file.content, file.name)

    def load(self, content: bytes, where: str) -> None:
        """Take a path file that somebody sent. UserError for what is none."""
        if len(content) > MOST_BYTES:
            raise UserError(f"{where[:80]}: too large for a camera path (more than {MOST_BYTES:,} bytes)")
        self._take(path_from_bytes(content, where[:80]))

    def _open(self, name: str) -> None:
        if name != NO_FILE and self._folder is not None and name in self._files.options:
            self._take(read_path(self._folder / f"{name}.json"))

    def _take(self, path: CameraPath) -> None:
        self.chosen = 0
        self.film.take(path)
        self._changed(path)

    def _list_files(self) -> None:
        if self._folder is not None:
            names = sorted(file.stem for file in self._folder.glob("*.json") if _NAME.fullmatch(file.stem))
            self._files.options = (NO_FILE, *names)

    # following -------------------------------------------------------------------------------------------

    def _changed(self, path: CameraPath) -> None:
        """Show ``path``; the controls follow without being heard."""
        self.path = path
        names = tuple(f"{i + 1}: at {time:.1f} s" for i, time in enumerate(path.key_times)) or ("none",)
        if names != self._list.options:
            self._list.options = names
            self._shown.pop(id(self._list), None)
        self._show(self._list, names[min(self.chosen, len(names) - 1)])
        if path.keys:
            key = path.keys[self.chosen]
            for handle, value in ((self._secs, key.secs), (self._hold, key.hold_secs), (self._fov, key.fov_deg)):
                self._show(handle, value)
        for handle, value in ((self._loop, path.loop), (self._timing, path.timing), (self._ease, path.ease),
                              (self._tension, path.tension)):  # fmt: skip
            self._show(handle, value)
        self.nodes.show(path.moved(world_from_input(self.page.desk)), self.chosen)
        self.film.follow(path)

    def _show(self, handle: Any, value: Any) -> None:
        """Nothing is written over that somebody has just set and that will be heard in a moment."""
        if self._shown.get(id(handle)) != value:
            self._shown[id(handle)] = handle.value = value

    def _does(self, action: Callable[[], Any]) -> Callable[[viser.GuiEvent], Any]:
        return self.page.guarded(lambda _: self._one_at_a_time(action))

    def _typed(self, handle: Any, action: Callable[[Any], Any]) -> Callable[[viser.GuiEvent], Any]:
        """``action`` of the value that a person set; what we show ourselves is no order."""

        def take() -> None:
            value = self._shown[id(handle)] = handle.value
            action(value)

        def heard(event: viser.GuiEvent) -> None:
            if event.client is not None:
                self._one_at_a_time(take)

        return self.page.guarded(heard)

    def _one_at_a_time(self, action: Callable[[], Any]) -> None:
        with self._lock:  # clicks come on several threads
            action()


def _number(name: str) -> int:
    """Of the key that stands in the list as ``name``; names change with the times of keys."""
    return int(name.partition(":")[0]) - 1 if ":" in name else 0


def _choices(table: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {what}" for name, what in table.items())
