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
from splat.scene.types import Frame, Scene
from splat.viewer.picture.space import Space
from splat.viewer.serving.loop import Loop, join_all
from splat.viewer.serving.pace import DEFAULT_SHARE, Share

PHOTO_CACHE_BYTES = 512 << 20
CLOSE_SECS = 1.0
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
        self._photos, self._has_own_photos = photos or self._photo_of_scene, photos is not None
        self._photo_lock = threading.Lock()
        """Its own: the replies of commands come on the training's thread and take the other one."""
        self._store: ImageStore | None = None
        self._unmasked: set[int] = set()
        """Places of views that are known to have no mask, so that asking again does not decode a picture."""
        self._places = {} if scene is None else {id(camera): index for index, camera in enumerate(scene.cameras)}
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._listeners: dict[int, Callable[[Snapshot], None]] = {}
        self._numbers = 0
        self._hurried = False
        self.snapshot_is_answer = False
        """Whether the newest snapshot came after a command: somebody waits to see what it did."""
        self._loop = Loop("splat-viewer-desk", self._hand_out, self._failed)
        self._loop.start()

    # snapshots -------------------------------------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest that is known; nobody changes it. None before the first, and when nobody listens: a copy of a
        large model is not kept for pages that are gone, if the next page can ask for another."""
        return self._snapshot

    def refresh(self) -> None:
        """Ask for a newer snapshot; it comes by ``on_snapshot``."""
        self.link.snapshots.request()

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
            if not self._listeners and self._can_ask:
                self._snapshot = None

    @property
    def _can_ask(self) -> bool:
        """Whether somebody answers. A training that is over may be at its evaluation and exports for long."""
        return self.standing or self.link.news.status.ended is None

    def _hand_out(self) -> None:
        """Sleeps until a snapshot comes: without a page none is asked for, and nothing is done."""
        taken = self.link.snapshots.take(None, unless=self._loop.is_closed)
        if taken is None:
            return
        with self._lock:
            self.snapshot_is_answer = self._hurried
            if not self.link.snapshots.wanted:  # made after the last request; an earlier one may not show the change
                self._hurried = False
            listeners = tuple(self._listeners.values())
            self._snapshot = taken if listeners or not self._can_ask else None
        for listener in listeners:
            try:
                listener(taken)
            except Exception as error:
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        _log.error("the viewer failed on a new snapshot", exc_info=error)

    # commands --------------------------------------------------------------------------------------------

    def command(self, command: Command) -> Future:
        """Put it to whoever owns the rows. The reply is its outcome, or the exception of a refused one."""
        reply = self.link.commands.put(command)
        reply.add_done_callback(self._carried_out)
        return reply

    def _carried_out(self, _: Future) -> None:
        """It may have changed what is to be seen. On the thread of whoever owns the rows."""
        with self._lock:  # both or none, for ``_hand_out``
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

    def mask(self, camera: Camera) -> np.ndarray | None:  # [H,W] uint8
        """Which pixels of the photograph count by the capture itself: 255 do, 0 do not; None = all, and where pictures
        are not the scene's own. SceneError for a picture that cannot be read."""
        index = self._places.get(id(camera))
        if index in self._unmasked or self._has_own_photos:
            return None
        frame = self._frame_of_scene(camera)
        return None if frame is None else frame.mask

    def _photo_of_scene(self, camera: Camera) -> np.ndarray | None:
        frame = self._frame_of_scene(camera)
        return None if frame is None else frame.pixels

    def _frame_of_scene(self, camera: Camera) -> Frame | None:
        index = self._places.get(id(camera))
        if index is None or camera.image_path is None:
            return None
        with self._photo_lock:
            if self._store is None and not self._loop.is_closed():  # our own cache: training's stays as it is
                self._store = ImageStore(self.scene.cameras, budget_bytes=PHOTO_CACHE_BYTES, workers=1)
            store = self._store
        if store is None:
            return None
        frame = store.frame(index)
        if frame.mask is None:
            self._unmasked.add(index)
        return frame

    def close(self) -> None:
        """Pages are gone: stop the thread, free the pictures."""
        self._loop.close()
        self.link.snapshots.wake()
        join_all([self._loop.thread], CLOSE_SECS)
        with self._photo_lock:
            store, self._store = self._store, None
        if store is not None:
            store.close()
