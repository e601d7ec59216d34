"""Plain Gaussians in numbers: what interchange formats carry, whoever wrote them.

Every reader ends in ``model_of``, every writer starts from ``plain_of``, so that activations, clean-up and the
anti-aliasing mode are judged in one place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from splat.model.activations import sigmoid
from splat.model.filter2d import FILTERS_2D
from splat.model.splat_model import SplatModel

LOGIT_LIMIT = 20.0
"""Activations saturate in float32 beyond this; opacities of 0 and 1 read as these logits."""
LOG_SCALE_MIN, LOG_SCALE_MAX = -30.0, 30.0
"""Sizes of 0 and of e^30 and more, world units, are taken at these."""


@dataclass(frozen=True, eq=False)
class PlainSplats:
    """Gaussians in float32 numpy arrays, in whatever frame the file has."""

    means: np.ndarray  # [N,3]
    quats: np.ndarray  # [N,4] w first; unit length where ``plain_of`` made them
    log_scales: np.ndarray  # [N,3] natural logarithms of standard deviations
    opacities: np.ndarray  # [N] in 0..1
    sh0: np.ndarray  # [N,3] coefficients of the constant band
    sh_rest: np.ndarray  # [N,K-1,3], K = (degree + 1)^2
    sh_degree: int
    antialiased: bool = False
    """Opacity is to be compensated for the screen filter (``mip`` in PlayCanvas' words)."""

    @property
    def count(self) -> int:
        return len(self.means)

    def taken(self, rows: np.ndarray) -> PlainSplats:
        """These rows (indices or flags), in this order."""
        arrays = {name: getattr(self, name)[rows] for name in _ARRAYS}
        return replace(self, **arrays)


_ARRAYS = ("means", "quats", "log_scales", "opacities", "sh0", "sh_rest")


def plain_of(model: SplatModel) -> PlainSplats:
    """The rows of ``model`` as plain Gaussians, the Mip 3D filter folded in, quaternions of unit length.

    Rows with a number that is not finite cannot be drawn by anybody and are left out.
    """
    rows = {name: table.detach() for name, table in model.rows.items()}
    gaussians = model.primitive.gaussian_rows(rows, filter3d=model.filter3d)
    table = {name: tensor.cpu().float().numpy() for name, tensor in gaussians.items()}
    quats = table["quats"].astype(np.float64)
    lengths = np.linalg.norm(quats, axis=1, keepdims=True)
    quats = np.where(lengths == 0, (1.0, 0.0, 0.0, 0.0), quats / np.where(lengths == 0, 1, lengths))
    count = len(quats)
    plain = PlainSplats(
        means=table["means"], quats=quats.astype(np.float32), log_scales=table["log_scales"],
        opacities=sigmoid(gaussians["logit_opacities"].cpu().float()).numpy().reshape(count),
        sh0=table["sh0"].reshape(count, 3), sh_rest=table["sh_rest"].reshape(count, (model.sh_degree + 1) ** 2 - 1, 3),
        sh_degree=model.sh_degree, antialiased=FILTERS_2D[model.filter2d].render_mode == "mip",
    )  # fmt: skip
    finite = _finite(plain)
    return plain if finite.all() else plain.taken(finite)


def model_of(plain: PlainSplats, path: Path, **facts: Any) -> tuple[SplatModel, dict[str, Any]]:
    """A model and its header from what a reader found; ``facts`` join the header (``format`` at least; a ``filter2d``
    among them wins over ``plain.antialiased``).

    Infinities that only mean "saturated" are mended, rows that cannot be drawn are dropped; both are counted in
    ``header["warnings"]``.
    """
    from splat.model.primitives import PRIMITIVES

    warnings = list(facts.pop("warnings", ()))
    plain, mended = _mended(plain)
    finite = _finite(plain)
    warnings += cleaned_up(path, mended, finite)
    if not finite.all():
        plain = plain.taken(finite)
    opacities = plain.opacities.astype(np.float64)
    with np.errstate(divide="ignore"):
        logits = np.clip(np.log(opacities) - np.log1p(-opacities), -LOGIT_LIMIT, LOGIT_LIMIT)
    arrays = {
        "means": plain.means, "quats": plain.quats, "log_scales": plain.log_scales, "logit_opacities": logits,
        "sh0": plain.sh0, "sh_rest": plain.sh_rest,
    }  # fmt: skip
    rows = {name: torch.from_numpy(np.array(values, np.float32, order="C")) for name, values in arrays.items()}
    filter2d = facts.pop("filter2d", "aa" if plain.antialiased else "classic")
    model = SplatModel(PRIMITIVES["gaussian"](), rows, plain.sh_degree, filter2d)
    header = {"primitive": "gaussian", "sh_degree": plain.sh_degree, "filter2d": filter2d, "provenance": {}}
    return model, {**header, **facts, "warnings": warnings}


def cleaned_up(path: Path, mended: np.ndarray, finite: np.ndarray) -> list[str]:  # [N] bool, [N] bool
    """One sentence each for rows that were taken at a limit and for those that were left out."""
    told = []
    if (mended & finite).any():
        count = int((mended & finite).sum())
        told.append(f"{path}: {count} splats with infinite opacity, zero size or no rotation, taken at that limit")
    if not finite.all():
        count = int((~finite).sum())
        told.append(f"{path}: {count} of {len(finite)} splats have non-finite numbers and were left out")
    return told


def _finite(plain: PlainSplats) -> np.ndarray:  # [N] bool
    finite = np.ones(plain.count, bool)
    for name in _ARRAYS:
        values = getattr(plain, name)
        finite &= np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    return finite


def _mended(plain: PlainSplats) -> tuple[PlainSplats, np.ndarray]:
    """The splats with saturated values in range, and which of them were changed."""
    scales, quats = plain.log_scales, plain.quats
    sizeless, turnless = np.isneginf(scales).any(axis=1), (quats == 0).all(axis=1)
    opacities = np.clip(plain.opacities, 0, 1)  # NaN stays
    faulty = sizeless | turnless | (opacities != plain.opacities) & np.isfinite(opacities)
    if sizeless.any():
        scales = np.where(np.isneginf(scales), np.float32(LOG_SCALE_MIN), scales)
    if turnless.any():
        quats = np.where(turnless[:, None], np.array((1, 0, 0, 0), np.float32), quats)
    return replace(plain, log_scales=scales, quats=quats, opacities=opacities), faulty
