"""Path tracing of one view, and the tone curve from light to 8-bit sRGB."""

from __future__ import annotations

import numpy as np

from .denoise import denoised, guides
from .path import CENTRE_PX, FOCAL_PX

EXPOSURE = 1.6
"""Linear light that becomes mid-bright; one value for all views, as with a locked exposure."""
GUIDE_SAMPLES = 128


def sensor(mitsuba, camera_from_world: np.ndarray, width: int, height: int, full_width: int):
    """A mitsuba pinhole of our camera; a preview is a smaller ``width`` of the same view."""
    scale = width / full_width
    pose = np.linalg.inv(camera_from_world) @ np.diag([-1.0, -1.0, 1.0, 1.0])  # mitsuba looks along z with x left, y up
    film = {"type": "hdrfilm", "width": width, "height": height, "pixel_format": "rgb", "rfilter": {"type": "box"}}
    camera = mitsuba.load_dict({
        "type": "perspective",
        "to_world": mitsuba.ScalarTransform4f(pose.tolist()),
        "fov": float(np.degrees(2 * np.arctan(width / 2 / (FOCAL_PX * scale)))),
        "fov_axis": "x",
        "principal_point_offset_x": float(0.5 - CENTRE_PX[0] * scale / width),
        "principal_point_offset_y": float(0.5 - CENTRE_PX[1] * scale / height),
        "near_clip": 0.02, "far_clip": 30.0,
        "film": film, "sampler": {"type": "independent"},
    })  # fmt: skip
    _check_pinhole(mitsuba, camera, camera_from_world, width / scale, height / scale)
    return camera


def _check_pinhole(mitsuba, camera, camera_from_world: np.ndarray, width: float, height: float) -> None:
    """The renderer's rays are those of the pinhole we write down, to a thousandth of a pixel."""
    for pixel in ((0.5, 0.5), (width - 0.5, 0.5), (100.25, 300.5)):
        film_point = mitsuba.Point2f(pixel[0] / width, pixel[1] / height)
        ray, _ = camera.sample_ray(0.0, 0.5, film_point, mitsuba.Point2f(0.5, 0.5))
        seen = camera_from_world[:3, :3] @ np.array(ray.d, dtype=float).reshape(3)
        assert np.abs(seen[:2] / seen[2] * FOCAL_PX + CENTRE_PX - pixel).max() < 1e-3


def trace(mitsuba, scene, camera, *, samples: int, passes: int, seed: int) -> np.ndarray:  # [H,W,3] linear
    """The view in linear light. Bright outliers of single passes are clamped, so no firefly survives."""
    each = max(samples // passes, 1)
    stack = np.stack([
        np.array(mitsuba.render(scene, sensor=camera, spp=each, seed=seed * 1000 + number)) for number in range(passes)
    ])  # fmt: skip
    median = np.median(stack, axis=0)
    spread = np.median(np.abs(stack - median), axis=0)
    return np.minimum(stack, median + 4 * spread + 0.02).mean(axis=0)


def picture(mitsuba, scene, camera, *, samples: int, seed: int) -> np.ndarray:  # [H,W,3] uint8
    """The finished picture: traced, denoised, tone-mapped."""
    light = trace(mitsuba, scene, camera, samples=samples, passes=4, seed=seed)
    albedo, normal = guides(mitsuba, scene, camera, samples=GUIDE_SAMPLES, seed=seed)
    return tone_map(denoised(light, albedo, normal))


def tone_map(light: np.ndarray) -> np.ndarray:  # [H,W,3] linear -> uint8
    """Exposure, a soft shoulder above 0.4 that never clips hard, then the sRGB curve (IEC 61966-2-1)."""
    x = np.maximum(light, 0) * EXPOSURE
    knee = 0.4
    over = np.maximum(x - knee, 0) / (1 - knee)
    x = np.minimum(x, knee) + (1 - knee) * over / (1 + over)
    encoded = np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055)
    return (np.clip(encoded, 0, 1) * 255 + 0.5).astype(np.uint8)
