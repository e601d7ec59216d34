"""Reading ``.ksplat``, the file of the viewer GaussianSplats3D (its ``SplatBuffer``); nobody needs it written any more.

Layout, little-endian: a header of 4096 bytes (u8 version 0.1; u32 at 4 sections there is room for, at 16 splats; u16 at
20 compression level; f32 at 36 and 40 range of SH bytes), per section a header of 1024 bytes, then the sections end to
end. A section holds sizes of its partly filled buckets (u32), centres of all buckets (3 f32), and its splats: mean,
scale (linear), rotation (w first), RGBA bytes, SH. Level 0 has floats; level 1 halves, and means as u16 around the
centre of their bucket; level 2 differs from 1 by bytes for SH. SH stands band by band, channel-major within a band.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from splat.io.bounded import MAX_SPLATS, need, need_size, read_bytes
from splat.io.plain import PlainSplats, model_of
from splat.model.splat_model import SplatModel

C0 = 0.28209479177387814
HEADER_BYTES, SECTION_BYTES, CENTER_BYTES = 4096, 1024, 12
_DEFAULT_SH_LIMIT = 1.5
_DEFAULT_POSITION_RANGE = 32_767
_MAX_DEGREE = 2
# By compression level: bytes of a splat without SH, then number types of means, of scales and rotations, of SH.
_LEVELS = {0: (44, "<f4", "<f4", "<f4"), 1: (24, "<u2", "<f2", "<f2"), 2: (24, "<u2", "<f2", "u1")}


@dataclass(frozen=True)
class _Section:
    """What one section header promises, and where the section stands."""

    count: int
    """Splats it holds; its room may be larger."""
    degree: int
    bucket_size: int
    full_buckets: int
    partial_buckets: int
    buckets: int
    half_range: int
    """The u16 that stands for a bucket's centre, levels 1 and 2."""
    half_edge: float
    """How far from the centre a u16 of 0 is, world units."""
    start: int
    splats_start: int
    splat_bytes: int


def looks_like_ksplat(head: bytes, path: Path) -> bool:
    """No magic number: the version and a plausible header otherwise full of zeros, or the version and the name."""
    if head[:1] != b"\0":
        return False
    named = path.name.lower().endswith(".ksplat")
    plausible = (
        len(head) >= HEADER_BYTES and head[1:4] == b"\1\0\0" and not any(head[44:HEADER_BYTES])
        and 0 < _u32(head, 4) < 2**16 and _u32(head, 8) <= _u32(head, 4) and _u32(head, 20) in _LEVELS
    )  # fmt: skip
    return named or plausible


def read_ksplat(path: str | Path) -> tuple[SplatModel, dict[str, Any]]:
    """The model of a ``.ksplat`` of any compression level, and its header; UserError on anything else."""
    path = Path(path)
    data = read_bytes(path)
    need_size(path, len(data), HEADER_BYTES, "the header of a .ksplat file")
    major, minor, level, room = data[0], data[1], _u16(data, 20), _u32(data, 4)
    need(path, major == 0 and minor >= 1, f"a .ksplat file of version {major}.{minor}; 0.1 is read")
    need(path, level in _LEVELS, f"compression level {level} of a .ksplat file; 0, 1, 2 are read")
    need_size(path, len(data), HEADER_BYTES + room * SECTION_BYTES, f"headers of {room:,} sections")
    sections: list[_Section] = []
    start = HEADER_BYTES + room * SECTION_BYTES
    for index in range(room):
        section, start = _section(path, data, index, level, start)
        sections.append(section)
    count = sum(section.count for section in sections)
    need(path, count <= MAX_SPLATS, f"claims {count:,} splats; at most {MAX_SPLATS:,} are read")
    warnings = []
    if count != _u32(data, 16):
        warnings.append(f"{path}: its header counts {_u32(data, 16):,} splats, its sections {count:,}; all were read")
    plain = _empty(count, max((section.degree for section in sections), default=0))
    first = 0
    for section in sections:
        _decode(path, data, section, plain.taken(slice(first, first + section.count)))
        first += section.count
    return model_of(plain, path, format="ksplat", compression_level=level, warnings=warnings)


