"""One browser page: its camera, its look, its controls, and the pictures that are sent to it."""

from __future__ import annotations

import copy
import functools
import inspect
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import viser
from torch import Tensor

from splat.errors import UserError
from splat.geometry.camera import Camera
from splat.geometry.rotations import quat_from_matrix
from splat.live.snapshot import Snapshot
from splat.viewer.picture.look import Look
from splat.viewer.serving.desk import Desk
from splat.viewer.serving.keys import leave_camera_alone
from splat.viewer.serving.sight import Sight
from splat.viewer.serving.ticker import Ticker
from splat.viewer.serving.worker import DrawnFrame, Worker

SAME_ERROR_SECS = 5.0
"""An error that comes with every picture is told this often."""
BEAT_SECS = 0.25
"""Panels look for news this often, all at once."""
POSE = ("position", "wxyz", "look_at", "up_direction", "fov", "update_timestamp")
"""What of viser's state of a camera can be set; the rest is the browser's window."""
_log = logging.getLogger("splat.viewer")


@dataclass(frozen=True)
class Key:
    """A shortcut, for the help panel."""

    label: str
    key: str
    modifier: str | None


class Page:
    """One client. Methods may be called from any thread."""

    def __init__(self, client: viser.ClientHandle, desk: Desk, look: Look | None = None) -> None:
        self.client, self.desk = client, desk
        self.look = look or Look()
        self.keys: list[Key] = []
        self.toolbox: Any = None
        """What knows the tools of the mouse (``viewer.tools``), once its panel stands."""
        self.preview_rows: tuple[Tensor, dict[str, Tensor]] | None = None
        self._lock = threading.Lock()
        self._moving = threading.Lock()
        self._depth_owners: set[str] = set()
        self._closers: list[Callable[[], None]] = []
        self._threads: list[threading.Thread] = []
        self._told: dict[str, float] = {}
        self._closed = False
        self.tabs = client.gui.add_tab_group()
        leave_camera_alone(client)
        self._sight = Sight(client, desk.space)
        self._ticker = Ticker(self.failed)
        self._worker = Worker(self)

        @client.camera.on_update
        async def _(_: viser.CameraHandle) -> None:  # async: called in order, on the server's thread
            if self._sight.is_news():
                self._worker.event()

    def start(self) -> None:
        """Begin to draw; called once the panels stand."""
        for loop in (self._worker.loop, self._ticker.loop):
            loop.start()
            self.adopt(loop.thread)

    # what is seen ----------------------------------------------------------------------------------------

    def camera(self) -> Camera:
        """The page's view in the world's frame, at the size of its canvas (capped). UserError for what is no view."""
        return self._sight.camera()

    def camera_to_draw(self) -> Camera:
        """As ``camera``, of which a picture is made now: told again, it makes no other."""
        return self._sight.to_draw()

    @property
    def last(self) -> DrawnFrame | None:
        """The picture that was sent last."""
        return self._worker.last

    @property
    def snapshot(self) -> Snapshot | None:
        return self.desk.snapshot

    def change(self, **fields: Any) -> None:
        """Set fields of ``look`` and draw again."""
        with self._lock:
            self.look = replace(self.look, **fields)
        self._worker.event()

    def redraw(self) -> None:
        self._worker.event()

    def preview(self, ids: Tensor | None, values: dict[str, Tensor] | None = None) -> None:
        """Draw the splats called ``ids`` (``Labels.ids``) with these raw values instead of their own; None ends it."""
        self.preview_rows = None if ids is None else (ids, dict(values or {}))
        self._worker.event()

    @property
    def wants_depth(self) -> bool:
        return bool(self._depth_owners)

    def needs_depth(self, owner: str, on: bool) -> None:
        """Depth goes with the pictures while somebody needs it: then things of the page stand behind splats."""
        with self._lock:
            before = set(self._depth_owners)
            (self._depth_owners.add if on else self._depth_owners.discard)(owner)
            changed = bool(before) != bool(self._depth_owners)
        if changed:
            self._worker.event()

    def stream(self, on: bool) -> None:
        """Off: nothing is drawn or sent, because the page shows something of its own; on: drawn again."""
        self._worker.hold(not on)

    @property
    def overlay(self) -> viser.SceneApi:
        """Where things are added that stand in the page's picture; in page units, with names under ``/splat/``."""
        return self.client.scene

    # the camera ------------------------------------------------------------------------------------------

    def fly_to(self, camera: Camera) -> None:
        """Take the place of ``camera``, with all of its picture in sight."""
        position = tuple(self.desk.space.page(camera.center_world))
        wxyz, fov = tuple(quaternion_of(camera.world_from_camera[:3, :3])), self.fov_around(camera)

        def fly(handle: viser.CameraHandle) -> None:
            handle.position, handle.wxyz, handle.fov = position, wxyz, fov

        self.move_camera(fly)

    def fov_around(self, camera: Camera) -> float:
        """Vertical field of view, radians, in which the whole picture of ``camera`` lies on this page's canvas."""
        focal_x, focal_y = camera.focal_px
        return float(2 * np.arctan(max(camera.height / focal_y, camera.width / focal_x / self._sight.aspect) / 2))

    def look_at(self, point_world: Any, distance: float | None = None) -> None:
        """Turn around ``point_world`` from here on, with it in the middle; ``distance`` (world units) moves there."""
        point = self.desk.space.page(np.asarray(point_world, np.float64))

        def turn(handle: viser.CameraHandle) -> None:
            if distance is not None:
                away = handle.position - handle.look_at
                away = away / max(np.linalg.norm(away), 1e-12)
                handle.position = tuple(point + away * distance * self.desk.space.scale)
            handle.look_at = tuple(point)

        self.move_camera(turn)

    def move_camera(self, how: Callable[[viser.CameraHandle], None]) -> None:
        """``how`` sets fields of the camera that it is given, which nobody else touches meanwhile. The client's own is
        made anew with every message of the browser, and what viser sends for one field depends on the others: a message
        that came between two settings would send the page elsewhere."""
        with self._moving, self.client.atomic():
            handle = self.client.camera
            ours = copy.copy(handle)
            ours._state = replace(handle._state)
            how(ours)
            handle._state = replace(handle._state, **{name: getattr(ours._state, name) for name in POSE})
        self._worker.event()

    # words -----------------------------------------------------------------------------------------------

    def notify(self, text: str, *, kind: Literal["info", "error"] = "info") -> None:
        """A few words in the corner of the page."""
        error = kind == "error"
        self.client.add_notification(
            "Error" if error else "splat", text, auto_close_seconds=12.0 if error else 5.0,
            color="red" if error else "blue",
        )  # fmt: skip

    def failed(self, error: BaseException, doing: str = "") -> None:
        """Show and log an exception; the same one again only after a while. Of a page that is gone nobody hears: what
        fails there fails for that, mostly."""
        text = f"{doing}: {error_text(error)}" if doing else error_text(error)
        if self._closed:
            _log.info("a page that is gone failed: %s", text, exc_info=error)
            return
        now = time.monotonic()
        with self._lock:
            self._told = {told: at for told, at in self._told.items() if now - at < SAME_ERROR_SECS}
            if text in self._told:
                return
            self._told[text] = now
        if not isinstance(error, UserError):
            _log.error("the viewer failed: %s", text, exc_info=error)
        try:
            self.notify(text, kind="error")
        except Exception:
            _log.exception("the page could not be told")

    def guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` with its exceptions shown on the page instead of raised; None is returned then. A coroutine
        function stays one."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def waiting(*args: Any, **kwargs: Any) -> Any:
                try:
                    return await function(*args, **kwargs)
                except Exception as error:
                    self.failed(error)

            return waiting

        @functools.wraps(function)
        def plain(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                self.failed(error)

        return plain

    # keys, tools, time -----------------------------------------------------------------------------------

    def on_key(self, label: str, key: str, callback: Callable[[], Any], modifier: str | None = None) -> None:
        """Call ``callback()`` on a shortcut: ``key`` as viser names it (``A``, ``[``, ``delete``, ``arrowleft``), with
        ``modifier`` (``shift``, ``cmd/ctrl``, ``cmd/ctrl+shift``). ValueError when the key is taken."""
        taken = next((known for known in self.keys if (known.key, known.modifier) == (key, modifier)), None)
        if taken is not None:
            raise ValueError(f"key {key} ({modifier}) of '{label}' is that of '{taken.label}'")
        self.keys.append(Key(label, key, modifier))
        command = self.client.gui.add_command(label, hotkey=key, modifier=modifier)
        run = self.guarded(callback)
        if inspect.iscoroutinefunction(callback):

            async def triggered(_: Any) -> None:
                await run()

            command.on_trigger(triggered)
        else:
            command.on_trigger(lambda _: run())

    @property
    def tool(self) -> str:
        """Name of the tool that has the mouse; "" = none, then the mouse moves the camera."""
        return "" if self.toolbox is None else self.toolbox.name

    def set_tool(self, name: str) -> None:
        """Give the mouse to a tool, or with "" back to the camera."""
        if self.toolbox is not None:
            self.toolbox.use(name)

    def every(self, secs: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` again and again in the page's own thread, until the page closes or the returned function
        is called."""
        return self._ticker.every(secs, callback)

    def add_close(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the page is gone."""
        with self._lock:
            if not self._closed:
                self._closers.append(callback)
                return
        callback()

    @property
    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """The client is gone."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            closers, self._closers = self._closers, []
        self._worker.close()
        self._ticker.loop.close()
        for closer in reversed(closers):
            try:
                closer()
            except Exception:
                _log.exception("a part of the page failed to close")

    def adopt(self, thread: threading.Thread) -> None:
        """A thread that ends after ``close``; the end of the viewer waits for it a while."""
        with self._lock:
            self._threads = [*(other for other in self._threads if other.is_alive()), thread]

    @property
    def threads(self) -> tuple[threading.Thread, ...]:
        """Those that run; for a while also after ``close``."""
        with self._lock:
            return tuple(thread for thread in self._threads if thread.is_alive())


def error_text(error: BaseException) -> str:
    """What to tell: our own errors are sentences, others need their kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) and text else f"{type(error).__name__}: {text}"


def quaternion_of(rotation: np.ndarray) -> np.ndarray:  # [3,3] -> [4] wxyz
    """As viser wants it."""
    return quat_from_matrix(torch.as_tensor(np.asarray(rotation, np.float64))).numpy()
