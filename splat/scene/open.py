"""``open_scene``: any capture on disk becomes a ``Scene``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from splat.geometry.camera import Camera
from splat.geometry.lens import Lens, Pinhole, pinhole_matrix, pinhole_of
from splat.scene.capture import Capture, View, counted, plural
from splat.scene.colmap import MODEL_FOLDERS, find_models, load_colmap, model_kind
from splat.scene.image_files import ImageFile, find_images, find_mask, mask_folder, target_size
from splat.scene.options import SceneOptions
from splat.scene.placement import extent_of, random_points, recentering, subsample
from splat.scene.split import split_views
from splat.scene.transforms import BLENDER_FILES, TRANSFORMS_FILE, load_blender, load_transforms
from splat.scene.types import PointCloud, Scene, SceneError
from splat.scene.unposed import VIDEO_SUFFIXES, is_unposed, pose_unposed, sfm_command

# A pinhole that shows less than this share of the lens's angle is worth a sentence.
_CROP_WORTH_SAYING = 0.95


def open_scene(path: str | Path, options: SceneOptions | None = None) -> Scene:
    """Read a COLMAP, nerfstudio / instant-ngp or Blender capture; pose photos or a video first when allowed."""
    options = options or SceneOptions()
    path = Path(path).expanduser()
    capture = _load(path, options)
    images, skipped = find_images(capture, options)
    views = sorted((view for view in capture.views if view.name in images), key=lambda view: view.name)
    notes: list[str] = []
    masks = _masks(capture, options, views, images, notes)
    cameras = tuple(_camera(view, images[view.name], masks, capture, options, notes) for view in views)
    left_out = frozenset(view.name for view in capture.views) - images.keys()
    split = split_views([view.name for view in views], [v.split for v in views], left_out, capture.root, options)
    cameras, points, extent, world_from_input = _placed(cameras, split.train, capture, options, notes)
    return Scene(
        name=capture.root.resolve().name or "scene",
        root=capture.root,
        cameras=cameras,
        points=points,
        train_indices=split.train,
        test_indices=split.test,
        extent_world=extent,
        world_from_input=world_from_input,
        warnings=(*capture.warnings, *skipped, *dict.fromkeys(notes), *split.warnings),
        protocol=_protocol(capture, options, cameras, images, masks, split.rule),
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
    raise SceneError(f"{path}: is a file; expected a scene folder, a transforms .json, or a video ({', '.join(VIDEO_SUFFIXES)})")


def _posed(path: Path, options: SceneOptions) -> Capture:
    if not options.allow_sfm:
        raise SceneError(f"{path}: has no camera poses; run `{sfm_command(path)}` first")
    return load_colmap(pose_unposed(path, seed=options.seed, on_message=options.on_message))


def _camera(
    view: View, image: ImageFile, masks: dict[str, Path], capture: Capture, options: SceneOptions, notes: list[str]
) -> Camera:
    """The pinhole camera that training sees: the file's own lens, straightened, at the size asked for."""
    header = image.header
    lens = view.lens if view.lens_of_size is None else view.lens_of_size(header.width, header.height)
    assert lens is not None, "a loader gives one of the two"
    pinhole = _pinhole(lens, image.path, capture, notes)
    at_file = (pinhole.width * header.width / lens.width, pinhole.height * header.height / lens.height)
    width, height = target_size(round(at_file[0]), round(at_file[1]), image.folder.downscale, options.max_size)
    background = options.background or capture.background
    nominal = Camera(
        name=view.name,
        camera_from_world=view.camera_from_world,
        K=pinhole.K,
        width=pinhole.width,
        height=pinhole.height,
        image_path=image.path,
        mask_path=masks.get(view.name),
        mask_inverted=options.invert_masks,
        lens=None if lens.is_pinhole else lens,
        time=view.time,
        background=background if header.has_alpha else None,
    )
    return nominal.resized(width, height)


def _pinhole(lens: Lens, image: Path, capture: Capture, notes: list[str]) -> Pinhole:
    if lens.is_pinhole:
        return Pinhole(pinhole_matrix(lens), lens.width, lens.height, (0.0, 0.0), (0.0, 0.0))
    try:
        pinhole = pinhole_of(lens)
    except ValueError as error:
        raise SceneError(
            f"{image}: {error}; cut the panoramas into pinholes with `ns-process-data images --camera-type "
            f"equirectangular --images-per-equirect 8 --data {image.parent} --output-dir {capture.root}_pinhole`"
            if lens.model == "EQUIRECTANGULAR"
            else f"{capture.source}: {error}"
        ) from None
    for axis, have, seen in zip(("wide", "high"), pinhole.fov_deg, pinhole.lens_fov_deg, strict=True):
        if have < _CROP_WORTH_SAYING * seen:
            notes.append(f"{lens.model} images are cropped to a pinhole {have:.0f} of {seen:.0f} degrees {axis}.")
    return pinhole


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
        if mask is not None and mask.is_file():
            found[view.name] = mask
        elif mask is not None:
            absent.append(str(mask))
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
    capture: Capture,
    options: SceneOptions,
    cameras: Sequence[Camera],
    images: dict[str, ImageFile],
    masks: dict[str, Path],
    split_rule: str,
) -> dict[str, str]:
    """How the pixels that numbers are measured on come about."""
    used = [images[camera.name] for camera in cameras]
    sizes = sorted({f"{camera.width}x{camera.height}" for camera in cameras})
    shrunk = any(
        camera.width < file.header.width or camera.height < file.header.height
        for camera, file in zip(cameras, used, strict=True)
    )
    lenses = sorted({camera.lens.model for camera in cameras if camera.lens is not None})
    alpha = sum(file.header.has_alpha for file in used)
    behind = options.background or capture.background
    return {
        "format": capture.format,
        "images": ", ".join(sorted({file.folder.label for file in used})),
        "sizes": ", ".join(sizes[:4]) + (f" and {len(sizes) - 4} more" if len(sizes) > 4 else ""),
        "downscale": f"{options.downscale}, cv2 INTER_AREA" if shrunk else "none",
        "undistortion": ", ".join(lenses) + " to pinhole, cv2 INTER_CUBIC" if lenses else "none",
        "masks": f"{len(masks)} of {len(cameras)}" + (", inverted" if masks and options.invert_masks else ""),
        "alpha": "none" if not alpha else f"{alpha} images, " + (f"over {behind}" if behind else "as mask"),
        "split": split_rule,
    }
