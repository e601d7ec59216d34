"""nerfstudio and instant-ngp ``transforms.json``, and Blender's ``transforms_train/test.json``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from splat.geometry.camera import invert_rigid
from splat.geometry.lens import Lens
from splat.scene.capture import Capture, View, counted, plural
from splat.scene.colmap_records import checked_lens, checked_name
from splat.scene.point_ply import read_point_ply
from splat.scene.types import PointCloud, SceneError

TRANSFORMS_FILE = "transforms.json"
BLENDER_FILES = {"train": "transforms_train.json", "test": "transforms_test.json"}
POINT_FILES = ("sparse_pc.ply", "points3d.ply", "points3D.ply")
"""Point files looked for when the JSON names none."""
_OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])  # camera axes: y up and z back, to y down and z ahead
_WHITE = (1.0, 1.0, 1.0)
_LISTS = {"train_filenames": "train", "test_filenames": "test", "val_filenames": "test"}


def load_transforms(path: Path) -> Capture:
    """One JSON file with all views."""
    content = _read_json(path)
    root = path.parent
    base = _image_base(path, content)
    warnings: list[str] = []
    views = _views(path, content, warnings, name_of=lambda file: _relative(file, base), stated=_stated(content))
    points = _points(path, root, content, warnings)
    return Capture("transforms", root, path, views, points, (base,) if base else (".",), warnings=tuple(warnings))


def load_blender(root: Path) -> Capture:
    """The synthetic scenes of NeRF: a file per split, one angle of view, transparent pictures on white."""
    warnings: list[str] = []
    views: list[View] = []
    points = None
    with_test = (root / BLENDER_FILES["test"]).is_file()
    for split, file_name in BLENDER_FILES.items():
        path = root / file_name
        if not path.is_file():
            warnings.append(f"{path} does not exist; views are held out by name instead.")
            continue
        content = _read_json(path)
        stated = split if with_test else None
        views += _views(path, content, warnings, name_of=partial(_relative, base=""), stated=lambda _, s=stated: s)
        points = points or _points(path, root, content, warnings)
    train = root / BLENDER_FILES["train"]
    return Capture("blender", root, train, tuple(views), points, (".",), background=_WHITE, warnings=tuple(warnings))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise SceneError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise SceneError(f"{path}: is not valid JSON ({error})") from None
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise SceneError(f"{path}: has no list of frames; expected the layout of nerfstudio or instant-ngp")
    if not frames:
        raise SceneError(f"{path}: its list of frames is empty")
    for index, frame in enumerate(frames):
        if not isinstance(frame.get("file_path"), str) or not frame["file_path"]:
            raise SceneError(f"{path}: frame {index} has no file_path")
    return content


def _views(
    path: Path,
    content: dict[str, Any],
    warnings: list[str],
    *,
    name_of: Callable[[str], str],
    stated: Callable[[str], str | None],
) -> tuple[View, ...]:
    views: dict[str, View] = {}
    unposed, doubled = [], []
    for frame in content["frames"]:
        name = checked_name(path, name_of(frame["file_path"]))
        pose = _camera_from_world(path, name, frame.get("transform_matrix"))
        if pose is None:
            unposed.append(name)
            continue
        if name in views:
            doubled.append(name)
            continue
        mask = frame.get("mask_path")
        time = frame.get("time")
        lens_of_size = partial(_lens, path, name, {**_without_frames(content), **frame})
        size = [_number(path, name, {**content, **frame}, key) for key in ("w", "h")]
        lens = lens_of_size(int(size[0]), int(size[1])) if size[0] and size[1] else None
        views[name] = View(
            name,
            pose,
            lens,
            lens_of_size=None if lens else lens_of_size,
            mask_path=path.parent / mask if isinstance(mask, str) else None,
            time=float(time) if isinstance(time, (int, float)) else None,
            split=stated(frame["file_path"]),
        )
    if unposed:
        warnings.append(f"{plural(len(unposed), 'frame')} skipped, pose is not a finite rotation: {counted(unposed)}.")
    if doubled:
        warnings.append(f"{plural(len(doubled), 'frame')} skipped, file_path occurs twice: {counted(doubled)}.")
    if not views:
        raise SceneError(f"{path}: none of its {plural(len(unposed), 'frame')} has a usable pose")
    return tuple(views.values())


def _without_frames(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != "frames"}


def _camera_from_world(path: Path, name: str, matrix: object) -> np.ndarray | None:  # [4,4]
    """OpenCV world to camera from an OpenGL camera to world; None when it is no rigid pose."""
    try:
        world_from_gl = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        world_from_gl = np.zeros(0)
    if world_from_gl.shape not in ((4, 4), (3, 4)):
        raise SceneError(f"{path}: frame {name} has no 4x4 transform_matrix")
    if not np.isfinite(world_from_gl).all():
        return None
    pose = np.eye(4)
    pose[:3] = world_from_gl[:3]
    # The nearest rotation: files round their numbers, and some carry a scale.
    left, stretch, right = np.linalg.svd(pose[:3, :3])
    if not stretch[2] > 0.9 * stretch[0] or np.linalg.det(left @ right) < 0:
        return None
    pose[:3, :3] = left @ right
    return invert_rigid(pose @ _OPENCV_FROM_OPENGL)


def _number(path: Path, name: str, values: Mapping[str, Any], key: str) -> float | None:
    value = values.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise SceneError(f"{path}: {key} of {name} is {ascii(value)[:40]}; expected a finite number")
    return float(value)


def _lens(path: Path, name: str, values: Mapping[str, Any], width: int, height: int) -> Lens:
    """The lens of one frame, its own numbers before those of the file."""
    number = partial(_number, path, name, values)
    fx, fy = number("fl_x"), number("fl_y")
    angle_x, angle_y = number("camera_angle_x"), number("camera_angle_y")
    if fx is None and angle_x is not None and 0 < angle_x < math.pi:
        fx = 0.5 * width / math.tan(0.5 * angle_x)
    if fy is None and angle_y is not None and 0 < angle_y < math.pi and number("fl_x") is None:
        fy = 0.5 * height / math.tan(0.5 * angle_y)
    model = _model_name(path, name, values)
    if model == "EQUIRECTANGULAR":
        return checked_lens(path, 0, Lens(model, (float(width), float(height)), width, height))
    if fx is None and fy is None:
        raise SceneError(f"{path}: frame {name} has no focal length; expected fl_x or camera_angle_x")
    fx, fy = fx or fy, fy or fx
    cx, cy = number("cx"), number("cy")
    head = (fx, fy, 0.5 * width if cx is None else cx, 0.5 * height if cy is None else cy)
    k1, k2, k3, k4, p1, p2 = (number(key) or 0.0 for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    tails = {
        "PINHOLE": (),
        "OPENCV": (k1, k2, p1, p2),
        "FULL_OPENCV": (k1, k2, p1, p2, k3, 0.0, 0.0, 0.0),
        "OPENCV_FISHEYE": (k1, k2, k3, k4),
    }
    if model == "OPENCV" and k3:
        model = "FULL_OPENCV"
    if model == "OPENCV" and not any(tails[model]):
        model = "PINHOLE"
    return checked_lens(path, 0, Lens(model, (*head, *tails[model]), width, height))


def _model_name(path: Path, name: str, values: Mapping[str, Any]) -> str:
    """One of PINHOLE, OPENCV, OPENCV_FISHEYE, EQUIRECTANGULAR."""
    if values.get("is_fisheye") is True:
        return "OPENCV_FISHEYE"
    stated = values.get("camera_model", "OPENCV")
    known = {
        "OPENCV": "OPENCV",
        "PERSPECTIVE": "OPENCV",
        "SIMPLE_RADIAL": "OPENCV",
        "RADIAL": "OPENCV",
        "PINHOLE": "PINHOLE",
        "SIMPLE_PINHOLE": "PINHOLE",
        "OPENCV_FISHEYE": "OPENCV_FISHEYE",
        "EQUIRECTANGULAR": "EQUIRECTANGULAR",
    }
    if not isinstance(stated, str) or stated not in known:
        raise SceneError(f"{path}: camera_model of {name} is {ascii(stated)[:40]}; known are {', '.join(known)}")
    return known[stated]


def _image_base(path: Path, content: dict[str, Any]) -> str:
    """The folder that all images share, one level deep, so that names and ``images_N`` work as for COLMAP."""
    folders = [os.path.dirname(_clean(frame["file_path"])) for frame in content["frames"]]
    try:
        shared = PurePosixPath(os.path.commonpath(folders)) if all(folders) else PurePosixPath("")
    except ValueError:  # some absolute, some not
        return ""
    if shared.is_absolute():
        inside = Path(shared)
        return str(inside.relative_to(path.parent)) if inside.is_relative_to(path.parent) else str(inside)
    ups = sum(part == ".." for part in shared.parts)
    return "/".join(shared.parts[: ups + 1])


def _clean(file_path: str) -> str:
    return os.path.normpath(file_path.replace("\\", "/")).replace("\\", "/")


def _relative(file_path: str, base: str) -> str:
    cleaned = PurePosixPath(_clean(file_path))
    return str(cleaned.relative_to(base)) if base and cleaned.is_relative_to(base) else str(cleaned)


def _stated(content: dict[str, Any]) -> Callable[[str], str | None]:
    """nerfstudio's lists of file names per split, when there are any."""
    split_of = {}
    for key, split in _LISTS.items():
        names = content.get(key)
        if isinstance(names, list):
            split_of.update({_clean(name): split for name in names if isinstance(name, str)})
    return lambda file_path: split_of.get(_clean(file_path))


def _points(path: Path, root: Path, content: dict[str, Any], warnings: list[str]) -> PointCloud | None:
    named = content.get("ply_file_path")
    if isinstance(named, str):
        if os.path.isfile(root / named):
            return read_point_ply(root / named, warnings)
        warnings.append(f"{path} names the points {ascii(named)[1:-1]}, which do not exist.")
    found = next((root / name for name in POINT_FILES if (root / name).is_file()), None)
    return read_point_ply(found, warnings) if found else None
