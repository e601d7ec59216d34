"""Writes tiny captures for the tests: COLMAP models in both encodings, images, transforms files."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from splat.geometry.lens import LENS_MODELS, Lens

WIDTH, HEIGHT = 48, 36
PINHOLE = Lens("PINHOLE", (40.0, 41.0, 25.0, 17.0), WIDTH, HEIGHT)


@dataclass
class Model:
    """A COLMAP model to be written."""

    cameras: dict[int, Lens] = field(default_factory=dict)
    images: list[tuple[str, int, np.ndarray, np.ndarray]] = field(default_factory=list)  # name, camera, qvec, tvec
    xyz: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    rgb: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.uint8))


def model_of(names: list[str], lens: Lens = PINHOLE, *, points: int = 30, offset: float = 0.0) -> Model:
    """Cameras on an arc around the origin that look at it, moved away from it by ``offset`` along every axis."""
    rng = np.random.default_rng(3)
    images = []
    for index, name in enumerate(names):
        angle = 2.0 * index / max(1, len(names))
        qvec = np.array([np.cos(angle / 2), 0.0, np.sin(angle / 2), 0.0])
        tvec = np.array([0.05 * index, -0.1, 4.0])
        rotation = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        images.append((name, 1, qvec, tvec - rotation @ np.full(3, offset)))
    xyz = rng.uniform(-1, 1, (points, 3)) + offset
    return Model({1: lens}, images, xyz, rng.integers(0, 256, (points, 3), dtype=np.uint8))


def write_model(model: Model, folder: Path, kind: str = "bin") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    {"bin": _write_binary, "txt": _write_text}[kind](model, folder)


def _write_binary(model: Model, folder: Path) -> None:
    out = struct.pack("<Q", len(model.cameras))
    for key, lens in model.cameras.items():
        out += struct.pack("<iiQQ", key, LENS_MODELS[lens.model].id, lens.width, lens.height)
        out += struct.pack(f"<{len(lens.params)}d", *lens.params)
    (folder / "cameras.bin").write_bytes(out)
    out = struct.pack("<Q", len(model.images))
    for number, (name, camera, qvec, tvec) in enumerate(model.images, start=1):
        out += struct.pack("<i7di", number, *qvec, *tvec, camera) + name.encode() + b"\0"
        out += struct.pack("<Q", number % 3) + struct.pack("<ddq", 1.5, 2.5, -1) * (number % 3)
    (folder / "images.bin").write_bytes(out)
    out = struct.pack("<Q", len(model.xyz))
    for number, (xyz, rgb) in enumerate(zip(model.xyz, model.rgb, strict=True), start=1):
        out += struct.pack("<Q3d3B", number, *xyz, *rgb.tolist()) + struct.pack("<dQ", 0.5, number % 4)
        out += struct.pack("<ii", 1, 2) * (number % 4)
    (folder / "points3D.bin").write_bytes(out)


def _write_text(model: Model, folder: Path) -> None:
    lines = ["# Camera list"]
    for key, lens in model.cameras.items():
        lines.append(" ".join([str(key), lens.model, str(lens.width), str(lens.height), *map(repr, lens.params)]))
    (folder / "cameras.txt").write_text("\n".join(lines) + "\n")
    lines = ["# Image list with two lines of data per image:"]
    for number, (name, camera, qvec, tvec) in enumerate(model.images, start=1):
        pose = " ".join(repr(float(value)) for value in (*qvec, *tvec))
        lines += [f"{number} {pose} {camera} {name}", "1.5 2.5 -1" if number % 2 else ""]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    lines = ["# 3D point list"]
    for number, (xyz, rgb) in enumerate(zip(model.xyz, model.rgb, strict=True), start=1):
        place = " ".join(repr(float(value)) for value in xyz)
        lines.append(f"{number} {place} {rgb[0]} {rgb[1]} {rgb[2]} 0.5 1 2" + " 2 7" * (number % 3))
    (folder / "points3D.txt").write_text("\n".join(lines) + "\n")


def picture(width: int = WIDTH, height: int = HEIGHT, *, seed: int = 0) -> np.ndarray:  # [H,W,3] RGB
    """A smooth colour ramp with a few blocks: survives JPEG, and shows a shift or a flip."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    rgb = np.stack([x, y, 0.5 + 0.4 * np.sin(3 * x + 2 * y + seed)], axis=-1)
    return np.rint(255 * rgb).astype(np.uint8)


def write_image(path: Path, rgb: np.ndarray, alpha: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = rgb[..., ::-1] if alpha is None else np.dstack([rgb[..., ::-1], alpha])
    ok, data = cv2.imencode(path.suffix, np.ascontiguousarray(channels))
    assert ok
    path.write_bytes(data.tobytes())


def write_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ok, data = cv2.imencode(path.suffix, mask)
    assert ok
    path.write_bytes(data.tobytes())


def write_capture(root: Path, names: list[str], lens: Lens = PINHOLE, **kwargs) -> Path:
    """A COLMAP scene with one picture per name."""
    write_model(model_of(names, lens, **kwargs), root / "sparse" / "0")
    for index, name in enumerate(names):
        write_image(root / "images" / name, picture(lens.width, lens.height, seed=index))
    return root


def write_transforms(path: Path, frames: list[dict], **top: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**top, "frames": frames}))
    return path


def gl_pose(index: int) -> list[list[float]]:
    """A camera to world matrix in OpenGL axes: on the z axis, turned a little per index."""
    angle = 0.2 * index
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    pose[:3, 3] = pose[:3, :3] @ [0, 0, 4.0]
    return pose.tolist()
