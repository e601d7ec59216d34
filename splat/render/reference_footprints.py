"""How each footprint covers the picture: one class and one row of ``REFERENCE_FOOTPRINTS`` each.

A footprint projects rows to ``ScreenSplats`` of its own and says how strongly they cover a point. Everything else
(order, opacity, cuts, compositing, statistics) is common. ``project`` and ``response`` are differentiable by autograd.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from splat.model.render_inputs import RenderInputs
from splat.render.reference_convex import ConvexFootprint
from splat.render.reference_projection import (
    ALPHA_MIN,
    NOWHERE,
    ProjectedGaussians,
    ScreenSplats,
    View,
    colors,
    project_gaussians,
)
from splat.render.types import RenderOptions

VARIANCE_FLOOR = 1e-6  # px^2: the analytic footprint divides by deviations
ROUND = 1e-4  # relative difference of the two variances below which an ellipse has no direction
ROUND_PX = 1e-6  # px^2, likewise
LOGISTIC_EXCESS = 1.00556
"""S'(x) / S'(0) <= this exp(-x^2 / 2) for the logistic slope S' of ``analytic``; as much at x = 2.34."""
GEF_RADIUS_SQ = 9.0  # every kernel passes exp(-4.5) at 3 deviations
GEF_EXPONENT = 4.5
GEF_CORE = 1e-6  # of q / 9: the kernel is flat inside, where powers below 1 have no slope


class ReferenceFootprint(Protocol):
    def project(self, inputs: RenderInputs, view: View, options: RenderOptions) -> ScreenSplats:
        """Every row; those that cannot be drawn may come out as nonsense."""
        ...

    def response(self, splats: ScreenSplats, dx: Tensor, dy: Tensor) -> Tensor:
        """[P,n] in [0,1], to be multiplied by the opacity, at points [P,n] px from the splats' centres."""
        ...


@dataclass(frozen=True, eq=False)
class GaussianSplats(ScreenSplats):
    conics: Tensor  # [n,3] xx, xy, yy of the inverse covariance, 1/px^2


@dataclass(frozen=True)
class GaussianFootprint:
    """exp(-q/2), q the squared Mahalanobis distance (Kerbl et al. 2023)."""

    def project(self, inputs: RenderInputs, view: View, options: RenderOptions) -> GaussianSplats:
        ellipses = project_gaussians(inputs, view, options)
        q_max = 2 * (ellipses.opacities.detach() / ALPHA_MIN).log().clamp(min=0)  # alpha(q_max) = 1/255
        return GaussianSplats(
            **_common(inputs, view, options, ellipses), radii_px=_box(ellipses, q_max), conics=_conics(ellipses)
        )

    def response(self, splats: GaussianSplats, dx: Tensor, dy: Tensor) -> Tensor:
        return torch.exp(-0.5 * _mahalanobis(splats.conics, dx, dy))


@dataclass(frozen=True, eq=False)
class GefSplats(GaussianSplats):
    powers: Tensor  # [n] h


@dataclass(frozen=True)
class GefFootprint:
    """exp(-4.5 (q/9)^h), h = 4^tanh(shape) in (1/4, 4): a generalized exponential, the Gaussian at h = 1.

    Every kernel passes exp(-4.5) at three deviations, so that the shape changes the profile and not the size.
    """

    def project(self, inputs: RenderInputs, view: View, options: RenderOptions) -> GefSplats:
        (shapes,) = inputs.shape  # [N]
        powers = torch.exp(math.log(4.0) * torch.tanh(shapes))
        ellipses = project_gaussians(inputs, view, options)
        exponent = (ellipses.opacities.detach() / ALPHA_MIN).log().clamp(min=0)  # alpha = 1/255 there
        q_max = GEF_RADIUS_SQ * (exponent / GEF_EXPONENT) ** (1 / powers.detach())
        radii_px = _box(ellipses, q_max)
        radii_px[q_max < GEF_RADIUS_SQ * GEF_CORE] = NOWHERE
        return GefSplats(
            **_common(inputs, view, options, ellipses),
            radii_px=radii_px, conics=_conics(ellipses), powers=powers,
        )  # fmt: skip

    def response(self, splats: GefSplats, dx: Tensor, dy: Tensor) -> Tensor:
        v = (_mahalanobis(splats.conics, dx, dy) / GEF_RADIUS_SQ).clamp(min=GEF_CORE)
        return torch.exp(-GEF_EXPONENT * v**splats.powers)


@dataclass(frozen=True, eq=False)
class AnalyticSplats(ScreenSplats):
    axes: Tensor  # [n,2] cosine and sine of the first axis' angle
    deviations: Tensor  # [n,2] px along the first axis and across it


