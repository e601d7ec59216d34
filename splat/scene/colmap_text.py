"""COLMAP's text model files: cameras.txt, images.txt, points3D.txt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from splat.geometry.lens import LENS_MODELS, Lens
from splat.scene.colmap_records import ColmapImage, ColmapPoints, checked_lens, checked_name
from splat.scene.types import SceneError


def read_cameras(path: Path) -> dict[int, Lens]:
    cameras = {}
    for number, line in _records(path):
        parts = line.split()
        try:
            camera_id, name, width, height = int(parts[0]), parts[1], int(parts[2]), int(parts[3])
            params = tuple(float(part) for part in parts[4:])
        except (ValueError, IndexError):
            raise _bad_line(path, number, line, "CAMERA_ID MODEL WIDTH HEIGHT PARAMS...") from None
        if name not in LENS_MODELS:
            raise SceneError(f"{path}: line {number} names the model {name!r}; known are {', '.join(LENS_MODELS)}")
        cameras[camera_id] = checked_lens(path, camera_id, Lens(name, params, width, height))
    return cameras


def read_images(path: Path) -> list[ColmapImage]:
    """Two lines per image; the second holds the observations, may be empty, and is skipped."""
    images = []
    for number, line in _records(path, skip_after_each=1):
        parts = line.split(maxsplit=9)
        try:
            pose = [float(part) for part in parts[1:8]]
            int(parts[0])
            camera_id, name = int(parts[8]), parts[9].strip()
        except (ValueError, IndexError):
            raise _bad_line(path, number, line, "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME") from None
        images.append(ColmapImage(checked_name(path, name), camera_id, tuple(pose[:4]), tuple(pose[4:])))  # type: ignore[arg-type]
    return images


def read_points(path: Path) -> ColmapPoints:
    expected = "POINT3D_ID X Y Z R G B ERROR TRACK..."
    rows, numbers = [], []
    for number, line in _records(path):
        parts = line.split(maxsplit=8)[1:8]
        if len(parts) < 7:
            raise _bad_line(path, number, line, expected)
        rows.append(parts)
        numbers.append(number)
    if not rows:
        return ColmapPoints(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), np.zeros(0))
    try:
        values = np.array(rows, dtype=np.str_).astype(np.float64)
    except ValueError:
        number, row = next((n, row) for n, row in zip(numbers, rows, strict=True) if not _are_numbers(row))
        raise _bad_line(path, number, " ".join(row), expected) from None
    colors = values[:, 3:6]
    if not ((colors >= 0) & (colors <= 255)).all():
        worst = int(np.flatnonzero(~((colors >= 0) & (colors <= 255)).all(axis=1))[0])
        raise SceneError(f"{path}: line {numbers[worst]} has colour {rows[worst][3:6]}; expected 0 to 255")
    return ColmapPoints(values[:, :3], colors.astype(np.uint8), values[:, 6])


def count_images(path: Path) -> int:
    return sum(1 for _ in _records(path, skip_after_each=1))


def _records(path: Path, *, skip_after_each: int = 0) -> Iterator[tuple[int, str]]:
    """Numbered lines that are neither empty nor a comment, leaving out as many lines after each as asked."""
    try:
        with path.open(encoding="utf-8") as file:
            skip = 0
            for number, line in enumerate(file, start=1):
                if skip:
                    skip -= 1
                elif line.strip() and not line.startswith("#"):
                    yield number, line.strip()
                    skip = skip_after_each
    except OSError as error:
        raise SceneError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise SceneError(f"{path}: is not UTF-8 text near byte {error.start:,}; the file is damaged") from None


def _bad_line(path: Path, number: int, line: str, expected: str) -> SceneError:
    return SceneError(f"{path}: line {number} is {line[:60]!a}; expected {expected}")


def _are_numbers(parts: list[str]) -> bool:
    try:
        np.array(parts, dtype=np.str_).astype(np.float64)
    except ValueError:
        return False
    return True
