"""Where the camera stood: two uneven loops around the table and a few close-ups, as by hand."""

from __future__ import annotations

import numpy as np

WIDTH, HEIGHT = 480, 360
FOCAL_PX = 405.0
CENTRE_PX = (243.4, 177.1)
"""Principal point, a little off the middle as in a real lens; the centre of the first pixel is (0.5, 0.5)."""

CLOSE_UPS = (
    # eye, target (metres)
    ((0.10, -0.78, 1.12), (0.00, 0.00, 0.82)),
    ((0.52, -0.72, 1.10), (0.35, -0.10, 0.78)),
    ((0.98, -0.30, 1.08), (0.45, 0.05, 0.82)),
    ((0.80, 0.62, 1.12), (0.42, 0.10, 0.84)),
    ((0.22, 0.86, 1.06), (0.08, 0.20, 0.84)),
    ((-0.20, 0.88, 1.12), (-0.10, 0.25, 0.85)),
    ((-0.78, 0.72, 1.22), (-0.42, 0.20, 0.95)),
    ((-1.02, 0.05, 1.12), (-0.45, 0.05, 0.86)),
    ((-0.86, -0.55, 1.16), (-0.45, -0.12, 0.80)),
    ((-0.38, -0.92, 1.30), (-0.20, -0.15, 0.78)),
)


def camera_path(rng: np.random.Generator) -> list[np.ndarray]:
    """``camera_from_world`` [4,4] per view; x right, y down, z forward."""
    views = []
    for count, radius, height, start in ((26, 1.50, 1.50, 0.35), (24, 1.28, 1.12, 0.55)):
        wander = np.stack([_smooth(rng, count) for _ in range(7)], 1)
        steps = 1 + 0.35 * rng.uniform(-1, 1, count)
        angle = start + 2 * np.pi * np.cumsum(steps) / steps.sum()
        for turn, w in zip(angle, wander, strict=True):
            reach = radius + 0.16 * w[0]
            eye = np.array([1.12 * reach * np.cos(turn), 0.95 * reach * np.sin(turn), height + 0.16 * w[1]])
            target = np.array([0.12 * w[2], 0.10 * w[3], 0.80 + 0.07 * w[4]]) + 0.10 * np.array([eye[0], eye[1], 0])
            views.append(look_at(eye, target, roll_deg=2.5 * w[5]))
    for eye, target in CLOSE_UPS:
        views.append(look_at(np.asarray(eye), np.asarray(target), roll_deg=float(rng.normal(0, 2.5))))
    return views


def _smooth(rng: np.random.Generator, count: int) -> np.ndarray:  # [count]
    """A wandering value of unit size: slow drift plus a little tremor."""
    drift = np.convolve(rng.normal(size=count + 4), np.ones(5) / 5, "valid") * np.sqrt(5)
    return np.clip(0.85 * drift + 0.35 * rng.normal(size=count), -1.6, 1.6)


def look_at(eye: np.ndarray, target: np.ndarray, *, roll_deg: float) -> np.ndarray:  # [4,4]
    """``camera_from_world`` of a camera at ``eye`` looking at ``target``, rolled about its axis."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(np.radians(roll_deg)), np.sin(np.radians(roll_deg))
    rotation = np.stack([c * right + s * down, c * down - s * right, forward])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, -rotation @ eye
    return pose
