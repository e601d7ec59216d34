"""Depth and normals believed about each training view: from files beside the images, from the capture's own points,
or from a network in a local file. Each is fitted to the points first, view by view (specs: densifiers 2.2, R3).

Files: ``disparity/`` (affine in inverse depth), ``depth/`` or ``depths/`` (affine in depth along the camera's z), and
``normals/`` (camera axes), under the names of the images: 16-bit (or 8-bit) PNG, where 0 is unknown, or ``.npy``.
Normals in a PNG are colours from -1 to 1. A network is TorchScript: ``[1,3,h,w]`` RGB in 0..1 to one value per pixel;
it is loaded from where it lies and never fetched.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from splat.geometry.camera import Camera
from splat.scene.depth_align import (
    FEWEST_INLIERS,
    Alignment,
    DepthKind,
    align,
    aligned_depth,
    densified,
    normals_of,
    visible_points,
)
from splat.scene.depth_options import DepthOptions
from splat.scene.images import undistortion_map
from splat.scene.types import Frame, Scene, SceneError

LONGEST_PX = 512
"""Maps are kept at this size at most: the prior answers for surfaces, not for hairs."""
_POINTS_LONGEST_PX = 192  # points are a few pixels apart at this size, whatever the photographs'
_FOLDERS: tuple[tuple[str, DepthKind], ...] = (("disparity", "disparity"), ("depth", "depth"), ("depths", "depth"))
_SCALE_RANGE = (0.2, 5.0)  # of the median scale over the views: beyond it a fit went wrong
_PATCH_PX = 14  # sides of a network's picture are multiples of this, as vision transformers want
_KEPT_BYTES = 256 << 20  # of made priors; the others are made again when asked for
_ASPECT_TOLERANCE = 0.02


@dataclass(frozen=True, eq=False)
class DepthPrior:
    """What is believed about one view."""

    depth: np.ndarray  # [h,w] float32 world units along the camera's z; 0 = unknown
    normals: np.ndarray  # [h,w,3] float32, world frame, towards the camera
    valid: np.ndarray  # [h,w] bool: both are known
    reliability: float
    """Share of the capture's points that agree with it."""
    error: float = float("inf")
    """Median relative difference from those points; infinite where it was made from nothing else."""


@dataclass(frozen=True, eq=False)
class DepthMap:
    """One view's map before it is fitted to the points."""

    values: np.ndarray  # [h,w]; NaN = unknown
    kind: DepthKind
    normals: np.ndarray | None = None  # [h,w,3] camera axes


class DepthSource:
    """Priors by place among the training views. The fits of all views are made at the first question: a view's
    reliability depends on the others', and must not depend on which was asked for first."""

    def __init__(
        self, cameras: Sequence[Camera], xyz: np.ndarray, read: Callable[[int], DepthMap | None] | None
    ) -> None:
        """``read(view)`` gives a view's map, at the size ``map_camera`` has; None = a map is made from the points."""
        self._cameras, self._xyz, self._read = tuple(cameras), xyz, read
        self._fits: dict[int, Alignment] | None = None
        self._kept: OrderedDict[int, DepthPrior | None] = OrderedDict()

    def prior(self, view: int) -> DepthPrior | None:
        """None for a view without a map, or whose map does not fit the points."""
        if view in self._kept:
            self._kept.move_to_end(view)
            return self._kept[view]
        made = self._from_points(view) if self._read is None else self._from_map(view, self._read)
        self._kept[view] = made
        while len(self._kept) > 1 and sum(_bytes(prior) for prior in self._kept.values()) > _KEPT_BYTES:
            self._kept.popitem(last=False)
        return made

    def fits(self) -> dict[int, Alignment]:
        """The sound fits by view; those whose scale is far from the others' are left out."""
        if self._fits is None:
            found = {view: self._fit(view) for view in range(len(self._cameras))} if self._read else {}
            sound = {view: fit for view, fit in found.items() if fit is not None and fit.is_sound}
            middle = float(np.median([fit.a for fit in sound.values()])) if sound else 1.0
            low, high = (bound * middle for bound in _SCALE_RANGE)
            self._fits = {view: fit for view, fit in sound.items() if low <= fit.a <= high}
        return self._fits

    def _fit(self, view: int) -> Alignment | None:
        depth_map = self._read(view) if self._read is not None else None
        if depth_map is None:
            return None
        height, width = depth_map.values.shape
        pixels, depths = visible_points(self._xyz, self._cameras[view].resized(width, height))
        columns, rows = pixels[:, 0].astype(np.int64), pixels[:, 1].astype(np.int64)
        return align(depth_map.values[rows, columns], depths, depth_map.kind)

    def _from_map(self, view: int, read: Callable[[int], DepthMap | None]) -> DepthPrior | None:
        fit = self.fits().get(view)
        depth_map = read(view) if fit is not None else None
        if fit is None or depth_map is None:
            return None
        depth = aligned_depth(depth_map.values, depth_map.kind, fit)
        camera = self._cameras[view].resized(depth.shape[1], depth.shape[0])
        normals, valid = normals_of(depth, camera)
        if depth_map.normals is not None:
            normals = _world_normals(depth_map.normals, camera, normals, valid)
            valid = (depth > 0) & (np.abs(normals).sum(axis=2) > 0)
        return DepthPrior(depth, normals, valid, fit.ratio, fit.error)

    def _from_points(self, view: int) -> DepthPrior | None:
        camera = map_camera(self._cameras[view], _POINTS_LONGEST_PX)
        pixels, depths = visible_points(self._xyz, camera)
        if len(depths) < FEWEST_INLIERS:
            return None
        depth = densified(pixels, depths, camera.width, camera.height)
        normals, valid = normals_of(depth, camera)
        there = depth[pixels[:, 1].astype(np.int64), pixels[:, 0].astype(np.int64)]
        agree, known = int((np.abs(there / depths - 1) <= 0.1).sum()), int((there > 0).sum())
        return DepthPrior(depth, normals, valid, agree / known) if agree >= FEWEST_INLIERS else None


