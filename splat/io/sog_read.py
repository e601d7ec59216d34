"""Reading SOG, versions 1 and 2 (see ``sog.py``). No number of a file makes more memory than its bytes can explain."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from splat.errors import UserError
from splat.io.bounded import need, read_bytes, zip_member
from splat.io.plain import PlainSplats, model_of
from splat.io.sog_meta import COEFFICIENTS, MAX_META_BYTES, MAX_PALETTE, PALETTE_ROW, SogMeta, Values, parse_meta
from splat.io.sog_turns import turns_of_bytes
from splat.io.webp import webp_pixels, webp_size
from splat.model.splat_model import SplatModel

SPLATS_PER_BYTE, FREE_SPLATS = 64, 65_536
"""Real files take bytes per splat. More splats than this per byte, beyond the free ones, are a header's invention."""
_SLACK = 4096
"""Pixels and bytes that a picture may have more than its splats need, beside four times as many."""


def read_sog(path: str | Path) -> tuple[SplatModel, dict[str, Any]]:
    """Splats of a ``.sog`` archive. UserError for whatever is damaged, missing or absurd."""
    path = Path(path)
    with _archive(path) as archive:

        def load(name: str, most: int) -> bytes:
            return zip_member(path, archive, name, most=most)

        return _model(path, load, "sog", path.stat().st_size)


def read_sog_folder(path: str | Path) -> tuple[SplatModel, dict[str, Any]]:
    """Splats of the folder that ``path``, a ``meta.json``, lies in."""
    path = Path(path)

    def load(name: str, most: int) -> bytes:
        return read_bytes(path if name == "meta.json" else path.with_name(name), most=most)

    def size(name: str) -> int:
        try:
            return os.stat(path.with_name(name)).st_size
        except OSError as error:
            raise UserError(f"{path}: {name!r} beside it cannot be read ({error.strerror or error})") from error

    meta = parse_meta(path, load("meta.json", MAX_META_BYTES))
    parts = [meta.means, meta.quats, meta.scales, meta.sh0, *([meta.palette] if meta.palette else [])]
    return _model(path, load, "sog-folder", sum(size(name) for part in parts for name in part.files))


@contextmanager
def _archive(path: Path):
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(f"{path}: not a readable zip archive ({error}), cut short or damaged") from error
    with closing(archive):
        yield archive


@dataclass(frozen=True, eq=False)
class _Pictures:
    """The pictures of one file, all that are per splat of one size."""

    path: Path
    load: Callable[[str, int], bytes]
    count: int

    def splats(self, name: str) -> np.ndarray:  # [N,4] uint8
        """A picture with a pixel per splat."""
        most = 4 * self.count + _SLACK
        data = self.load(name, 8 * most)
        width, height = webp_size(self.path, name, data)
        need(
            self.path, self.count <= width * height <= most,
            f"{name!r} has {width} x {height} pixels for {self.count:,} splats",
        )  # fmt: skip
        return webp_pixels(self.path, name, data).reshape(-1, 4)[: self.count]

    def palette(self, name: str, bands: int | None) -> np.ndarray:  # [P,K-1,3] uint8
        """The picture of the palette; ``bands`` from its width where None."""
        data = self.load(name, 8 * MAX_PALETTE * max(COEFFICIENTS.values()))
        width, height = webp_size(self.path, name, data)
        fits = {PALETTE_ROW * number: number for band, number in COEFFICIENTS.items() if bands in (None, band)}
        need(self.path, width in fits, f"{name!r} is {width} pixels wide; {' or '.join(map(str, fits))} are right")
        rows = MAX_PALETTE // PALETTE_ROW
        need(self.path, height <= rows, f"{name!r} is {height} pixels high; at most {rows} are possible")
        return webp_pixels(self.path, name, data)[:, :, :3].reshape(-1, fits[width], 3)


