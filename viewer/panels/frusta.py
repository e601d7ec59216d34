"""Cameras of the capture as nodes in the picture, made a few at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from splat.geometry.camera import Camera
from splat.viewer.picture.thumbnails import thumbnail
from splat.viewer.serving.page import Page, quaternion_of

TRAIN_RGB, HELD_OUT_RGB = (120, 170, 255), (255, 150, 40)
PER_TICK = 6
"""Nodes per turn of the page's thread: messages to the page stay small beside its pictures."""
SHARE_OF_GAP = 0.25
"""Size of a frustum over the distance to the next camera (median)."""
LARGEST_PAGE = 0.25
"""Page units: two cameras far apart must not fill the scene."""
TOO_CLOSE = 1.3
"""In sizes of a frustum: it stands before the eye of whoever flew there, and is hidden."""
JPEG_QUALITY = 70


class Frusta:
    """Shown when asked for: a page without them sends nothing of them."""

    def __init__(self, page: Page, go: Callable[[Camera], None]) -> None:
        self.page, self._go = page, go
        scene = page.desk.scene
        self.cameras = scene.cameras
        self._held_out = set(scene.test_indices)
        self._positions = page.desk.space.page(np.array([camera.center_world for camera in self.cameras]))
        self.unit = typical_size(self._positions)
        self._scale = 1.0
        self._on = False
        self._lock = threading.Lock()
        """Nodes are made in the page's thread while clicks show, hide and resize them."""
        self._eye: tuple[float, ...] | None = None
        self.nodes: dict[int, Any] = {}
        self._to_make: deque[int] = deque(range(len(self.cameras)))
        self._to_fill: deque[int] = deque()
        self._hidden: set[int] = set()

    def show(self, on: bool) -> None:
        with self._lock:
            self._on = on
            self.page.needs_depth("cameras", on)
            for index, node in self.nodes.items():
                node.visible = on and index not in self._hidden

    def resize(self, scale: float) -> None:
        """Times their usual size."""
        with self._lock:
            self._scale = float(scale)
            for node in self.nodes.values():
                node.scale = self.unit * self._scale

    @property
    def is_complete(self) -> bool:
        """All frusta stand, with their pictures."""
        return not self._to_make and not self._to_fill

    def tick(self) -> bool:
        """Make some nodes, or give one its picture; hide those before the eye. Called in the page's thread. Whether the
        next turn should come soon."""
        with self._lock:
            if not self._on:
                return False
            for _ in range(min(PER_TICK, len(self._to_make))):
                self._make(self._to_make.popleft())
            moves = self._clear_the_view()
        if not self._to_make and self._to_fill:
            self._fill(self._to_fill.popleft())  # reads a photograph: nobody waits for that
        return moves or not self.is_complete

    def _make(self, index: int) -> None:
        camera = self.cameras[index]
        held_out = index in self._held_out
        node = self.page.overlay.add_camera_frustum(
            f"/splat/cameras/{index}", fov=float(2 * np.arctan(camera.height / 2 / camera.focal_px[1])),
            aspect=camera.width / camera.height, scale=self.unit * self._scale, thickness=1.5,
            thickness_units="screen", color=HELD_OUT_RGB if held_out else TRAIN_RGB,
            wxyz=tuple(quaternion_of(camera.world_from_camera[:3, :3])), position=tuple(self._positions[index]),
            cast_shadow=False, receive_shadow=False, visible=self._on,
        )  # fmt: skip
        node.on_click(self.page.guarded(lambda _: self._go(camera)))
        self.nodes[index] = node
        self._to_fill.append(index)

    def _fill(self, index: int) -> None:
        small = thumbnail(self.page.desk, self.cameras[index])
        if small is not None:
            node = self.nodes[index]
            node.format, node.jpeg_quality = "jpeg", JPEG_QUALITY
            node.image = small

    def _clear_the_view(self) -> bool:
        """Whether the eye has moved since the last time."""
        eye = np.asarray(self.page.client.camera.position)
        before, self._eye = self._eye, tuple(eye)
        near = np.linalg.norm(self._positions - eye, axis=1) < TOO_CLOSE * self.unit * self._scale
        close = {index for index in self.nodes if near[index]}
        for index in close ^ self._hidden:
            if index in self.nodes:
                self.nodes[index].visible = index not in close
        self._hidden = close
        return before != self._eye


def typical_size(positions: np.ndarray) -> float:  # [C,3] page units
    """From the distance of neighbouring cameras."""
    if len(positions) < 2:
        return LARGEST_PAGE / 2
    sample = positions[:: max(1, len(positions) // 200)]
    apart = np.linalg.norm(sample[:, None] - positions[None], axis=-1)
    apart = np.where(apart > 1e-9, apart, np.inf).min(axis=1)
    apart = apart[np.isfinite(apart)]
    return min(LARGEST_PAGE, SHARE_OF_GAP * float(np.median(apart))) if len(apart) else LARGEST_PAGE / 2
