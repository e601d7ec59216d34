"""Camera paths made by hand: keys with times, and a smooth way through them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch

from splat.errors import UserError
from splat.geometry.camera import Camera
from splat.geometry.keyframe_curve import Curve, monotone
from splat.geometry.rotations import matrix_from_quat, quat_from_matrix, split_similarity

Timing = Literal["keys", "even"]
Ease = Literal["none", "ends", "keys"]
LookValue = str | bool | float | tuple[float, ...] | None

TIMINGS = {"keys": "each stretch takes the seconds of its key", "even": "the same speed all along"}
EASES = {"none": "never slows down", "ends": "starts and ends at rest", "keys": "comes to rest at every key"}
FOV_DEG = (1.0, 170.0)
MOST_FRAMES = 36_000
SHORTEST_HOLD_SECS = 1e-3
"""Shorter ones are none: points of a spline must not coincide."""


@dataclass(frozen=True)
class Keyframe:
    """A place of the camera: OpenCV axes, in the frame of its path."""

    position: tuple[float, float, float]
    wxyz: tuple[float, float, float, float]
    """Rotation from camera to world; of any length but 0."""
    fov_deg: float = 50.0
    """Vertical."""
    secs: float = 2.0
    """To the next key; the last key's counts in a loop only."""
    hold_secs: float = 0.0
    """Standing still before going on."""
    look: Mapping[str, LookValue] = field(default_factory=lambda: MappingProxyType({}))
    """Display settings by name, such as ``background``; numbers change smoothly, words at the key."""
    name: str = ""

    def camera(self, width: int, height: int, name: str = "path") -> Camera:
        """The pinhole of that place; ``look["background"]``, where given, is what stands behind the splats."""
        rotation = matrix_from_quat(torch.tensor(self.wxyz, dtype=torch.float64)).numpy()
        camera_from_world = np.eye(4)
        camera_from_world[:3, :3] = rotation.T
        camera_from_world[:3, 3] = -rotation.T @ np.asarray(self.position, np.float64)
        focal = height / 2 / math.tan(math.radians(self.fov_deg) / 2)
        intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
        background = self.look.get("background")
        behind = background if isinstance(background, tuple) and len(background) == 3 else None
        return Camera(name, camera_from_world, intrinsics, width, height, background=behind)

    @staticmethod
    def of(camera: Camera, **rest: Any) -> Keyframe:
        """The key where ``camera`` stands; of its lens only the vertical angle is kept."""
        pose = camera.world_from_camera
        wxyz = quat_from_matrix(torch.from_numpy(np.ascontiguousarray(pose[:3, :3]))).tolist()
        fov = 2 * math.degrees(math.atan(camera.height / 2 / camera.focal_px[1]))
        return Keyframe(tuple(pose[:3, 3].tolist()), tuple(wxyz), min(max(fov, FOV_DEG[0]), FOV_DEG[1]), **rest)