def _bytes(prior: DepthPrior | None) -> int:
    return 0 if prior is None else prior.depth.nbytes + prior.normals.nbytes + prior.valid.nbytes


def open_depth_source(
    scene: Scene, options: DepthOptions, frame: Callable[[int], Frame]
) -> DepthSource | None:  # fmt: skip
    """The source that ``options`` ask for; ``frame(view)`` gives the pixels of a training view (for a network).

    None for ``none``, and for ``auto`` where the capture has neither files nor points of its own. Raises SceneError
    when a source asked for by name is not there.
    """
    source, cameras = options.source, scene.train_cameras
    folder = _depth_folder(scene.root, options) if source in ("auto", "files") else None
    has_points = scene.points.source != "random"
    if source == "none" or (source == "auto" and not has_points):
        return None
    if not has_points:
        raise SceneError(f"depth source '{source}': {scene.root} has no points of its own, and depth is fitted to them")
    if source == "network":
        if options.network is None:
            raise SceneError("depth source 'network' needs the path of a TorchScript file (depth network)")
        network = _Network(options.network, options.values)
        return DepthSource(cameras, scene.points.xyz, lambda view: network.map_of(cameras[view], frame(view).pixels))
    if folder is not None:
        files = _Files(scene.root, *folder)
        return DepthSource(cameras, scene.points.xyz, lambda view: files.map_of(cameras[view]))
    if source == "files":
        names = ", ".join(name for name, _ in _FOLDERS)
        raise SceneError(
            f"depth source 'files': {scene.root} has none of the folders {names}; name one, or use 'points'"
        )
    return DepthSource(cameras, scene.points.xyz, None)


def map_camera(camera: Camera, longest_px: int = LONGEST_PX) -> Camera:
    """The camera at the size its map is kept at."""
    factor = min(1.0, longest_px / max(camera.width, camera.height))
    return camera.resized(max(1, round(camera.width * factor)), max(1, round(camera.height * factor)))


def _depth_folder(root: Path, options: DepthOptions) -> tuple[Path, DepthKind] | None:
    if options.folder is not None:
        if not (root / options.folder).is_dir():
            raise SceneError(f"depth folder {root / options.folder} does not exist")
        return root / options.folder, dict(_FOLDERS).get(Path(options.folder).name, options.values)
    return next(((root / name, kind) for name, kind in _FOLDERS if (root / name).is_dir()), None)


@dataclass(frozen=True)
class _Files:
    """Maps and normals in folders beside the images."""

    root: Path
    folder: Path
    kind: DepthKind

    def map_of(self, camera: Camera) -> DepthMap | None:
        path = _file_of(self.folder, camera.name)
        if path is None:
            return None
        values = _values(path)
        if values.ndim != 2:
            raise SceneError(f"{path}: has shape {values.shape}; a depth map has one value per pixel")
        normals_path = _file_of(self.root / "normals", camera.name)
        normals = None
        if normals_path is not None:
            normals = _values(normals_path, normals=True)
            if normals.ndim != 3 or normals.shape[2] != 3:
                raise SceneError(f"{normals_path}: has shape {normals.shape}; normals have three values per pixel")
            normals = _at_map_size(normals, camera, normals_path)
        return DepthMap(_at_map_size(values, camera, path), self.kind, normals)