def _model(path: Path, load: Callable[[str, int], bytes], name: str, size: int) -> tuple[SplatModel, dict[str, Any]]:
    meta = parse_meta(path, load("meta.json", MAX_META_BYTES))
    need(
        path, meta.count <= FREE_SPLATS + SPLATS_PER_BYTE * size,
        f"claims {meta.count:,} splats, which its {size:,} bytes cannot hold",
    )  # fmt: skip
    pictures, warnings = _Pictures(path, load, meta.count), []
    low, high = (pictures.splats(file)[:, :3].astype(np.uint16) for file in meta.means.files)
    quats, turnless = turns_of_bytes(pictures.splats(meta.quats.files[0]))
    if turnless:
        warnings.append(f"{path}: {turnless} splats say no rotation and were not turned")
    scales = _numbers(path, meta.scales, pictures.splats(meta.scales.files[0])[:, :3])
    colors = pictures.splats(meta.sh0.files[0])
    sh0, opacities = _colors(path, meta.sh0, colors)
    rest, bare = _higher(path, meta, pictures)
    if bare:
        warnings.append(f"{path}: {bare} splats name colours beyond the palette and look alike from all sides")
    plain = PlainSplats(
        _positions(low | high << 8, meta.means), quats, scales, opacities, sh0, rest,
        {0: 0, 3: 1, 8: 2, 15: 3}[rest.shape[1]], meta.antialiased,
    )  # fmt: skip
    return model_of(plain, path, format=name, warnings=warnings, **meta.facts)


def _positions(codes: np.ndarray, values: Values) -> np.ndarray:  # [N,3] uint16 -> [N,3] float32
    assert values.ends is not None
    low, high = values.ends
    squeezed = low + np.where(high != low, high - low, 1) * (codes / 65_535)
    with np.errstate(over="ignore"):  # infinite ones are dropped, and counted, by ``model_of``
        return (np.sign(squeezed) * np.expm1(np.abs(squeezed))).astype(np.float32)


def _numbers(path: Path, values: Values, indices: np.ndarray) -> np.ndarray:  # uint8 -> float32, the same shape
    if values.book is not None:
        top = int(indices.max(initial=0))
        need(
            path, top < len(values.book), f"{values.files[0]!r} names entry {top} of {len(values.book)} in its codebook"
        )
        return values.book[indices]
    assert values.ends is not None
    low, high = values.ends[:, : indices.shape[-1]]
    return (low + (high - low) * (indices / 255)).astype(np.float32)


def _colors(path: Path, values: Values, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients [N,3] and opacities [N] in 0..1; version 1 has logits of them."""
    if values.ends is None:
        return _numbers(path, values, pixels[:, :3]), (pixels[:, 3] / 255).astype(np.float32)
    numbers = _numbers(path, values, pixels)
    logits = np.clip(numbers[:, 3].astype(np.float64), -80, 80)
    return numbers[:, :3], (1 / (1 + np.exp(-logits))).astype(np.float32)


def _higher(path: Path, meta: SogMeta, pictures: _Pictures) -> tuple[np.ndarray, int]:
    """Coefficients [N,K-1,3] of the higher bands, and how many splats name an entry that is not there."""
    if meta.palette is None:
        return np.zeros((meta.count, 0, 3), np.float32), 0
    entries = pictures.palette(meta.palette.files[0], meta.bands)
    if meta.palette_count is not None:
        need(
            path, meta.palette_count <= len(entries),
            f"{meta.palette.files[0]!r} holds {len(entries):,} of the palette's {meta.palette_count:,} entries",
        )  # fmt: skip
        entries = entries[: meta.palette_count]
    labels = pictures.splats(meta.palette.files[1])[:, :2].astype(np.uint16)
    chosen = (labels[:, 0] | labels[:, 1] << 8).astype(np.int64)
    bare = chosen >= len(entries)
    rest = _numbers(path, meta.palette, entries)[np.where(bare, 0, chosen)]
    rest[bare] = 0
    return rest, int(bare.sum())