@dataclass(frozen=True)
class AnalyticFootprint:
    """The Gaussian's integral over a pixel that is turned to its axes (Analytic-Splatting, Liang et al. 2024).

    The normal distribution is 1 / (1 + exp(-1.6 x - 0.07 x^3)), as published. Where the ellipse is round its axes are
    those of the picture and do not turn: their angle has no derivative there.
    """

    def project(self, inputs: RenderInputs, view: View, options: RenderOptions) -> AnalyticSplats:
        ellipses = project_gaussians(inputs, view, options)
        axes, variances = _principal(ellipses)
        opacities = ellipses.opacities.detach()
        cosine, sine = axes.detach().abs().unbind(1)
        first, second = variances.detach().unbind(1)
        # The slope S' is log-concave: a window at u has at most S'(x) / S'(0) of one at 0, x = (|u| - 1/2) / deviation.
        # So what is bright enough lies within half a (turned) pixel of an ellipse.
        peak = opacities * self._at(variances.detach().sqrt(), torch.zeros_like(axes))
        q_max = 2 * (LOGISTIC_EXCESS**2 * peak / ALPHA_MIN).log().clamp(min=0)
        extents = torch.stack([first * cosine**2 + second * sine**2, first * sine**2 + second * cosine**2], 1)
        radii_px = (q_max[:, None] * extents).sqrt() + 0.5 * (cosine + sine)[:, None]
        radii_px[peak < ALPHA_MIN] = NOWHERE
        return AnalyticSplats(
            **_common(inputs, view, options, ellipses), radii_px=radii_px, axes=axes, deviations=variances.sqrt()
        )

    def response(self, splats: AnalyticSplats, dx: Tensor, dy: Tensor) -> Tensor:
        cosine, sine = splats.axes.unbind(1)
        offsets = torch.stack([cosine * dx + sine * dy, cosine * dy - sine * dx], -1)
        return self._at(splats.deviations, offsets)

    def _at(self, deviations: Tensor, offsets: Tensor) -> Tensor:  # [n,2] px, [...,n,2] px along the axes
        """Integral of exp(-q/2) over a pixel's square about ``offsets``."""
        upper, lower = _logistic((offsets + 0.5) / deviations), _logistic((offsets - 0.5) / deviations)
        return 2 * math.pi * (deviations * (upper - lower)).prod(-1)


REFERENCE_FOOTPRINTS: dict[str, ReferenceFootprint] = {
    "gaussian": GaussianFootprint(),
    "analytic": AnalyticFootprint(),
    "gef": GefFootprint(),
    "convex": ConvexFootprint(),
}


def footprint_of(inputs: RenderInputs, options: RenderOptions) -> ReferenceFootprint:
    """The pixel integral of a Gaussian is a footprint of its own."""
    analytic = (inputs.kind, options.filter2d) == ("gaussian", "analytic")
    return REFERENCE_FOOTPRINTS["analytic" if analytic else inputs.kind]


def _common(inputs: RenderInputs, view: View, options: RenderOptions, ellipses: ProjectedGaussians) -> dict:
    exists = (ellipses.determinants > 0) & ellipses.determinants.isfinite()
    shared = {name: getattr(ellipses, name) for name in ("means2d", "depths", "opacities")}
    return shared | {"colors": colors(inputs, view, options), "exists": exists}


def _conics(ellipses: ProjectedGaussians) -> Tensor:  # [N,3]
    return torch.stack([ellipses.yy, -ellipses.xy, ellipses.xx], 1) / ellipses.determinants[:, None]


def _mahalanobis(conics: Tensor, dx: Tensor, dy: Tensor) -> Tensor:  # [n,3], [P,n] -> [P,n]
    a, b, c = conics.unbind(1)
    return a * dx * dx + 2 * b * dx * dy + c * dy * dy


def _box(ellipses: ProjectedGaussians, q_max: Tensor) -> Tensor:  # [N,2] of the ellipse q <= q_max
    return (q_max[:, None] * torch.stack([ellipses.xx, ellipses.yy], 1).detach()).sqrt()


def _principal(ellipses: ProjectedGaussians) -> tuple[Tensor, Tensor]:
    """Axes (cosine, sine of the first one's angle) [N,2] and variances along them [N,2], the larger one first."""
    xx, xy, yy = ellipses.xx, ellipses.xy, ellipses.yy
    mean = (xx + yy) / 2
    radius_sq = ((xx - yy) / 2).square() + xy.square()
    is_round = ~(2 * radius_sq.detach().sqrt() >= 2 * ROUND * mean.detach() + ROUND_PX)
    # Both branches of where() are differentiated: the unused one must not divide by zero.
    radius = torch.where(is_round, torch.ones_like(radius_sq), radius_sq).sqrt()
    angle = torch.atan2(torch.where(is_round, torch.zeros_like(xy), 2 * xy),
                        torch.where(is_round, torch.ones_like(xx), xx - yy)) / 2  # fmt: skip
    larger = mean + radius
    first = torch.where(is_round, xx, larger)
    second = torch.where(is_round, yy, ellipses.determinants / larger)  # the smaller one, without cancellation
    variances = torch.stack([first, second], 1).clamp(min=VARIANCE_FLOOR)
    return torch.stack([angle.cos(), angle.sin()], 1), variances


def _logistic(x: Tensor) -> Tensor:
    return torch.sigmoid(1.6 * x + 0.07 * x**3)
