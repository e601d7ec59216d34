"""``open_scene``: any capture on disk becomes a ``Scene``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from splat.geometry.camera import Camera
from splat.scene.capture import Capture, View, counted, plural
from splat.scene.colmap import MODEL_FOLDERS, find_models, load_colmap, model_kind
from splat.scene.image_files import ImageFile, find_images, find_mask, mask_folder
from splat.scene.options import SceneOptions
from splat.scene.pinholes import PinholeMaker
from splat.scene.placement import extent_of, random_points, recentering, subsample
from splat.scene.split import split_views
from splat.scene.transforms import BLENDER_FILES, TRANSFORMS_FILE, load_blender, load_transforms
from splat.scene.types import PointCloud, Scene, SceneError
from splat.scene.unposed import VIDEO_SUFFIXES, is_unposed, pose_unposed, sfm_command


def open_scene(path: str | Path, options: SceneOptions | None = None) -> Scene:
    """Read a COLMAP, nerfstudio / instant-ngp or Blender capture; pose photos or a video first when allowed."""
    path = Path(path).expanduser()
    try:
        return _assembled(path, options or SceneOptions())
    except OSError as error:
        raise SceneError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from None


def _assembled(path: Path, options: SceneOptions) -> Scene:
    capture = _load(path, options)
    images, skipped = find_images(capture, options)
    views = sorted((view for view in capture.views if view.name in images), key=lambda view: view.name)
    notes: list[str] = []
    masks = _masks(capture, options, views, images, notes)
    maker = PinholeMaker(capture, options, notes)
    groups = [maker.cameras_of(view, images[view.name], masks.get(view.name)) for view in views]
    left_out = frozenset(view.name for view in capture.views) - images.keys()
    split = split_views([view.name for view in views], [v.split for v in views], left_out, capture.root, options)
    train, test = (_members(groups, chosen) for chosen in (split.train, split.test))
    cameras = tuple(camera for group in groups for camera in group)
    files = [images[view.name] for view, group in zip(views, groups, strict=True) for _ in group]
    cameras, points, extent, world_from_input = _placed(cameras, train, capture, options, notes)
    return Scene(
        name=capture.root.resolve().name or "scene",
        root=capture.root,
        cameras=cameras,
        points=points,
        train_indices=train,
        test_indices=test,
        extent_world=extent,
        world_from_input=world_from_input,
        warnings=(*capture.warnings, *skipped, *dict.fromkeys(notes), *split.warnings),
        protocol=_protocol(capture, options, cameras, files, split=split.rule),
    )


def _load(path: Path, options: SceneOptions) -> Capture:
    if path.is_file():
        return _load_file(path, options)
    if not path.is_dir():
        raise SceneError(f"{path}: no such file or directory")
    if options.model is not None:
        return load_colmap(path, model=options.model)
    if find_models(path):
        root = _scene_of_model(path)
        return load_colmap(root, model=None if root == path else str(path.resolve()))
    if (path / TRANSFORMS_FILE).is_file():
        return load_transforms(path / TRANSFORMS_FILE)
    if (path / BLENDER_FILES["train"]).is_file():
        return load_blender(path)
    if is_unposed(path):
        return _posed(path, options)
    raise SceneError(
        f"{path}: no scene found; looked for cameras.bin/.txt and images.bin/.txt in "
        f"{', '.join(MODEL_FOLDERS)}; for {TRANSFORMS_FILE}; for {BLENDER_FILES['train']}; "
        f"for photos in it or in images/, input/; for a video in it"
    )


def _scene_of_model(path: Path) -> Path:
    """The scene, when the path given is its model folder (``scene/sparse/0``) and the images lie above it."""
    if model_kind(path) is None or any((path / name).is_dir() for name in ("images", "input")):
        return path
    above = path.resolve().parents[:2]
    return next((folder for folder in above if (folder / "images").is_dir()), path)


def _load_file(path: Path, options: SceneOptions) -> Capture:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return load_transforms(path)
    if suffix in VIDEO_SUFFIXES:
        return _posed(path, options)
    if suffix in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"):
        raise SceneError(f"{path}: is an archive; unpack it and give the folder")
    raise SceneError(
        f"{path}: is a file; expected a scene folder, a transforms .json, or a video ({', '.join(VIDEO_SUFFIXES)})"
    )


def _posed(path: Path, options: SceneOptions) -> Capture:
    if not options.allow_sfm:
        raise SceneError(f"{path}: has no camera poses; run `{sfm_command(path)}` first")
    return load_colmap(pose_unposed(path, seed=options.seed, on_message=options.on_message))


def _members(groups: Sequence[Sequence[Camera]], chosen: Sequence[int]) -> tuple[int, ...]:
    """Indices into the flat list of cameras of the groups chosen: all sides of a panorama stay together."""
    starts = np.cumsum([0, *(len(group) for group in groups)])
    return tuple(int(starts[group]) + member for group in chosen for member in range(len(groups[group])))


def _placed(
    cameras: tuple[Camera, ...], train: Sequence[int], capture: Capture, options: SceneOptions, notes: list[str]
) -> tuple[tuple[Camera, ...], PointCloud, float, np.ndarray]:
    """Cameras and points in the training frame, its extent, and the way there from the capture's frame."""
    centers = np.array([cameras[index].center_world for index in train])
    extent = extent_of(centers, None if capture.points is None else capture.points.xyz)
    world_from_input = recentering(centers, extent)
    shift = world_from_input[:3, 3]
    if shift.any():
        notes.append(f"Coordinates are large; the scene is trained shifted by {', '.join(f'{s:g}' for s in shift)}.")
        input_from_world = np.eye(4)
        input_from_world[:3, 3] = -shift
        cameras = tuple(camera.posed(camera.camera_from_world @ input_from_world) for camera in cameras)
    if capture.points is not None:
        cloud = replace(capture.points, xyz=(capture.points.xyz + shift).astype(np.float32))
        return cameras, subsample(cloud, options.max_points, options.seed), extent, world_from_input
    count = min(options.random_points, options.max_points or options.random_points)
    cloud = random_points([cameras[index] for index in train], extent, count, options.seed)
    notes.append(f"The capture has no points; starting from {plural(len(cloud), 'random point')}.")
    return cameras, cloud, extent, world_from_input