def _file_of(folder: Path, name: str) -> Path | None:
    stem = Path(name).with_suffix("").as_posix()
    candidates = (folder / f"{spelled}{suffix}" for spelled in (stem, name) for suffix in (".npy", ".png"))
    return next((path for path in candidates if path.is_file()), None)


def _values(path: Path, *, normals: bool = False) -> np.ndarray:
    """[h,w] with NaN where unknown, or [h,w,3] normals."""
    if path.suffix == ".npy":
        try:
            values = np.load(path, allow_pickle=False).astype(np.float32)
        except (OSError, ValueError, TypeError) as error:
            raise SceneError(f"{path}: cannot be read as an array of numbers ({error})") from error
        values = values.squeeze() if not normals else values
        return values if normals else np.where(np.isfinite(values) & (values > 0), values, np.nan)
    data = np.fromfile(path, dtype=np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if picture is None:
        raise SceneError(f"{path}: cannot be decoded as a PNG")
    top = np.float32(np.iinfo(picture.dtype).max)
    if normals:
        return picture[..., 2::-1].astype(np.float32) / top * 2 - 1 if picture.ndim == 3 else picture
    return np.where(picture > 0, picture.astype(np.float32) / top, np.nan)


def _at_map_size(values: np.ndarray, camera: Camera, path: Path) -> np.ndarray:
    """The file's values at the pixels of the kept map, straightened where the photographs are. Never interpolated:
    between two surfaces there is none."""
    target = map_camera(camera)
    height, width = values.shape[:2]
    whole = (camera.width, camera.height) if camera.lens is None else (camera.lens.width, camera.lens.height)
    if abs(width * whole[1] / (height * whole[0]) - 1) > _ASPECT_TOLERANCE + 1 / min(width, height):
        raise SceneError(f"{path}: is {width}x{height}; the picture of its view is {whole[0]}x{whole[1]}")
    if camera.lens is not None:
        positions, seen = undistortion_map(camera.lens, target.K, target.width, target.height, (width, height))
        found = cv2.remap(values, positions, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
        found[seen == 0] = np.nan
        return found
    columns = ((np.arange(target.width) + 0.5) * (width / target.width)).astype(np.int64)
    rows = ((np.arange(target.height) + 0.5) * (height / target.height)).astype(np.int64)
    return values[rows[:, None], columns]


def _world_normals(normals: np.ndarray, camera: Camera, from_depth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Camera normals in the world, towards the camera; 0 where unknown. Files differ in their axes (y down and z
    ahead, or y up and z back): the ones that agree with the depth are taken."""
    length = np.linalg.norm(normals, axis=2, keepdims=True)
    known = np.isfinite(length) & (length > 1e-6)
    unit = np.where(known, normals / np.where(known, length, 1.0), 0.0)
    rotation = camera.camera_from_world[:3, :3]
    turned = [(unit * axes) @ rotation for axes in (np.array([1.0, 1, 1]), np.array([1.0, -1, -1]))]
    agreement = [np.abs((found * from_depth).sum(axis=2))[valid].sum() for found in turned]
    world = turned[int(agreement[1] > agreement[0])]
    v, u = np.mgrid[: normals.shape[0], : normals.shape[1]] + 0.5
    rays = np.stack([(u - camera.K[0, 2]) / camera.K[0, 0], (v - camera.K[1, 2]) / camera.K[1, 1], np.ones_like(u)], 2)
    away = ((rays @ rotation) * world).sum(axis=2, keepdims=True) > 0
    return np.where(away, -world, world).astype(np.float32)


class _Network:
    """A TorchScript file, loaded at the first picture."""

    def __init__(self, path: Path, kind: DepthKind) -> None:
        if not path.is_file():
            raise SceneError(f"depth network {path} does not exist; give the path of a TorchScript file")
        self._path, self._kind = path, kind
        self._module: Any = None

    def map_of(self, camera: Camera, pixels: np.ndarray) -> DepthMap:
        import torch

        if self._module is None:
            try:
                self._module = torch.jit.load(str(self._path), map_location="cpu").eval()
            except RuntimeError as error:
                raise SceneError(f"depth network {self._path}: is no TorchScript file") from error
        target = map_camera(camera)
        size = [max(1, round(side / _PATCH_PX)) * _PATCH_PX for side in (target.width, target.height)]
        picture = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        with torch.no_grad():
            told = self._module(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255)
        values = np.asarray(told, dtype=np.float32).squeeze()
        if values.ndim != 2:
            raise SceneError(f"depth network {self._path}: gave shape {tuple(told.shape)}, not one value per pixel")
        values = cv2.resize(values, (target.width, target.height), interpolation=cv2.INTER_LINEAR)
        return DepthMap(np.where(np.isfinite(values), values, np.nan), self._kind)
