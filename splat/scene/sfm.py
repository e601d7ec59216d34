"""Structure from motion with pycolmap: photos or a video in, a normal COLMAP folder out."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from splat.geometry.lens import LENS_MODELS
from splat.scene.capture import plural
from splat.scene.image_header import read_header
from splat.scene.types import SceneError
from splat.scene.unposed import LEAST_PHOTOS, photo_folder, photos_in, video_in

EXHAUSTIVE_LIMIT = 250  # photos; every pair is matched up to here (31,000 pairs), neighbours by name beyond
SEQUENCE_OVERLAP = 20
_LEAST_MODEL_IMAGES = 3
_ERRORS_ONLY = 2  # glog's level
_Kind = Literal["video", "photos inside", "photos elsewhere"]


def run_sfm(
    source: Path,
    workspace: Path,
    *,
    max_frames: int | None = None,
    matcher: Literal["auto", "exhaustive", "sequential"] = "auto",
    camera_model: str = "OPENCV",
    max_image_size: int = 1600,
    threads: int = -1,
    seed: int = 0,
    on_message: Callable[[str], None] = lambda _: None,
) -> Path:
    """Pose the photos in a folder, or the sharpest frames of a video; returns ``workspace``.

    ``workspace/images`` holds the images (photos already inside the workspace stay where they are) and
    ``workspace/sparse/0`` the biggest model. Nothing is left behind when it fails. Two runs differ in the last
    digits even with one seed: COLMAP's threads race.
    """
    pycolmap = _pycolmap()
    source, workspace = Path(source), Path(workspace)
    if not source.exists():
        raise SceneError(f"{source}: no such file or directory")
    if camera_model not in LENS_MODELS:
        raise SceneError(f"camera model {camera_model!r} is unknown; known are {', '.join(LENS_MODELS)}")
    if max_frames is not None and max_frames < LEAST_PHOTOS:
        raise SceneError(f"max_frames {max_frames} is too few; at least {LEAST_PHOTOS} are needed")
    if (workspace / "sparse").exists():
        raise SceneError(f"{workspace / 'sparse'} exists already; remove it or choose another output folder")
    settings = _Settings(matcher, camera_model, max_image_size, threads, seed, on_message)
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".sfm-", dir=workspace) as folder:
            scratch = Path(folder)
            images, kind = _gathered(source, workspace, scratch, max_frames, on_message)
            names = photos_in(images)
            if len(names) < LEAST_PHOTOS:
                raise SceneError(f"{images}: holds {plural(len(names), 'photo')}; at least {LEAST_PHOTOS} are needed")
            models = _reconstructed(pycolmap, scratch / "database.db", images, names, kind=kind, settings=settings)
            _write_models(models, scratch / "sparse", f"{source}", len(names))
            _publish(kind, images, names, scratch / "sparse", workspace)
            posed = models[0].num_reg_images()
            on_message(f"Posed {posed} of {plural(len(names), 'image')} with {models[0].num_points3D():,} points.")
    except OSError as error:
        raise SceneError(f"{error.filename or workspace}: {error.strerror or error}") from None
    except (RuntimeError, ValueError) as error:
        raise SceneError(f"{source}: structure from motion failed: {' '.join(str(error).split())}") from None
    return workspace


@dataclass(frozen=True)
class _Settings:
    matcher: str
    camera_model: str
    max_image_size: int
    threads: int
    seed: int
    on_message: Callable[[str], None]


def _reconstructed(
    pycolmap: ModuleType, database: Path, images: Path, names: list[str], *, kind: _Kind, settings: _Settings
) -> list:
    """Features, matches, then poses and points: COLMAP's models, the one with most images first."""
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = settings.camera_model
    features = pycolmap.FeatureExtractionOptions()
    features.max_image_size, features.num_threads = settings.max_image_size, settings.threads
    mapping = pycolmap.IncrementalPipelineOptions()
    mapping.min_model_size = _LEAST_MODEL_IMAGES
    mapping.num_threads, mapping.random_seed = settings.threads, settings.seed
    automatic = "sequential" if len(names) > EXHAUSTIVE_LIMIT else "exhaustive"
    matcher = automatic if settings.matcher == "auto" else settings.matcher
    with _Quiet(pycolmap):
        pycolmap.set_random_seed(settings.seed)
        settings.on_message(f"Finding features in {plural(len(names), 'image')}.")
        pycolmap.extract_features(
            database,
            images,
            image_names=names,
            camera_mode=_camera_mode(pycolmap, images, names, kind),
            reader_options=reader,
            extraction_options=features,
        )
        settings.on_message("Matching all pairs." if matcher == "exhaustive" else "Matching neighbouring images.")
        _match(pycolmap, database, matcher, settings.threads)
        settings.on_message("Estimating poses and points.")
        output = database.parent / "mapped"
        output.mkdir()
        models = pycolmap.incremental_mapping(database, images, output, options=mapping)
    return sorted(models.values(), key=lambda model: -model.num_reg_images())


