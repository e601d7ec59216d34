"""COLMAP's binary model files: cameras.bin, images.bin, points3D.bin (little-endian, no padding)."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from splat.geometry.lens import LENS_MODELS, LENS_NAMES_BY_ID, Lens
from splat.scene.colmap_records import ColmapImage, ColmapPoints, checked_lens, checked_name
from splat.scene.types import SceneError

_COUNT = struct.Struct("<Q")
_CAMERA = struct.Struct("<iiQQ")  # id, model, width, height; then the parameters
_IMAGE = struct.Struct("<i7di")  # id, qvec, tvec, camera id; then the name and the 2D points
_POINT2D_BYTES = 24  # x, y as doubles and the id of the 3D point
_CAMERA_LEAST, _IMAGE_LEAST = _CAMERA.size + 2 * 8, _IMAGE.size + 1 + 8
_POINT = np.dtype([("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("track", "<u8")])
_TRACK_AT = _POINT.fields["track"][1]  # type: ignore[index]
_TRACK_BYTES = 8  # image id and index of the observation
_CHUNK = 1 << 16  # points gathered at a time: keeps the index array small


class _Reader:
    """Walks a file's bytes and turns every step past the end into one readable error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.data = path.read_bytes()
        except OSError as error:
            raise SceneError(f"{path}: cannot be read ({error.strerror or error})") from None
        self.offset = 0

    def take(self, layout: struct.Struct, what: str) -> tuple:
        self.need(layout.size, what)
        values = layout.unpack_from(self.data, self.offset)
        self.offset += layout.size
        return values

    def need(self, size: int, what: str) -> None:
        left = len(self.data) - self.offset
        if size > left:
            raise SceneError(
                f"{self.path}: ends in the middle of {what} (byte {self.offset:,} of {len(self.data):,}, "
                f"{size:,} more expected); the file is cut short or damaged"
            )

    def count(self, noun: str, least_bytes: int) -> int:
        (count,) = self.take(_COUNT, f"the number of {noun}")
        left = len(self.data) - self.offset
        if count * least_bytes > left:
            raise SceneError(
                f"{self.path}: announces {count:,} {noun} but holds {left:,} bytes, "
                f"less than the {least_bytes} each needs; the file is cut short or damaged"
            )
        return count

    def text(self, what: str) -> str:
        end = self.data.find(b"\0", self.offset)
        if end < 0:
            self.need(len(self.data) + 1, what)
        raw, self.offset = self.data[self.offset : end], end + 1
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise SceneError(f"{self.path}: {what} is not UTF-8 text: {raw[:60]!a}") from None


def read_cameras(path: Path) -> dict[int, Lens]:
    reader = _Reader(path)
    cameras: dict[int, Lens] = {}
    total = reader.count("cameras", _CAMERA_LEAST)
    for index in range(total):
        what = f"camera {index + 1} of {total}"
        camera_id, model_id, width, height = reader.take(_CAMERA, what)
        if model_id not in LENS_NAMES_BY_ID:
            known = ", ".join(f"{number} {name}" for number, name in sorted(LENS_NAMES_BY_ID.items()))
            raise SceneError(f"{path}: camera {camera_id} has model id {model_id}; known are {known}")
        name = LENS_NAMES_BY_ID[model_id]
        params = reader.take(struct.Struct(f"<{len(LENS_MODELS[name].params)}d"), what)
        cameras[camera_id] = checked_lens(path, camera_id, Lens(name, params, width, height))
    return cameras


def read_images(path: Path) -> list[ColmapImage]:
    reader = _Reader(path)
    images = []
    total = reader.count("images", _IMAGE_LEAST)
    for index in range(total):
        what = f"image {index + 1} of {total}"
        _, *pose, camera_id = reader.take(_IMAGE, what)
        name = checked_name(path, reader.text(f"the name of {what}"))
        (observations,) = reader.take(_COUNT, what)
        reader.need(observations * _POINT2D_BYTES, f"the {observations:,} observations of {what}")
        reader.offset += observations * _POINT2D_BYTES
        images.append(ColmapImage(name, camera_id, tuple(pose[:4]), tuple(pose[4:])))  # type: ignore[arg-type]
    return images


def read_points(path: Path) -> ColmapPoints:
    """All points at once: one pass finds where each record starts, numpy gathers the fields."""
    reader = _Reader(path)
    total = reader.count("points", _POINT.itemsize)
    starts = np.empty(total, dtype=np.int64)
    data, end, offset = reader.data, len(reader.data), reader.offset
    for index in range(total):
        starts[index] = offset
        track_at = offset + _TRACK_AT
        after = track_at + 8
        offset = after + _TRACK_BYTES * int.from_bytes(data[track_at:after], "little")
        if offset > end:
            raise SceneError(f"{path}: ends in the middle of point {index + 1:,} of {total:,}; cut short or damaged")
    raw = np.frombuffer(data, dtype=np.uint8)
    records = np.empty(total, dtype=_POINT)
    record_bytes = records.view(np.uint8).reshape(total, _POINT.itemsize)
    span = np.arange(_POINT.itemsize)
    for first in range(0, total, _CHUNK):
        record_bytes[first : first + _CHUNK] = raw[starts[first : first + _CHUNK, None] + span]
    return ColmapPoints(records["xyz"].copy(), records["rgb"].copy(), records["error"].copy())


def count_images(path: Path) -> int:
    """The number of registered images that the header announces."""
    try:
        with path.open("rb") as file:
            head = file.read(_COUNT.size)
    except OSError as error:
        raise SceneError(f"{path}: cannot be read ({error.strerror or error})") from None
    return _COUNT.unpack(head)[0] if len(head) == _COUNT.size else 0
