"""Every model format is one row of ``FORMATS``; files are told apart by what they contain, then by suffix."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from splat.errors import UserError
from splat.io.antimatter import looks_like_splat, read_splat, write_splat
from splat.io.compressed_ply import looks_like_compressed_ply, read_compressed_ply, write_compressed_ply
from splat.io.gltf import looks_like_glb, read_gltf, write_glb, write_glb_spz
from splat.io.html import looks_like_html, write_html
from splat.io.ksplat import looks_like_ksplat, read_ksplat
from splat.io.native_file import read_native, write_native
from splat.io.packed_file import looks_like_spack, read_spack, write_spack
from splat.io.ply import read_ply, write_ply
from splat.io.sog import (
    looks_like_sog,
    looks_like_sog_folder,
    read_sog,
    read_sog_folder,
    write_sog,
    write_sog_folder,
)
from splat.io.spz import looks_like_spz, read_spz, write_spz, write_spz2, write_spz4
from splat.model.splat_model import SplatModel


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model from a file, with what the file said about itself."""

    model: SplatModel
    header: dict[str, Any]
    """``format`` and, where known, ``up_axis``, ``world_from_input``, ``provenance``; ``warnings`` always."""


@dataclass(frozen=True)
class Format:
    """One file format."""

    name: str
    purpose: str
    """A few words for ``--help`` and tables."""
    suffixes: tuple[str, ...]
    """What names of such files end in; the longest ending of all formats wins. Empty where ``--format`` must say it."""
    read: Callable[[Path], tuple[SplatModel, dict[str, Any]]] | None
    """None: only written."""
    write: Callable[[SplatModel, Path, dict[str, Any]], None] | None
    """None: only read. Takes any primitive; formats of plain Gaussians convert (``plain.plain_of``)."""
    fidelity: Literal["exact", "lossy"]
    """Whether reading the file back gives a model that draws the same picture."""
    matches: Callable[[bytes, Path], bool]
    """Judges a file by its first ``HEAD_BYTES`` bytes and its name."""
    frame: Literal["training", "capture"]
    """The coordinate frame its rows are in."""


@dataclass(frozen=True)
class Written:
    """What a write produced."""

    path: Path
    format: str
    size_bytes: int
    fidelity: Literal["exact", "lossy"]
    """Lossy when the format or the primitive's conversion to Gaussians is."""


HEAD_BYTES = 4096
"""What ``Format.matches`` sees of a file."""


def _looks_like_safetensors(head: bytes, path: Path) -> bool:
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000


def _looks_like_ply(head: bytes, path: Path) -> bool:
    return head[:4] in (b"ply\n", b"ply\r")


FORMATS: dict[str, Format] = {
    row.name: row
    for row in (
        Format("native", "the rows as trained", (".safetensors",),
               read_native, write_native, "exact", _looks_like_safetensors, "training"),
        Format("spack", "our compressed file: small, and decodes alone", (".spack",),
               read_spack, write_spack, "lossy", looks_like_spack, "training"),
        Format("compressed-ply", "PlayCanvas', 16 bytes per splat and one per SH coefficient", (".compressed.ply",),
               read_compressed_ply, write_compressed_ply, "lossy", looks_like_compressed_ply, "capture"),
        Format("ply", "Inria's layout, opened by every viewer", (".ply",),
               read_ply, write_ply, "exact", _looks_like_ply, "capture"),
        Format("ksplat", "the viewer GaussianSplats3D's", (".ksplat",),
               read_ksplat, None, "lossy", looks_like_ksplat, "capture"),
        Format("spz", "Niantic's, small; version 3, which most readers take", (".spz",),
               read_spz, write_spz, "lossy", looks_like_spz, "capture"),
        Format("spz2", "SPZ version 2, for old readers: coarser rotations", (),
               None, write_spz2, "lossy", looks_like_spz, "capture"),
        Format("spz4", "SPZ version 4: smaller, fewer readers", (),
               None, write_spz4, "lossy", looks_like_spz, "capture"),
        Format("sog", "PlayCanvas', the smallest that web viewers read", (".sog",),
               read_sog, write_sog, "lossy", looks_like_sog, "capture"),
        Format("sog-folder", "the same as a folder with meta.json", ("meta.json",),
               read_sog_folder, write_sog_folder, "lossy", looks_like_sog_folder, "capture"),
        Format("glb", "binary glTF with KHR_gaussian_splatting", (".glb",),
               read_gltf, write_glb, "exact", looks_like_glb, "capture"),
        Format("glb-spz", "the same with SPZ inside, as CesiumJS reads it", (),
               None, write_glb_spz, "lossy", looks_like_glb, "capture"),
        Format("splat", "antimatter's 32 bytes per splat, no view-dependent colour", (".splat",),
               read_splat, write_splat, "lossy", looks_like_splat, "capture"),
        Format("html", "a page that shows the splats, its viewer inside; needs no network", (".html",),
               None, write_html, "lossy", looks_like_html, "capture"),
    )
}  # fmt: skip
"""In the order in which files are recognised: a format that is a special case of another stands before it."""

