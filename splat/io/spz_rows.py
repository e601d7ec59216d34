"""How SPZ stores the numbers of splats: every attribute as small integers (specs: compression B4).

Steps, and so errors of half as much: positions 2^-fractional_bits units; opacity 1/255; ``sh0`` 1/38.25 within
about +-3.33; natural logarithms of sizes 1/16 within -10..5.94; rotations 2^-0.5/511 for each of the three smallest
components (version 3 and 4) or 1/127.5 for x, y, z (before); higher bands 1/16 (band 1) and 1/8 (others) within
-1..0.992. What lies outside its range is stored at the limit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from splat.io.plain import PlainSplats

SH1_BITS, SH_REST_BITS = 5, 4
"""Bits kept of each coefficient of band 1, and of the higher ones: what the reference writer and others keep. Readers
do not need to know; 8 and 8 would make the error 8 to 16 times smaller and the file half as large again."""
USUAL_FRACTIONAL_BITS = 12
"""Of a position, as every other writer has it; ``fitting_fractional_bits`` says when not."""
LEAST_FRACTIONAL_BITS, MOST_FRACTIONAL_BITS = 1, 24
"""What readers take."""
POSITION_LIMIT = 2**23 - 1
"""Largest magnitude of a stored coordinate: 24 bits with sign."""
SCALE_OFFSET, SCALE_STEPS = 10.0, 16.0
COLOR_SCALE = 0.15
"""Of ``sh0``; less than C0 = 0.282, so that base colours outside 0..1 have room."""
QUAT_STEPS = 511
"""Of the magnitude of one of the three smallest components, 0..sqrt(1/2)."""
SH_COEFFICIENTS = {0: 0, 1: 3, 2: 8, 3: 15, 4: 24}
"""Of the higher bands, per channel, by degree. Degree 4 is only read, without its fourth band."""
_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
"""The three stored components (of x, y, z, w) by the index of the one that is not."""
_FIELD_SHIFTS = np.array([20, 10, 0], np.uint32)
_EXTENT_STEPS = 4096
_SIZE_STEPS = 4
_SETTLING_ROUNDS = 8


@dataclass(frozen=True)
class SpzHead:
    """What the first bytes of a file say."""

    version: int
    count: int
    sh_degree: int
    fractional_bits: int
    antialiased: bool
    has_extensions: bool

    def sections(self) -> dict[str, int]:
        """Bytes of each attribute, in file order."""
        sizes = {
            "positions": 6 if self.version == 1 else 9, "alphas": 1, "colors": 3, "scales": 3,
            "rotations": 3 if self.version < 3 else 4, "sh": 3 * SH_COEFFICIENTS[self.sh_degree],
        }  # fmt: skip
        return {name: size * self.count for name, size in sizes.items()}


def fitting_fractional_bits(plain: PlainSplats) -> int:
    """Bits behind the point for these positions: 12 where they do.

    Fewer where a coordinate would not fit (beyond +-2047 units at 12); more where a scene is so small that the step
    would be more than 1/4096 of its extent or a quarter of a typical splat. Readers honour the header's number.
    0 where nothing fits: beyond +-4,194,303 units.
    """
    if not plain.count:
        return USUAL_FRACTIONAL_BITS
    largest = float(np.abs(plain.means).max())
    extent = float((plain.means.max(axis=0).astype(np.float64) - plain.means.min(axis=0)).max())
    typical = float(np.exp(max(np.median(plain.log_scales.mean(axis=1)), -SCALE_OFFSET)))
    step = min(extent / _EXTENT_STEPS if extent > 0 else np.inf, typical / _SIZE_STEPS)
    wanted = max(USUAL_FRACTIONAL_BITS, int(np.ceil(-np.log2(step))) if step > 0 else MOST_FRACTIONAL_BITS)
    for bits in range(min(wanted, MOST_FRACTIONAL_BITS), LEAST_FRACTIONAL_BITS - 1, -1):
        if largest * 2.0**bits <= POSITION_LIMIT:
            return bits
    return 0


def packed(plain: PlainSplats, head: SpzHead) -> dict[str, np.ndarray]:
    """Each attribute as bytes [n] uint8, by the names of ``head.sections()``."""
    means = np.rint(plain.means.astype(np.float64) * 2.0**head.fractional_bits).astype("<i4")
    blocks = {
        "positions": means[..., None].view(np.uint8)[..., :3],
        "alphas": _bytes(plain.opacities.astype(np.float64) * 255),
        "colors": _bytes(plain.sh0.astype(np.float64) * (COLOR_SCALE * 255) + 127.5),
        "scales": _bytes((plain.log_scales.astype(np.float64) + SCALE_OFFSET) * SCALE_STEPS),
        "rotations": _packed_quats(plain.quats, head.version),
        "sh": _packed_sh(plain.sh_rest),
    }
    return {name: np.ascontiguousarray(values).reshape(-1) for name, values in blocks.items()}


def unpacked(head: SpzHead, blocks: dict[str, np.ndarray]) -> PlainSplats:
    """The splats of blocks [n] uint8 as long as ``head.sections()`` says; of degree 4, the bands up to 3."""
    count, degree = head.count, min(head.sh_degree, 3)
    kept = SH_COEFFICIENTS[degree]
    sh = blocks["sh"].reshape(count, SH_COEFFICIENTS[head.sh_degree], 3)[:, :kept].astype(np.float32)
    return PlainSplats(
        means=_unpacked_means(head, blocks["positions"]),
        quats=_unpacked_quats(blocks["rotations"].reshape(count, 3 if head.version < 3 else 4), head.version),
        log_scales=blocks["scales"].reshape(count, 3) / np.float32(SCALE_STEPS) - np.float32(SCALE_OFFSET),
        opacities=blocks["alphas"] / np.float32(255),
        sh0=((blocks["colors"].reshape(count, 3) / 255 - 0.5) / COLOR_SCALE).astype(np.float32),
        sh_rest=(sh - 128) / 128,
        sh_degree=degree,
        antialiased=head.antialiased,
    )


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _packed_sh(sh_rest: np.ndarray) -> np.ndarray:  # [N,K-1,3] -> [N,K-1,3] uint8, colour fastest
    """Eight bits, rounded to the bucket whose centre 0 always is."""
    buckets = np.full(sh_rest.shape[1], 2 ** (8 - SH_REST_BITS))
    buckets[:3] = 2 ** (8 - SH1_BITS)
    buckets = buckets[:, None]
    values = np.rint(np.clip(sh_rest.astype(np.float64), -2, 2) * 128) + 128
    return np.clip(np.floor((values + buckets // 2) / buckets) * buckets, 0, 255).astype(np.uint8)


def _packed_quats(quats: np.ndarray, version: int) -> np.ndarray:  # [N,4] w first -> [N,3|4] uint8
    """Codes that come back when what they stand for is packed again.

    Rounding can make another component the largest (or, before version 3, x, y, z longer than 1), and so give other
    codes the second time. Those rows go round until they settle; of two that alternate, the smaller code is taken.
    """
    codes = _quat_codes(quats, version)
    rows = np.arange(len(codes))
    for _ in range(_SETTLING_ROUNDS):
        before = codes[rows]
        codes[rows] = _quat_codes(_unpacked_quats(before, version), version)
        changed = (codes[rows] != before).any(axis=1)
        rows, before = rows[changed], before[changed]
        if not len(rows):
            break
    places = 256 ** np.arange(codes.shape[1])
    smaller = before @ places < codes[rows] @ places
    codes[rows[smaller]] = before[smaller]
    return codes


def _quat_codes(quats: np.ndarray, version: int) -> np.ndarray:  # [N,4] w first -> [N,3|4] uint8
    xyzw = quats[:, [1, 2, 3, 0]].astype(np.float64)
    xyzw /= np.maximum(np.linalg.norm(xyzw, axis=1, keepdims=True), 1e-30)
    if version < 3:
        signs = np.where(xyzw[:, 3:] < 0, -1.0, 1.0)
        return _bytes(xyzw[:, :3] * signs * 127.5 + 127.5)
    largest = np.abs(xyzw).argmax(axis=1)
    rows = np.arange(len(xyzw))
    others = xyzw[rows[:, None], _OTHERS[largest]]
    others *= np.where(xyzw[rows, largest] < 0, -1.0, 1.0)[:, None]
    magnitudes = np.minimum(np.rint(np.abs(others) * (QUAT_STEPS * 2**0.5)), QUAT_STEPS).astype(np.uint32)
    fields = magnitudes | (others < 0).astype(np.uint32) << np.uint32(9)
    words = np.bitwise_or.reduce(fields << _FIELD_SHIFTS, axis=1) | largest.astype(np.uint32) << np.uint32(30)
    return words.astype("<u4")[:, None].view(np.uint8)


def _unpacked_quats(codes: np.ndarray, version: int) -> np.ndarray:  # [N,3|4] uint8 -> [N,4] float32, w first
    xyzw = np.empty((len(codes), 4))
    if version < 3:
        xyzw[:, :3] = codes / 127.5 - 1
        xyzw[:, 3] = np.sqrt(np.maximum(1 - np.square(xyzw[:, :3]).sum(axis=1), 0))
    else:
        words = np.frombuffer(codes.tobytes(), "<u4").astype(np.uint32)
        largest = (words >> np.uint32(30)).astype(np.int64)
        fields = words[:, None] >> _FIELD_SHIFTS
        values = (fields & np.uint32(QUAT_STEPS)) * (0.5**0.5 / QUAT_STEPS)
        values = np.where(fields & np.uint32(512), -values, values)
        rows = np.arange(len(codes))
        xyzw[rows[:, None], _OTHERS[largest]] = values
        xyzw[rows, largest] = np.sqrt(np.maximum(1 - np.square(values).sum(axis=1), 0))
    return xyzw[:, [3, 0, 1, 2]].astype(np.float32)


def _unpacked_means(head: SpzHead, block: np.ndarray) -> np.ndarray:  # -> [N,3] float32
    if head.version == 1:
        return np.frombuffer(block.tobytes(), "<f2").reshape(head.count, 3).astype(np.float32)
    parts = block.reshape(head.count, 3, 3).astype(np.int32)
    values = parts[..., 0] | parts[..., 1] << 8 | parts[..., 2] << 16
    return (((values ^ 0x800000) - 0x800000) * 0.5**head.fractional_bits).astype(np.float32)
