"""What all pages of one training (or opened file) share."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import torch

from splat.edit.ops import Op
from splat.geometry.camera import Camera
from splat.live.commands import Command
from splat.live.link import Link
from splat.live.news import Status
from splat.live.snapshot import Snapshot
from splat.render.types import Rasterizer
from splat.scene.images import ImageStore
from splat.scene.types import Scene
from splat.viewer.picture.space import Space
from splat.viewer.serving.pace import DEFAULT_SHARE, Share

PHOTO_CACHE_BYTES = 512 << 20
_BEAT_SECS = 0.5
_log = logging.getLogger("splat.viewer")


class Desk:
    """One link, its scene and its editing session. Safe from any thread."""

    def __init__(
        self,
        link: Link,
        *,
        scene: Scene | None = None,
        rasterizer: Rasterizer,
        device: torch.device | str = "cpu",
        session: Any = None,
        run_dir: Path | None = None,
        header: Mapping[str, Any] | None = None,
        space: Space | None = None,
        share: float = DEFAULT_SHARE,
        photos: Callable[[Camera], np.ndarray | None] | None = None,
        standing: bool = False,
    ) -> None:
        """``photos`` replaces the scene's own pictures; ``standing``: nothing trains behind the link."""
        self.link, self.scene, self.rasterizer, self.session = link, scene, rasterizer, session
        self.device = torch.device(device)
        self.run_dir, self.header = run_dir, dict(header or {})
        self.space = space or Space()
        self.share = Share(share)
        self.standing = standing
        self.placement: Any = None
        """Up direction and scale that were set by hand (``viewer.output.placement``), for exports."""
        self._photos = photos or self._photo_of_scene
        self._store: ImageStore | None = None
        self._places = {} if scene is None else {id(camera): index for index, camera in enumerate(scene.cameras)}
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._listeners: dict[int, Callable[[Snapshot], None]] = {}
        self._numbers = 0
        self._hurried = False
        self.snapshot_is_answer = False
        """Whether the newest snapshot came after a command: somebody waits to see what it did."""
        self._asked = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name="splat-viewer-desk", daemon=True)
        self._thread.start()

    # snapshots -------------------------------------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest that is known; nobody changes it."""
        return self._snapshot

    def refresh(self) -> None:
        """Ask for a newer snapshot; it comes by ``on_snapshot``."""
        self.link.snapshots.request()
        self._asked.set()

    def on_snapshot(self, callback: Callable[[Snapshot], None]) -> Callable[[], None]:
        """Call ``callback`` with every newer snapshot, on the desk's thread; returns what ends that."""
        with self._lock:
            self._numbers += 1
            number = self._numbers
            self._listeners[number] = callback
        return lambda: self._forget(number)

    def _forget(self, number: int) -> None:
        with self._lock:
            self._listeners.pop(number, None)

    def _watch(self) -> None:
        """Sleeps until somebody asks: without a page nothing is requested, and nothing is done."""
        while not self._closed:
            self._asked.wait()
            if self._closed:
                return
            taken = self.link.snapshots.take(_BEAT_SECS)
            if not self.link.snapshots.wanted:
                self._asked.clear()
                if self.link.snapshots.wanted:  # asked for in between
                    self._asked.set()
            if taken is None:
                continue
            self.snapshot_is_answer = self._hurried
            if not self._asked.is_set():  # made after the last request; an earlier one may not show the change yet
                self._hurried = False
            self._snapshot = taken
            with self._lock:
                listeners = tuple(self._listeners.values())
            for listener in listeners:
                try:
                    listener(taken)
                except Exception:
                    _log.exception("the viewer failed on a new snapshot")

    # commands --------------------------------------------------------------------------------------------

    def command(self, command: Command) -> Future:
        """Put it to whoever owns the rows. The reply is its outcome, or the exception of a refused one."""
        reply = self.link.commands.put(command)
        reply.add_done_callback(self._carried_out)
        return reply

    def _carried_out(self, _: Future) -> None:
        """It may have changed what is to be seen."""
        self._hurried = True
        self.refresh()

    def submit(self, op: Op) -> Future:
        """Do ``op`` to the rows; the reply is the session's status."""
        from splat.edit.session import edit_command

        return self.command(edit_command(self.session, op))

    def undo(self) -> Future:
        from splat.edit.session import undo_command

        return self.command(undo_command(self.session))

    def redo(self) -> Future:
        from splat.edit.session import redo_command

        return self.command(redo_command(self.session))

    @property
    def status(self) -> Status:
        return self.link.news.status

    @property
    def is_training(self) -> bool:
        """Whether steps are being taken, so that pictures have to leave time for them."""
        status = self.link.news.status
        return not self.standing and not status.paused and status.ended is None

    # photographs -----------------------------------------------------------------------------------------

    def photo(self, camera: Camera) -> np.ndarray | None:  # [H,W,3] uint8
        """What the camera took, at its size; None where there is no picture. SceneError for one that cannot be
        read."""
        return self._photos(camera)

    def camera_named(self, name: str) -> Camera | None:
        """A camera of the scene by name."""
        cameras = () if self.scene is None else self.scene.cameras
        return next((camera for camera in cameras if camera.name == name), None)

    def _photo_of_scene(self, camera: Camera) -> np.ndarray | None:
        if self.scene is None or camera.image_path is None:
            return None
        with self._lock:
            if self._store is None and not self._closed:  # our own cache: that of the training stays as it is
                self._store = ImageStore(self.scene.cameras, budget_bytes=PHOTO_CACHE_BYTES, workers=1)
        index = self._places.get(id(camera))
        if index is None or self._store is None:
            return None
        return self._store.frame(index).pixels

    def close(self) -> None:
        """Pages are gone: stop the thread, free the pictures."""
        self._closed = True
        self._asked.set()
        self._thread.join(timeout=2 * _BEAT_SECS)
        with self._lock:
            store, self._store = self._store, None
        if store is not None:
            store.close()
