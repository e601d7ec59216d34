"""The table of footprints: what each kind of splat hands to a rasterizer, and which filters it can be drawn with."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from splat.model.filter2d import FILTERS_2D, Filter2d
from splat.model.render_inputs import RenderInputs


@dataclass(frozen=True)
class Footprint:
    """One row of the table."""

    filters2d: frozenset[Filter2d]
    filter3d: bool
    """Whether the Mip 3D filter means anything for it."""
    axes: bool
    """Whether it is an ellipsoid with quats and log_scales."""
    shape: tuple[str, ...] = ()
    """Names of its own tables, in order."""
    constants: int = 0
    """How many numbers its rows share."""


_EVERY = frozenset(FILTERS_2D)
FOOTPRINTS: dict[str, Footprint] = {
    "gaussian": Footprint(_EVERY, filter3d=True, axes=True),
    "gef": Footprint(_EVERY - {"analytic"}, filter3d=True, axes=True, shape=("shapes",)),
    "convex": Footprint(
        frozenset({"classic"}), filter3d=False, axes=False, shape=("vertices", "log_deltas", "log_sigmas"), constants=2
    ),
}
"""``RenderInputs.kind`` -> what it takes."""


def misfit(inputs: RenderInputs, filter2d: str) -> str | None:
    """One sentence why these rows cannot be drawn with this filter, whoever draws; None when they can."""
    footprint = FOOTPRINTS.get(inputs.kind)
    if footprint is None:
        return f"there is no footprint '{inputs.kind}'; choices: {', '.join(FOOTPRINTS)}"
    if filter2d not in FILTERS_2D:
        return f"filter2d '{filter2d}' is unknown; use one of {', '.join(FILTERS_2D)}"
    if filter2d not in footprint.filters2d:
        choices = ", ".join(name for name in FILTERS_2D if name in footprint.filters2d)
        return f"'{inputs.kind}' splats cannot be drawn with filter2d '{filter2d}', only with: {choices}"
    if inputs.filter3d is not None and not footprint.filter3d:
        return f"'{inputs.kind}' splats cannot be drawn with the Mip 3D filter"
    return None


def check_tables(inputs: RenderInputs) -> None:
    """Raise ValueError where a table's shape, dtype or device does not fit the footprint's."""
    footprint, n, like = FOOTPRINTS[inputs.kind], inputs.count, inputs.means
    tails: dict[str, tuple[int, ...]] = {"means": (3,), "logit_opacities": (), "sh0": (3,)}
    if footprint.axes:
        tails |= {"quats": (4,), "log_scales": (3,)}
    for name, tail in tails.items():
        tensor = getattr(inputs, name)
        if tensor is None or tuple(tensor.shape) != (n, *tail) or tensor.dtype != like.dtype:
            raise ValueError(f"{name} must be {[n, *tail]} {like.dtype}, got {_described(tensor)}")
    if inputs.sh_rest.ndim != 3 or inputs.sh_rest.shape[1] not in (0, 3, 8, 15):
        raise ValueError(f"sh_rest must be [N,K-1,3] with K in 1, 4, 9, 16, got {list(inputs.sh_rest.shape)}")
    if len(inputs.shape) != len(footprint.shape) or len(inputs.constants) != footprint.constants:
        raise ValueError(
            f"'{inputs.kind}' splats take {len(footprint.shape)} shape tables ({', '.join(footprint.shape) or 'none'}) "
            f"and {footprint.constants} constants, got {len(inputs.shape)} and {len(inputs.constants)}"
        )
    for name, tensor in zip(footprint.shape, inputs.shape, strict=True):
        good = (n, *tensor.shape[1:]) == tuple(tensor.shape) and tensor.dtype == like.dtype
        if name == "vertices":
            good = good and tensor.ndim == 3 and 3 <= tensor.shape[1] <= MOST_VERTICES and tensor.shape[2] == 3
        else:
            good = good and tensor.ndim == 1
        if not good:
            wanted = f"[{n},3..{MOST_VERTICES},3]" if name == "vertices" else f"[{n}]"
            raise ValueError(f"{name} must be {wanted} {like.dtype}, got {_described(tensor)}")


MOST_VERTICES = 8
"""Edges a convex's record has room for."""


def _described(tensor: Tensor | None) -> str:
    return "None" if tensor is None else f"{list(tensor.shape)} {tensor.dtype}"
