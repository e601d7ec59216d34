"""Antimatter's ``.splat``: 32 bytes per splat, no header, no view-dependent colour (specs: compression B5).

A row: position and size as six float32 (sizes linear), red, green, blue and opacity as bytes 0..255, the quaternion
w, x, y, z as bytes (b - 128) / 128. Some readers take b / 127.5 - 1 instead, which is 0.004 more for every component;
nothing a writer does serves both better than rounding. Rows stand in descending order of volume times opacity, for
viewers that draw while they load. The frame is the PLY's.

Not carried: the 2D filter, the up axis, where the model came from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from splat.errors import UserError
from splat.geometry.sh import C0
from splat.io.atomic import write_bytes
from splat.io.bounded import MAX_SPLATS, need, read_bytes
from splat.io.plain import LOG_SCALE_MAX, LOG_SCALE_MIN, PlainSplats, model_of, plain_of
from splat.model.splat_model import SplatModel

_ROW = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("quats", "u1", 4)])


def looks_like_splat(head: bytes, path: Path) -> bool:
    """There is nothing but the name to tell it by."""
    return len(head) > 0 and path.suffix.lower() == ".splat"


def read_splat(path: str | Path) -> tuple[SplatModel, dict[str, Any]]:
    """A model of SH degree 0. UserError when the size is no multiple of 32 bytes."""
    path = Path(path)
    data = read_bytes(path, most=MAX_SPLATS * _ROW.itemsize)
    over = len(data) % _ROW.itemsize
    need(path, over == 0, f"not a .splat file, or cut short: {len(data):,} bytes are {over} more than whole rows of 32")
    rows = np.frombuffer(data, _ROW)
    with np.errstate(divide="ignore", invalid="ignore"):  # sizes of zero are mended, negative ones left out
        log_scales = np.log(rows["scales"])
    plain = PlainSplats(
        means=rows["means"].copy(),
        quats=(rows["quats"].astype(np.float32) - 128) / 128,
        log_scales=log_scales,
        opacities=rows["rgba"][:, 3] / np.float32(255),
        sh0=((rows["rgba"][:, :3] / 255 - 0.5) / C0).astype(np.float32),
        sh_rest=np.zeros((len(rows), 0, 3), np.float32),
        sh_degree=0,
    )
    return model_of(plain, path, format="splat")


def write_splat(model: SplatModel, path: str | Path, header: dict[str, Any] | None = None) -> None:
    """The base colours of ``model``, largest and most opaque splats first."""
    plain = plain_of(model)
    if not plain.count:
        raise UserError(f"{path}: no splats to write, and an empty .splat file is taken for a failed download")
    alphas = _bytes(plain.opacities * 255.0)
    weight = plain.log_scales.astype(np.float64).sum(axis=1) + np.log(np.maximum(alphas, 1e-9))
    order = np.argsort(-weight, kind="stable")
    plain = plain.taken(order)
    rows = np.empty(plain.count, _ROW)
    rows["means"] = plain.means
    rows["scales"] = np.exp(np.clip(plain.log_scales, LOG_SCALE_MIN, LOG_SCALE_MAX))
    rows["rgba"][:, :3] = _bytes((plain.sh0.astype(np.float64) * C0 + 0.5) * 255)
    rows["rgba"][:, 3] = alphas[order]
    rows["quats"] = _bytes(_quat_steps(plain.quats) + 128)
    write_bytes(path, rows.tobytes())


def _quat_steps(quats: np.ndarray) -> np.ndarray:  # [N,4] -> [N,4] whole numbers -128..127
    """Components in steps of 1/128; the first largest one negative, as -1 has a byte and +1 has none.

    Bytes stand for quaternions a little longer or shorter than 1. One that came from bytes gets the same bytes again.
    """
    quats = quats.astype(np.float64)
    largest = np.abs(quats).max(axis=1, keepdims=True)
    steps = np.rint(quats * 128)
    for longer in (-2, 2, -1, 1, 0):  # the last that fits is taken
        scaled = quats / largest * (np.rint(largest * 128) + longer)
        exact = (np.abs(scaled - np.rint(scaled)) < 1e-4).all(axis=1) & (np.abs(scaled) < 128.5).all(axis=1)
        steps[exact] = np.rint(scaled[exact])
    first = np.take_along_axis(steps, np.abs(steps).argmax(axis=1)[:, None], axis=1)
    return np.where(first > 0, -steps, steps)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