def _section(path: Path, data: bytes, index: int, level: int, start: int) -> tuple[_Section, int]:
    """Section ``index``, which stands at ``start``, and where the next one stands."""
    head = data[HEADER_BYTES + index * SECTION_BYTES :][:SECTION_BYTES]
    count, room, bucket_size, buckets = (_u32(head, at) for at in (0, 4, 8, 12))
    full, partial, degree = _u32(head, 32), _u32(head, 36), _u16(head, 40)
    where = f"section {index}"
    need(path, count <= room, f"{where} holds {count:,} splats in room for {room:,}")
    need(path, degree <= _MAX_DEGREE, f"{where} has SH degree {degree}; a .ksplat file has 0, 1 or 2")
    count = count or room  # a file saved before its viewer had counted what it loaded
    center_bytes = _u16(head, 20)
    need(path, not buckets or center_bytes == CENTER_BYTES, f"{where} has {center_bytes} bytes per bucket, not 12")
    plain_bytes, _, _, sh_type = _LEVELS[level]
    splat_bytes = plain_bytes + 3 * ((degree + 1) ** 2 - 1) * np.dtype(sh_type).itemsize
    splats_start = start + 4 * partial + CENTER_BYTES * buckets
    end = splats_start + room * splat_bytes
    need_size(path, len(data), end, f"{where} with {room:,} splats in {buckets:,} buckets")
    half_range, half_edge = _u32(head, 24) or _DEFAULT_POSITION_RANGE, _f32(head, 16) / 2
    section = _Section(
        count, degree, bucket_size, full, partial, buckets, half_range, half_edge, start, splats_start, splat_bytes
    )
    return section, end


def _decode(path: Path, data: bytes, section: _Section, out: PlainSplats) -> None:
    """Fill ``out``, views of the section's rows."""
    level = _u16(data, 20)
    _, mean_type, shape_type, sh_type = _LEVELS[level]
    size = section.count * section.splat_bytes
    rows = np.frombuffer(data, np.uint8, size, section.splats_start).reshape(section.count, section.splat_bytes)
    taken = 0

    def column(dtype: str, width: int) -> np.ndarray:  # [n,width]
        nonlocal taken
        end = taken + width * np.dtype(dtype).itemsize
        part = np.ascontiguousarray(rows[:, taken:end]).view(dtype)
        taken = end
        return part

    with np.errstate(all="ignore"):  # what is not a number is left out by ``model_of``
        means = column(mean_type, 3)
        if level:
            offsets = (means.astype(np.float64) - section.half_range) * (section.half_edge / section.half_range)
            means = offsets + _centers(path, data, section)
        out.means[:] = means
        out.log_scales[:] = np.log(column(shape_type, 3).astype(np.float32))
        out.quats[:] = column(shape_type, 4)
        rgba = column("u1", 4) / 255
        out.sh0[:], out.opacities[:] = (rgba[:, :3] - 0.5) / C0, rgba[:, 3]
        for band in range(1, section.degree + 1):
            width = 2 * band + 1
            values = column(sh_type, 3 * width).astype(np.float32)
            if level == 2:
                low, high = _f32(data, 36) or -_DEFAULT_SH_LIMIT, _f32(data, 40) or _DEFAULT_SH_LIMIT
                values = values / 255 * (high - low) + low
            out.sh_rest[:, band**2 - 1 : (band + 1) ** 2 - 1] = values.reshape(-1, 3, width).transpose(0, 2, 1)


def _centers(path: Path, data: bytes, section: _Section) -> np.ndarray:  # [n,3] float64
    """The centre of every splat's bucket: first full buckets, then those with a size of their own."""
    sizes = np.frombuffer(data, "<u4", section.partial_buckets, section.start).astype(np.int64)
    centers = np.frombuffer(data, "<f4", 3 * section.buckets, section.start + 4 * section.partial_buckets)
    full = section.full_buckets * section.bucket_size
    covers = full + int(sizes.sum()) >= section.count and full <= section.count
    need(path, covers, f"buckets for {full + int(sizes.sum()):,} of a section's {section.count:,} splats")
    used = section.full_buckets + section.partial_buckets
    need(path, used <= section.buckets, f"{section.buckets:,} buckets, of which {used:,} are said to hold splats")
    ends = full + np.cumsum(sizes)
    rows = np.arange(section.count)
    own = section.full_buckets + np.searchsorted(ends, rows, side="right")
    return centers.reshape(-1, 3)[np.where(rows < full, rows // max(section.bucket_size, 1), own)].astype(np.float64)


def _empty(count: int, degree: int) -> PlainSplats:
    higher = (degree + 1) ** 2 - 1
    means, log_scales, sh0 = (np.zeros((count, 3), np.float32) for _ in range(3))
    return PlainSplats(
        means, np.zeros((count, 4), np.float32), log_scales, np.zeros(count, np.float32), sh0,
        np.zeros((count, higher, 3), np.float32), degree,
    )  # fmt: skip


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _f32(data: bytes, at: int) -> float:
    return float(np.frombuffer(data, "<f4", 1, at)[0])
