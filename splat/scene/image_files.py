"""Which file on disk belongs to which view: image folders, downscaled copies, masks."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from splat.geometry.lens import Lens
from splat.scene.capture import Capture, counted, plural
from splat.scene.image_header import IMAGE_SUFFIXES, ImageHeader, read_header
from splat.scene.options import AUTO_LONGEST_PX, SceneOptions
from splat.scene.types import SceneError

_COPY = re.compile(r"_(\d+)(_png)?$")  # images_4, or images_4_png as gsplat's trainer caches it
_ASPECT_TOLERANCE = 0.01  # sizes are rounded when images are scaled; more than this is another picture


@dataclass(frozen=True)
class ImageFolder:
    """A folder to look in, and what is still to be divided out of its files."""

    path: Path
    downscale: float | str
    label: str


@dataclass(frozen=True)
class ImageFile:
    """A view's image, found and measured."""

    path: Path
    header: ImageHeader
    folder: ImageFolder


def image_folders(capture: Capture, options: SceneOptions) -> list[ImageFolder]:
    """Folders in the order they are asked for a name."""
    root, downscale = capture.root, options.downscale
    if options.images is not None:
        folder = root / options.images
        if not folder.is_dir():
            raise SceneError(f"image folder {folder} does not exist; {_folders_there(root)}")
        return [ImageFolder(folder, downscale, options.images)]
    base = next((name for name in capture.default_images if (root / name).is_dir()), None)
    if base is None:
        copies = _copies(root, "images")
        if copies:
            factor = min(copies)
            left = downscale if downscale == "auto" else max(1.0, float(downscale) / factor)
            return [ImageFolder(copies[factor], left, copies[factor].name)]
        return [ImageFolder(root, downscale, ".")]
    folders = [ImageFolder(root / base, downscale, base)]
    if downscale != "auto" and float(downscale).is_integer() and downscale > 1:
        shrunk = _copies(root, base).get(int(downscale))
        if shrunk is not None:
            folders.insert(0, ImageFolder(shrunk, 1.0, shrunk.name))
    return folders


def _copies(root: Path, base: str) -> dict[int, Path]:
    """Downscaled copies of an image folder by their factor."""
    copies: dict[int, Path] = {}
    for folder in sorted(root.glob(f"{base}_*")):
        match = _COPY.fullmatch(folder.name[len(base) :])
        if match and folder.is_dir() and int(match[1]) > 0:
            copies.setdefault(int(match[1]), folder)
    return copies


def _folders_there(root: Path) -> str:
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    return f"folders in {root}: {', '.join(names)}" if names else f"{root} has no folders"


def find_file(folder: Path, name: str) -> Path | None:
    """The file of that name, or of the same stem with another image suffix (``a.JPG`` kept as ``a.png``)."""
    exact = folder / name
    if os.path.isfile(exact):  # unlike Path.is_file it answers False to names no file can have
        return exact
    plain = exact.with_suffix("") if exact.suffix.lower() in IMAGE_SUFFIXES else exact
    for suffix in IMAGE_SUFFIXES:
        for spelled in (suffix, suffix.upper()):
            other = plain.with_name(plain.name + spelled)
            if os.path.isfile(other):
                return other
    return None


def find_images(capture: Capture, options: SceneOptions) -> tuple[dict[str, ImageFile], list[str]]:
    """Every view's file by the view's name, and a sentence for each reason that left views without one."""
    folders = image_folders(capture, options)
    found: dict[str, ImageFile] = {}
    missing, unreadable, cut_short, misfit = [], [], [], []
    for view in capture.views:
        place = next(((f, path) for f in folders if (path := find_file(f.path, view.name)) is not None), None)
        if place is None:
            missing.append(view.name)
            continue
        folder, path = place
        header = read_header(path)
        if header is None:
            unreadable.append(view.name)
        elif header.is_cut_short:
            cut_short.append(view.name)
        elif view.lens is not None and not _fits(header, view.lens):
            misfit.append(f"{view.name} ({header.width}x{header.height}, not {view.lens.width}x{view.lens.height})")
        else:
            found[view.name] = ImageFile(path, header, folder)
    looked = ", ".join(str(folder.path) for folder in folders)
    reasons = (
        (missing, f"not found in {looked}"),
        (unreadable, "not readable as an image"),
        (cut_short, "the file is cut short (no end marker)"),
        (misfit, "the shape is not that of its camera"),
    )
    total = len(capture.views)
    if not found:
        names, reason = max(reasons, key=lambda pair: len(pair[0]))
        raise SceneError(
            f"{capture.source}: none of its {plural(total, 'image')} can be used; "
            f"{len(names)} {reason}: {counted(names)}"
        )
    sentences = [
        f"{plural(len(names), 'image')} of {total} skipped, {reason}: {counted(names)}."
        for names, reason in reasons
        if names
    ]
    return found, sentences


def _fits(header: ImageHeader, lens: Lens) -> bool:
    """Whether a file has the proportions of its camera, up to the rounding of a downscale."""
    across, down = header.width / lens.width, header.height / lens.height
    rounding = 1.0 / min(header.width, header.height)
    return abs(across - down) <= (_ASPECT_TOLERANCE + rounding) * max(across, down)


def target_size(width: int, height: int, downscale: float | str, max_size: int | None) -> tuple[int, int]:
    """Size of the training picture made from a file of the size given, rounded half up."""
    longest = max(width, height)
    factor = max(1.0, longest / AUTO_LONGEST_PX) if downscale == "auto" else float(downscale)
    if max_size is not None:
        factor = max(factor, longest / max_size)
    return max(1, int(width / factor + 0.5)), max(1, int(height / factor + 0.5))


def mask_folder(capture: Capture, options: SceneOptions) -> Path | None:
    """The folder of the masks, if there is one and it is wanted."""
    if options.masks == "none":
        return None
    if options.masks is not None:
        folder = capture.root / options.masks
        if not folder.is_dir():
            raise SceneError(f"mask folder {folder} does not exist; {_folders_there(capture.root)}")
        return folder
    folder = capture.root / "masks"
    return folder if folder.is_dir() else None


def find_mask(folder: Path | None, image: Path, name: str) -> Path | None:
    """A view's mask: in the mask folder under any of the names in use, or beside the image."""
    stem = name.rsplit(".", 1)[0] if "." in name.rsplit("/", 1)[-1] else name
    candidates: list[Path] = []
    if folder is not None:
        candidates = [
            folder / spelled
            for spelled in (name, f"{name}.png", f"{stem}.png", f"{name}.mask.png", f"{stem}.mask.png", f"{stem}.jpg")
        ]
    candidates += [image.with_name(f"{image.stem}_mask.png"), image.with_name(f"{image.name}.mask.png")]
    return next((path for path in candidates if os.path.isfile(path)), None)
