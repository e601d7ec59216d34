"""Splats with some coordinate axes reversed, exactly: every number keeps its magnitude.

Axes are named by where x, y, z point, as SPZ does: R/L right/left, U/D up/down, F/B front/back. A PLY of a capture is
RDF, SPZ stores RUB, glTF is LUF.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from splat.io.plain import PlainSplats

Signs = tuple[int, int, int]

_SH_AXES = ("y", "z", "x", "xy", "yz", "", "xz", "", "y", "xyz", "y", "z", "x", "z", "x")
"""The axes in which each basis function of the bands 1 to 3 is odd (``splat.geometry.sh``)."""


def signs_between(source: str, target: str) -> Signs:
    """What x, y, z of ``source`` axes are multiplied by to be ``target``'s: ``("RDF", "RUB")`` -> (1, -1, -1)."""
    x, y, z = (1 if a == b else -1 for a, b in zip(source, target, strict=True))
    return x, y, z


def flipped(plain: PlainSplats, signs: Signs) -> PlainSplats:
    """The same picture in axes multiplied by ``signs``; doing it twice gives the very same numbers.

    With M = diag(signs), a rotation R becomes M R M: the ellipsoid is M's image, as its own axes have no direction.
    """
    x, y, z = signs
    by_axis = {"x": x, "y": y, "z": z}
    parities = [int(np.prod([by_axis[axis] for axis in axes])) for axes in _SH_AXES[: plain.sh_rest.shape[1]]]
    with np.errstate(invalid="ignore"):  # signalling NaNs of damaged files stay NaNs
        return replace(
            plain,
            means=plain.means * np.array(signs, np.float32),
            quats=plain.quats * np.array((1, y * z, x * z, x * y), np.float32),
            sh_rest=plain.sh_rest * np.array(parities, np.float32)[:, None],
        )
