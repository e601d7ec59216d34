"""Writing what a page shows into files of the run folder."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from splat.errors import UserError
from splat.io.format_names import file_name, stored_bytes
from splat.io.formats import FORMATS, write_model
from splat.io.selection import Selection, selected
from splat.live.snapshot import Snapshot
from splat.model.labels import HIDDEN, SELECTED
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel

WHICH = {"all": "all splats", "shown": "without hidden ones", "selection": "only the selection"}
FOLDER = "exports"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True)
class Exported:
    """A file that was written."""

    path: Path
    format: str
    splats: int
    size_bytes: int
    """Of all files of a format that fills a folder."""


def formats() -> dict[str, str]:
    """Writable formats: name -> what it is for."""
    return {name: row.purpose for name, row in FORMATS.items() if row.write is not None}


def export_path(folder: Path, name: str, format_name: str) -> Path:
    """Where a file called ``name`` goes. UserError for a name that could lead anywhere else."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise UserError(
            f"a file cannot be called {name[:80]!r}: use letters, digits, '.', '_' and '-', 80 at most, "
            "the first a letter or digit"
        )
    path = folder / file_name(name, format_name)
    if not path.resolve().is_relative_to(folder.resolve()):  # a link in the folder leads out of it
        raise UserError(f"{path} leads out of {folder}; nothing is written there")
    return path


def exported_model(snapshot: Snapshot, which: str, selection: Selection | None = None) -> tuple[SplatModel, list[str]]:
    """The rows that go into a file, as a copy, and what was left out in sentences. UserError when none would be
    left."""
    flags = snapshot.labels.flags
    if which not in WHICH:
        raise UserError(f"which splats {which!r} is not known; choices: {', '.join(WHICH)}")
    keep = {"all": flags >= 0, "shown": (flags & HIDDEN) == 0, "selection": (flags & SELECTED) != 0}[which]
    model, told = replace(snapshot.model, rows=dict(snapshot.model.rows)), []
    if not bool(keep.all()):
        kept = int(keep.sum())
        if not kept:
            raise UserError(f"no splat would be in the file ({WHICH[which]})")
        told.append(f"{model.count - kept:,} of {model.count:,} splats left out: {WHICH[which]}")
        model.apply(RowEdit.keep(keep, "select"))
    model, more = selected(model, selection or Selection())
    return model, [*told, *more]


def write_export(model: SplatModel, path: Path, format_name: str, header: Mapping[str, Any]) -> Exported:
    """Write ``model`` in a format. UserError for one that cannot hold it."""
    write_model(model, path, format=format_name, header=dict(header))
    return Exported(path, format_name, model.count, stored_bytes(path))


def download_of(exported: Exported) -> tuple[str, bytes]:
    """Name and content of what a browser gets: the file, or a zip of a format that fills a folder."""
    path = exported.path
    if path.name != "meta.json":
        return path.name, path.read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:  # its pictures are packed already
        for file in sorted(path.parent.iterdir()):
            if file.is_file() and not file.name.startswith("."):
                archive.write(file, file.name)
    return f"{path.parent.name}.zip", packed.getvalue()


def size_text(size_bytes: int) -> str:
    """``5.3 MB``; decimal, as file managers show it."""
    amount = float(size_bytes)
    for unit in ("bytes", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.2f} GB"