def _masks(
    capture: Capture, options: SceneOptions, views: Sequence[View], images: dict[str, ImageFile], notes: list[str]
) -> dict[str, Path]:
    """Mask files by view name; a folder that fits no view, or not every view, is worth a sentence."""
    if options.masks == "none":
        return {}
    folder = mask_folder(capture, options)
    found: dict[str, Path] = {}
    absent: list[str] = []
    for view in views:
        mask = view.mask_path or find_mask(folder, images[view.name].path, view.name)
        if mask is not None and os.path.isfile(mask):
            found[view.name] = mask
        elif mask is not None:
            absent.append(ascii(str(mask))[1:-1])
    if absent:
        notes.append(f"{plural(len(absent), 'mask')} named by the capture do not exist: {counted(absent)}.")
    if not found and options.masks is not None:
        raise SceneError(f"mask folder {folder} has no mask for any view; expected {views[0].name}.png or the like")
    if not found and folder is not None and any(folder.iterdir()):
        notes.append(f"{folder} holds no mask of any view; expected {views[0].name}.png or the like.")
    if 0 < len(found) < len(views):
        notes.append(f"{len(found)} of {plural(len(views), 'view')} have a mask; the others count whole.")
    return found


def _protocol(
    capture: Capture, options: SceneOptions, cameras: Sequence[Camera], used: Sequence[ImageFile], *, split: str
) -> dict[str, str]:
    """How the pixels that numbers are measured on come about. ``used`` is the file of each camera."""
    sizes = sorted({f"{camera.width}x{camera.height}" for camera in cameras})
    shrunk = any(
        camera.width < file.header.width or camera.height < file.header.height
        for camera, file in zip(cameras, used, strict=True)
        if camera.lens is None or not camera.lens.is_panorama
    )
    lenses = sorted({camera.lens.model for camera in cameras if camera.lens is not None})
    alpha = sum(file.header.has_alpha for file in used)
    masked = sum(camera.mask_path is not None for camera in cameras)
    behind = options.background or capture.background
    return {
        "format": capture.format,
        "images": ", ".join(sorted({file.folder.label for file in used})),
        "sizes": ", ".join(sizes[:4]) + (f" and {len(sizes) - 4} more" if len(sizes) > 4 else ""),
        "downscale": f"{options.downscale}, cv2 INTER_AREA" if shrunk else "none",
        "undistortion": ", ".join(lenses) + " to pinhole, cv2 INTER_CUBIC" if lenses else "none",
        "masks": f"{masked} of {len(cameras)}" + (", inverted" if masked and options.invert_masks else ""),
        "alpha": "none" if not alpha else f"{alpha} images, " + (f"over {behind}" if behind else "as mask"),
        "split": split,
    }