@dataclass(frozen=True)
class CameraPath:
    """Keys and how to go from one to the next."""

    keys: tuple[Keyframe, ...] = ()
    loop: bool = False
    tension: float = 0.0
    """1: corners at the keys, 0: round, -1: wide."""
    timing: Timing = "keys"
    ease: Ease = "ends"
    """A loop has no ends: there ``ends`` is ``none``."""
    fps: float = 30.0
    size: tuple[int, int] | None = None
    """Width and height of the pictures, px; None leaves it to who draws them."""

    @property
    def duration_secs(self) -> float:
        return float(self._schedule[0][-1]) if self.keys else 0.0

    @property
    def key_times(self) -> tuple[float, ...]:
        """When each key is reached, seconds."""
        times, numbers, _ = self._schedule
        return tuple(times[np.searchsorted(numbers, range(len(self.keys)))].tolist())

    def frame_times(self, fps: float | None = None) -> np.ndarray:  # [F] seconds
        """Of the pictures of a video: a loop does not show its seam twice. UserError when there are too many."""
        fps = self.fps if fps is None else fps
        if not (math.isfinite(fps) and fps > 0):
            raise UserError(f"{fps:g} frames per second do not fit: above 0")
        steps = round(self.duration_secs * fps)
        count = max(1, steps if self._closed else steps + 1)
        if count > MOST_FRAMES:
            raise UserError(f"{self.duration_secs:g} s at {fps:g} frames per second are {count:,} pictures, "
                            f"at most {MOST_FRAMES:,} are drawn")  # fmt: skip
        return np.minimum(np.arange(count) / fps, self.duration_secs)

    def at(self, times: np.ndarray) -> tuple[Keyframe, ...]:  # [F] seconds
        """Where the camera is then; a loop goes on for ever, any other path rests at its ends. UserError without
        keys."""
        if not self.keys:
            raise UserError("a camera path needs at least one key")
        times = np.asarray(times, np.float64).reshape(-1)
        if len(self.keys) == 1:
            return (self.keys[0],) * len(times)
        if self._closed:
            times = np.mod(times, self.duration_secs)
        moments, numbers, rests = self._schedule
        along = monotone(moments, self._curve.lengths[numbers], times, wrap=self._closed, stops=rests)
        values, passed = self._curve.at_length(along)
        return tuple(self._key(row, float(number)) for row, number in zip(values, passed, strict=True))

    def cameras(self, *, size: tuple[int, int], fps: float | None = None) -> tuple[Camera, ...]:
        """One camera per picture of a video, ``size`` (width, height) px."""
        keys = self.at(self.frame_times(fps))
        return tuple(key.camera(*size, name=f"path_{i:05d}") for i, key in enumerate(keys))

    def moved(self, similarity: np.ndarray) -> CameraPath:  # [4,4] there from here
        """The path in another frame; angles of view stay."""
        scale, rotation, shift = split_similarity(torch.as_tensor(np.asarray(similarity, np.float64)))

        def there(key: Keyframe) -> Keyframe:
            position = scale * rotation @ torch.tensor(key.position, dtype=torch.float64) + shift
            turned = rotation @ matrix_from_quat(torch.tensor(key.wxyz, dtype=torch.float64))
            return replace(key, position=tuple(position.tolist()), wxyz=tuple(quat_from_matrix(turned).tolist()))

        return replace(self, keys=tuple(there(key) for key in self.keys))

    # --- what is worked out once -------------------------------------------------------------------------------

    @property
    def _closed(self) -> bool:
        return self.loop and len(self.keys) > 1

    @cached_property
    def _curve(self) -> Curve:
        rows = [(*key.position, *(np.asarray(key.wxyz) / np.linalg.norm(key.wxyz)), _log_lens(key.fov_deg))
                for key in self.keys]  # fmt: skip
        return Curve.through(np.array(rows, np.float64), closed=self._closed, tension=self.tension)

    @cached_property
    def _schedule(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # [P] seconds, [P] key, [P] bool: at rest
        """When each key is reached and, after a hold, left; of a loop also when the first one is reached again."""
        travel = np.array([key.secs for key in self.keys], np.float64)
        travel = travel if self._closed else travel[:-1]
        if self.timing == "even" and len(travel):
            lengths = np.diff(self._curve.lengths)
            travel = travel.sum() * lengths / lengths.sum()
        now, times, numbers = 0.0, [], []
        for i, key in enumerate(self.keys):
            for moment in [now, now + key.hold_secs][: 2 if self._holds(i) else 1]:
                times.append(moment)
                numbers.append(i)
            now = times[-1] + (float(travel[i]) if i < len(travel) else 0.0)
        rests = [self._holds(i) or self.ease == "keys" for i in numbers]
        if self._closed:
            return np.array([*times, now]), np.array([*numbers, len(self.keys)]), np.array([*rests, rests[0]])
        if self.ease == "ends" and rests:
            rests[0] = rests[-1] = True
        return np.array(times), np.array(numbers), np.array(rests)

    def _holds(self, index: int) -> bool:
        return self.keys[index].hold_secs > SHORTEST_HOLD_SECS

    def _key(self, row: np.ndarray, passed: float) -> Keyframe:
        index = min(int(passed), len(self.keys) - (0 if self._closed else 1) - 1)
        first, second = self.keys[index], self.keys[(index + 1) % len(self.keys)]
        fovs = [key.fov_deg for key in self.keys]
        fov = min(max(2 * math.degrees(math.atan(math.exp(row[7]))), min(fovs)), max(fovs))
        part = min(max(passed - index, 0.0), 1.0)
        return Keyframe(tuple(row[:3].tolist()), tuple(row[3:7].tolist()), fov, look=_between(first, second, part))


def _log_lens(fov_deg: float) -> float:
    return math.log(math.tan(math.radians(fov_deg) / 2))


def _between(first: Keyframe, second: Keyframe, part: float) -> dict[str, LookValue]:
    """Display settings on the way: numbers mixed, anything else as at the key behind, or at the next when reached."""
    looks = {}
    for name in {**first.look, **second.look}:
        a, b = first.look.get(name), second.look.get(name)
        if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
            looks[name] = tuple((1 - part) * x + part * y for x, y in zip(a, b, strict=True))
        elif _is_number(a) and _is_number(b):
            looks[name] = (1 - part) * a + part * b
        elif name in first.look and part < 1:
            looks[name] = a
        elif name in second.look and part >= 1:
            looks[name] = b
    return looks


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
