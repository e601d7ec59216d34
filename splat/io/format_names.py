"""Formats in words: lists of them, and what their files are called."""

from __future__ import annotations

from pathlib import Path

from splat.errors import UserError
from splat.io.formats import FORMATS, format_for


def format_names(text: str | None) -> list[str]:
    """``ply,sog`` or ``all`` as names of formats that can be written, each once; none where nothing is said."""
    if text is None:
        return []
    if is_all(text):
        return [name for name, row in FORMATS.items() if row.write is not None]
    names = [name for name in text.lower().replace(",", " ").split() if name]
    if not names:
        choices = ", ".join(name for name, row in FORMATS.items() if row.write is not None)
        raise UserError(f"{text!r} names no format; choices: all, {choices}")
    for name in names:
        format_for(Path(), name)  # raises with the choices
    return list(dict.fromkeys(names))


def is_all(text: str | None) -> bool:
    return text is not None and text.strip().lower() == "all"


def file_name(stem: str, format_name: str) -> str:
    """What a file of that format is called, relative to the folder it is to lie in.

    A format without an ending of its own, a variant of another, has that one's after its name; one whose files have a
    name of their own (``meta.json``) gets a folder.
    """
    row = FORMATS[format_name]
    if not row.suffixes:
        base = next((other for other in FORMATS.values() if other.matches is row.matches and other.suffixes), None)
        return f"{stem}.{format_name}" + (base.suffixes[0] if base else "")
    suffix = row.suffixes[0]
    return stem + suffix if suffix.startswith(".") else f"{stem}-{format_name}/{suffix}"


def file_in(path: Path, format_name: str) -> Path:
    """The file to write for what a user calls ``path``: that, or inside of it where the format fills a folder."""
    suffixes = FORMATS[format_name].suffixes
    whole_names = [suffix for suffix in suffixes if not suffix.startswith(".")]
    return path / whole_names[0] if whole_names and path.name.lower() not in whole_names else path


def stem_of(path: Path) -> str:
    """The name of a model file without the ending of its format; the folder's, where the file has a name of its own."""
    endings = [suffix for row in FORMATS.values() for suffix in row.suffixes if path.name.lower().endswith(suffix)]
    if path.name.lower() in endings:
        return path.resolve().parent.name
    return path.name[: -len(max(endings, key=len))] if endings else path.stem


def stored_bytes(path: Path) -> int:
    """What a model takes on the disk; of a folder, or the ``meta.json`` in one, the files beside it count too."""
    path = Path(path)
    if path.name == "meta.json":
        parts = [path, *path.parent.glob("*.webp")]
    else:
        parts = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in parts)
