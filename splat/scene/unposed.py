"""Photos and videos without poses: recognising them, and the way to structure from motion."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from splat.scene.colmap import find_models
from splat.scene.image_header import IMAGE_SUFFIXES

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")
PHOTO_FOLDERS = ("images", "input", ".")
LEAST_PHOTOS = 3  # two views give a model, three a check of it


def photos_in(folder: Path) -> list[str]:
    """Names of the photos below a folder, sorted, with forward slashes; masks and hidden files left out."""
    if not folder.is_dir():
        return []
    names = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        mask = path.stem.endswith("_mask") or path.name.endswith(".mask.png") or name.parts[0] == "masks"
        if path.suffix.lower() in IMAGE_SUFFIXES and not hidden and not mask and path.is_file():
            names.append(name.as_posix())
    return sorted(names)


def photo_folder(source: Path) -> Path | None:
    """The folder below ``source`` with enough photos to pose."""
    for name in PHOTO_FOLDERS:
        if len(photos_in(source / name)) >= LEAST_PHOTOS:
            return source / name
    return None


def video_in(source: Path) -> Path | None:
    """The video itself, or the only one of a folder."""
    if source.is_file():
        return source if source.suffix.lower() in VIDEO_SUFFIXES else None
    videos = sorted(p for p in source.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES) if source.is_dir() else []
    return videos[0] if len(videos) == 1 else None


def is_unposed(source: Path) -> bool:
    return photo_folder(source) is not None or video_in(source) is not None


def default_workspace(source: Path) -> Path:
    """Where the model goes: into the folder of the photos' scene; beside a video, under its name."""
    video = video_in(source)
    if photo_folder(source) is None and video is not None:
        return video.with_name(f"{video.stem}_colmap")
    return source


def sfm_command(source: Path) -> str:
    """The command that poses ``source`` and writes the model where ``open_scene`` finds it."""
    workspace = default_workspace(source)
    target = "" if workspace == source else f" -o {shlex.quote(str(workspace))}"
    return f"splat sfm {shlex.quote(str(source))}{target}"


def pose_unposed(source: Path, *, seed: int, on_message: Callable[[str], None]) -> Path:
    """The scene folder with poses; structure from motion runs only when it was not run before."""
    workspace = default_workspace(source)
    if find_models(workspace):
        on_message(f"Using the camera poses found in {workspace}.")
        return workspace
    from splat.scene.sfm import run_sfm

    on_message(f"{source} has no camera poses; estimating them with COLMAP into {workspace} (this takes minutes).")
    return run_sfm(source, workspace, seed=seed, on_message=on_message)
