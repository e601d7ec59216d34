"""Frames of a video for structure from motion: the sharpest of each stretch of time."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from splat.scene.types import SceneError

SHARPNESS_LONGEST_PX = 640  # sharpness is judged at this size: sensor noise is averaged out, motion blur is not
FRAMES_PER_SECOND = 3.0  # of a walk around an object; closer frames add matching time and no baseline
FEWEST_FRAMES, MOST_FRAMES = 30, 200
_JPEG_QUALITY = 95


def sharpness(picture: np.ndarray) -> float:  # [H,W,3] or [H,W] uint8
    """Variance of the Laplacian (Pech-Pacheco et al. 2000): falls when edges are smeared."""
    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    shrink = SHARPNESS_LONGEST_PX / max(grey.shape)
    if shrink < 1.0:
        grey = cv2.resize(grey, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


def extract_sharpest(video: Path, folder: Path, *, max_frames: int | None = None) -> list[str]:
    """Cut the video into equal stretches and write the sharpest frame of each as ``frame_<index>.jpg``.

    ``max_frames`` None takes three stretches a second, at least 30 and at most 200. Returns the names.
    """
    total, rate = _length(video)
    wanted = max_frames or int(np.clip(FRAMES_PER_SECOND * total / rate, FEWEST_FRAMES, MOST_FRAMES))
    wanted = min(wanted, total)
    folder.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    capture = _opened(video)
    best: tuple[float, int, np.ndarray] | None = None
    stretch = 0
    try:
        for index in range(total):
            ok, picture = capture.read()
            if not ok:
                break
            if index * wanted // total != stretch:
                names += _write(folder, best)
                best, stretch = None, index * wanted // total
            score = sharpness(picture)
            if best is None or score > best[0]:
                best = (score, index, picture)
        names += _write(folder, best)
    finally:
        capture.release()
    if not names:
        raise SceneError(f"{video}: no frame could be decoded; the file is damaged or its codec is unknown")
    return names


def _opened(video: Path) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(str(video))
    if not capture.isOpened():
        raise SceneError(f"{video}: cannot be opened as a video; the file is damaged or its codec is unknown")
    return capture


def _length(video: Path) -> tuple[int, float]:
    """Frames that can be read, counted since containers often lie, and frames per second."""
    capture = _opened(video)
    rate = capture.get(cv2.CAP_PROP_FPS)
    total = 0
    while capture.grab():
        total += 1
    capture.release()
    if total == 0:
        raise SceneError(f"{video}: no frame could be decoded; the file is damaged or its codec is unknown")
    return total, rate if np.isfinite(rate) and rate > 0 else 30.0


def _write(folder: Path, best: tuple[float, int, np.ndarray] | None) -> list[str]:
    if best is None:
        return []
    name = f"frame_{best[1]:06d}.jpg"
    ok, data = cv2.imencode(".jpg", best[2], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not ok:
        raise SceneError(f"{folder / name}: the frame cannot be encoded as JPEG")
    try:
        (folder / name).write_bytes(data.tobytes())
    except OSError as error:
        raise SceneError(f"{folder / name}: cannot be written ({error.strerror or error})") from None
    return [name]