# Recognised so that the error can say what the file is: (name, suffixes, first bytes).
_UNSUPPORTED = (
    ("glTF text", (".gltf",), ()),
    ("pickle checkpoint", (".pt", ".pth", ".ckpt"), ()),
)


def read_model(path: str | Path) -> LoadedModel:
    """Read a model from a file of any known format, or from a run folder."""
    file = model_file(path)
    read = sniff(file).read
    assert read is not None  # sniff gives no other
    return LoadedModel(*read(file))


def write_model(
    model: SplatModel,
    path: str | Path,
    *,
    format: str | None = None,
    header: dict[str, Any] | None = None,
    input_from_world: np.ndarray | None = None,
) -> Written:
    """Write ``model`` in ``format`` (None: by suffix).

    ``input_from_world`` [4,4] leads from the model's frame to the capture's own; None takes it from
    ``header["world_from_input"]``. Interchange formats are written in the capture's frame; the native file
    keeps the rows as they are and remembers the transform.
    """
    path = Path(path)
    row = format_for(path, format)
    assert row.write is not None  # format_for gives no other
    header = dict(header or {})
    if input_from_world is None and header.get("world_from_input") is not None:
        input_from_world = _inverse(header["world_from_input"])
    if row.frame == "training":
        if input_from_world is not None:
            header["world_from_input"] = _inverse(input_from_world).tolist()
    else:
        header.pop("world_from_input", None)
        model = in_capture_frame(model, input_from_world)
    row.write(model, path, header)
    lossless = row.fidelity == "exact" and (row.frame == "training" or model.primitive.export == "exact")
    return Written(path, row.name, path.stat().st_size, "exact" if lossless else "lossy")


def in_capture_frame(model: SplatModel, input_from_world: np.ndarray | None) -> SplatModel:
    """``model`` moved to the capture's own frame; itself when that is the same frame."""
    if input_from_world is None or np.array_equal(np.asarray(input_from_world), np.eye(4)):
        return model
    from splat.model.transform import transformed

    return transformed(model, torch.as_tensor(np.asarray(input_from_world, np.float64)))


def format_for(path: Path, name: str | None) -> Format:
    """The row to write ``path`` with: by name, else by the longest suffix that fits."""
    writable = {row.name: row for row in FORMATS.values() if row.write is not None}
    if name is not None:
        if name not in writable:
            known = f"format {name!r} is only read" if name in FORMATS else f"format {name!r} is not known"
            raise UserError(f"{known}; choices: {', '.join(writable)}")
        return writable[name]
    lowered = path.name.lower()
    fits = [(len(suffix), row) for row in writable.values() for suffix in row.suffixes if lowered.endswith(suffix)]
    if fits:
        return max(fits, key=lambda fit: fit[0])[1]
    choices = ", ".join(suffix for row in writable.values() for suffix in row.suffixes)
    raise UserError(f"{path}: no format is written with suffix {path.suffix!r}; choices: {choices}")


def sniff(path: Path) -> Format:
    """The format of an existing file by its first bytes."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    readable = {name: row for name, row in FORMATS.items() if row.read is not None}
    for row in readable.values():
        if row.matches(head, path):
            return row
    for name, suffixes, magics in _UNSUPPORTED:
        if any(head.startswith(magic) for magic in magics) or path.suffix.lower() in suffixes:
            raise UserError(f"{path}: a {name} file, not supported yet; this version reads {', '.join(readable)}")
    if not head:
        raise UserError(f"{path}: the file is empty")
    raise UserError(f"{path}: not a splat model that can be read; this version reads {', '.join(readable)}")


def model_file(path: str | Path) -> Path:
    """The model file ``path`` stands for: itself, the ``meta.json`` of an unpacked SOG folder, or the best one of a
    run folder."""
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise UserError(f"{path}: no such file")
        return path
    native = path / "model.safetensors"
    if native.exists():
        return native
    if (path / "meta.json").exists():
        return path / "meta.json"
    clouds = sorted(path.glob("point_cloud/iteration_*/point_cloud.ply"), key=_iteration)
    if clouds:
        return clouds[-1]
    raise UserError(f"{path}: neither model.safetensors nor point_cloud/iteration_N/point_cloud.ply in this folder")


def _inverse(transform: Any) -> np.ndarray:  # [4,4]
    """Inverse of an affine transform, with an exact last row."""
    inverse = np.linalg.inv(np.asarray(transform, np.float64))
    inverse[3] = (0, 0, 0, 1)
    return inverse


def _iteration(path: Path) -> int:
    match = re.fullmatch(r"iteration_(\d+)", path.parent.name)
    return int(match.group(1)) if match else -1