def _pycolmap() -> ModuleType:
    try:
        import pycolmap
    except ImportError:
        raise SceneError('estimating camera poses needs pycolmap; install it with `pip install pycolmap`') from None
    return pycolmap


class _Quiet:
    """pycolmap writes its log to the terminal; while this is open only errors come through."""

    def __init__(self, pycolmap: ModuleType) -> None:
        self._logging = pycolmap.logging

    def __enter__(self) -> None:
        self._level = self._logging.minloglevel
        self._logging.minloglevel = _ERRORS_ONLY

    def __exit__(self, *_: object) -> None:
        self._logging.minloglevel = self._level


def _gathered(
    source: Path, workspace: Path, scratch: Path, max_frames: int | None, on_message: Callable[[str], None]
) -> tuple[Path, _Kind]:
    """The folder of images to pose, and what they are to the workspace."""
    photos = photo_folder(source)
    if photos is not None and photos.resolve().is_relative_to(workspace.resolve()):
        return photos, "photos inside"
    _refuse_to_mix(workspace / "images")
    if photos is not None:
        return photos, "photos elsewhere"
    video = video_in(source)
    if video is None:
        raise SceneError(
            f"{source}: holds neither {LEAST_PHOTOS} photos (in it, images/ or input/) nor exactly one video"
        )
    from splat.scene.video import extract_sharpest

    on_message(f"Choosing the sharpest frames of {video}.")
    names = extract_sharpest(video, scratch / "images", max_frames=max_frames)
    on_message(f"Kept {plural(len(names), 'frame')}.")
    return scratch / "images", "video"


def _refuse_to_mix(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise SceneError(f"{folder} already holds files; choose another output folder")


def _link_or_copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _camera_mode(pycolmap: ModuleType, images: Path, names: list[str], kind: _Kind) -> object:
    """One camera for all frames of a video and for photos of one size; else COLMAP goes by what EXIF says."""
    sizes = {(header.width, header.height) for name in names if (header := read_header(images / name)) is not None}
    return pycolmap.CameraMode.SINGLE if kind == "video" or len(sizes) == 1 else pycolmap.CameraMode.AUTO


def _match(pycolmap: ModuleType, database: Path, matcher: str, threads: int) -> None:
    options = pycolmap.FeatureMatchingOptions()
    options.num_threads = threads
    if matcher == "sequential":
        pairing = pycolmap.SequentialPairingOptions()
        pairing.overlap = SEQUENCE_OVERLAP
        pycolmap.match_sequential(database, matching_options=options, pairing_options=pairing)
    else:
        pycolmap.match_exhaustive(database, matching_options=options)


def _write_models(models: list, staged: Path, source: str, count: int) -> None:
    if not models:
        raise SceneError(
            f"{source}: no poses could be estimated from {plural(count, 'image')}; they need texture and "
            f"much overlap: take more photos, moving sideways between them"
        )
    for index, model in enumerate(models):
        folder = staged / str(index)
        folder.mkdir(parents=True)
        model.write_binary(folder)


def _publish(kind: _Kind, images: Path, names: list[str], staged: Path, workspace: Path) -> None:
    """Bring images and models to their place; the models last, in one rename."""
    target = workspace / "images"
    if kind == "video":
        target.mkdir(exist_ok=True)
        for name in names:
            os.replace(images / name, target / name)
    elif kind == "photos elsewhere":
        for name in names:
            _link_or_copy(images / name, target / name)
    os.rename(staged, workspace / "sparse")
