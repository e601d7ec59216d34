"""COLMAP models: which folder holds the best one, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splat.geometry.lens import Lens
from splat.scene import colmap_binary, colmap_text
from splat.scene.capture import Capture, View, counted, plural
from splat.scene.colmap_records import ColmapImage, ColmapPoints
from splat.scene.types import PointCloud, SceneError

MODEL_FOLDERS = ("sparse/*", "sparse", "colmap/sparse/*", "colmap/sparse", ".")
"""Where models are looked for inside a scene, in the order that breaks ties."""
_KINDS = (("bin", colmap_binary), ("txt", colmap_text))


@dataclass(frozen=True, eq=False)
class ColmapModel:
    """One folder of COLMAP files, read. Rigs and frames are not needed: images carry full poses."""

    folder: Path
    cameras: dict[int, Lens]
    images: list[ColmapImage]
    points: ColmapPoints | None


def model_kind(folder: Path) -> str | None:
    """``bin`` or ``txt`` when the folder holds a model, else None."""
    for suffix, _ in _KINDS:
        if (folder / f"cameras.{suffix}").is_file() and (folder / f"images.{suffix}").is_file():
            return suffix
    return None


def find_models(root: Path) -> list[Path]:
    """Every folder of the scene that holds a model."""
    found: list[Path] = []
    for pattern in MODEL_FOLDERS:
        folders = sorted(root.glob(pattern)) if "*" in pattern else [root / pattern]
        found += [folder for folder in folders if model_kind(folder) and folder not in found]
    return found


def registered_images(folder: Path) -> int:
    """How many images a model announces, without reading it."""
    suffix = model_kind(folder)
    reader = dict(_KINDS)[suffix or "bin"]
    return reader.count_images(folder / f"images.{suffix}")


def read_model(folder: Path) -> ColmapModel:
    """All of one model; the binary files win over text files beside them."""
    suffix = model_kind(folder)
    if suffix is None:
        raise SceneError(f"{folder}: holds no COLMAP model; expected cameras.bin and images.bin, or the same as .txt")
    reader = dict(_KINDS)[suffix]
    cameras = reader.read_cameras(folder / f"cameras.{suffix}")
    images = reader.read_images(folder / f"images.{suffix}")
    points = None
    for point_suffix, point_reader in _KINDS:
        path = folder / f"points3D.{point_suffix}"
        if path.is_file() and points is None:
            points = point_reader.read_points(path)
    return ColmapModel(folder, cameras, images, points)


def load_colmap(root: Path, *, model: str | None = None) -> Capture:
    """The capture of the biggest model below ``root``, or of the folder named."""
    warnings: list[str] = []
    if model is not None:
        folder = root / model
    else:
        folders = find_models(root)
        sizes = [registered_images(folder) for folder in folders]
        folder = folders[int(np.argmax(sizes))]
        if len(folders) > 1:
            others = ", ".join(f"{_shown(f, root)} ({n})" for f, n in zip(folders, sizes, strict=True) if f != folder)
            warnings.append(
                f"{len(folders)} COLMAP models found; using {_shown(folder, root)} with "
                f"{plural(max(sizes), 'image')}, not {others}."
            )
    read = read_model(folder)
    if not read.images:
        raise SceneError(f"{folder}: the COLMAP model has no registered images; run the mapper again")
    views = _views(read, warnings)
    return Capture("colmap", root, folder, views, _points(read, warnings), warnings=tuple(warnings))


def _shown(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder)


def _views(model: ColmapModel, warnings: list[str]) -> tuple[View, ...]:
    views: dict[str, View] = {}
    unposed, doubled = [], []
    for image in model.images:
        if image.camera_id not in model.cameras:
            known = counted([str(key) for key in sorted(model.cameras)], limit=8)
            raise SceneError(f"{model.folder}: image {image.name} uses camera {image.camera_id}; there are {known}")
        if not image.has_pose:
            unposed.append(image.name)
        elif image.name in views:
            doubled.append(image.name)
        else:
            views[image.name] = View(image.name, image.camera_from_world, model.cameras[image.camera_id])
    if unposed:
        warnings.append(f"{plural(len(unposed), 'image')} skipped, pose is not finite: {counted(unposed)}.")
    if doubled:
        warnings.append(f"{plural(len(doubled), 'image')} skipped, name occurs twice: {counted(doubled)}.")
    if not views:
        raise SceneError(f"{model.folder}: none of the {len(model.images)} images has a finite pose")
    return tuple(views.values())


def _points(model: ColmapModel, warnings: list[str]) -> PointCloud | None:
    """The points in float64: the caller recentres before it rounds to float32."""
    if model.points is None or not len(model.points.xyz):
        return None
    finite = np.isfinite(model.points.xyz).all(axis=1)
    if not finite.all():
        dropped = plural(int((~finite).sum()), "point")
        warnings.append(f"{dropped} of {len(finite):,} dropped, position is not finite.")
    if not finite.any():
        return None
    return PointCloud(model.points.xyz[finite], model.points.rgb[finite], source="sfm")
