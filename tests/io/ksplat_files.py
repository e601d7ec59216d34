"""Bytes of ``.ksplat`` files for tests: the package only reads them."""

from __future__ import annotations

import struct

import numpy as np

from splat.io.plain import PlainSplats

C0 = 0.28209479177387814
BUCKET, EDGE, HALF_RANGE = 4, 5.0, 32_767


def ksplat_bytes(parts: list[PlainSplats], level: int, *, sh_limit: float = 1.5, spare: int = 0) -> bytes:
    """One section per part; ``spare`` more rows of room than splats in each."""
    count = sum(part.count for part in parts)
    head = struct.pack("<4B4IHH3f2f", 0, 1, 0, 0, len(parts), len(parts), count, count, level, 0, 0, 0, 0, 0, 0)
    head = head[:36] + struct.pack("<2f", -sh_limit, sh_limit)
    sections, bodies = [], []
    for part in parts:
        section, body = _section(part, level, sh_limit, spare)
        sections.append(section.ljust(1024, b"\0"))
        bodies.append(body)
    return b"".join([head.ljust(4096, b"\0"), *sections, *bodies])


def _section(part: PlainSplats, level: int, sh_limit: float, spare: int) -> tuple[bytes, bytes]:
    full, rest = divmod(part.count, BUCKET) if level else (0, 0)
    buckets = full + bool(rest)
    spans = [slice(BUCKET * i, BUCKET * (i + 1)) for i in range(buckets)]
    centers = np.array([part.means[span].mean(axis=0) for span in spans], "<f4").reshape(buckets, 3)
    blocks = [_means(part, level, centers)]
    floats = "<f2" if level else "<f4"
    blocks += [np.exp(part.log_scales).astype(floats), part.quats.astype(floats)]
    rgba = np.hstack([(0.5 + C0 * part.sh0), part.opacities[:, None]])
    blocks.append(np.clip(np.round(rgba * 255), 0, 255).astype(np.uint8))
    for band in range(1, part.sh_degree + 1):
        values = part.sh_rest[:, band**2 - 1 : (band + 1) ** 2 - 1].transpose(0, 2, 1).reshape(part.count, -1)
        if level == 2:
            values = np.clip(np.round((values + sh_limit) / (2 * sh_limit) * 255), 0, 255)
        blocks.append(values.astype("u1" if level == 2 else floats))
    rows = np.hstack([np.ascontiguousarray(block).view(np.uint8) for block in blocks])
    rows = np.vstack([rows, np.zeros((spare, rows.shape[1]), np.uint8)])
    sizes = np.array([rest] if rest else [], "<u4")
    body = sizes.tobytes() + centers.tobytes() + rows.tobytes()
    numbers = (part.count, part.count + spare, BUCKET if level else 0, buckets)
    section = struct.pack("<4IfHHIIII", *numbers, EDGE, 12, 0, HALF_RANGE if level else 0, len(body), full, len(sizes))
    return section + struct.pack("<H", part.sh_degree), body


def _means(part: PlainSplats, level: int, centers: np.ndarray) -> np.ndarray:
    if not level:
        return part.means.astype("<f4")
    offsets = part.means - np.repeat(centers, BUCKET, axis=0)[: part.count]
    return np.clip(np.round(offsets * (HALF_RANGE / (EDGE / 2))) + HALF_RANGE, 0, 65_535).astype("<u2")
