"""3D smooth convexes (Held et al. 2025; specs: primitives 3): the hull of a few points, with a border as soft as it
learns to be.

Where we leave the paper: places have a field of their own (the vertices are offsets, centred where they are used);
the softness refers to a focal length of the scene, not to the pixels of whatever picture is drawn; the first splats
look alike whatever the units of the world; gradients are those of the picture. ``published_*`` brings the paper's
behaviour back, for its numbers, and the presets ``convex-light``, ``-indoor`` and ``-outdoor`` its rates; the defaults
here are ours, for thousands of steps instead of tens of thousands (vertices that move several times as fast are worth
2 dB there).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import log
from typing import ClassVar, Literal

import torch
from torch import Tensor

from splat.geometry.deformation import split_gradients
from splat.geometry.rotations import matrix_from_quat, quat_from_matrix, split_similarity
from splat.geometry.sh import coefficients_of_degree, rotated_sh, sh0_from_rgb
from splat.geometry.sh_turns import turned_sh
from splat.model.activations import sigmoid
from splat.model.gaussian_family import (
    HALF_LENGTH,
    HALF_WIDTH,
    OVERLAP,
    halved_opacities,
    moved_points,
    raw_opacities,
    raw_scales,
    with_filter_folded,
)
from splat.model.gaussian_match import SHARPEST, convex_match, fibonacci_sphere
from splat.model.primitive import Ability, FieldSpec, Halving, Rows
from splat.model.render_inputs import RenderInputs
from splat.model.row_edit import RowEdit
from splat.model.start import neighbour_spacing

MIN_POINTS, MAX_POINTS = 3, 8
"""Vertices the native footprint has room for."""
_PUBLISHED_FOCAL_PX = 1000.0
"""About that of the captures the paper was tuned on (580 to 1500 px)."""
_PUBLISHED_RADIUS = 1.2
"""Of the first splats over the spacing of the points."""
_PUBLISHED_SPACING = 0.02
"""World units: about the spacing of points in those captures (their cameras span 5 units)."""
_MASKED_LOGIT = -30.0
"""Of splats that are switched off: far below anything drawn."""
_TINY = 1e-24
"""World units squared; keeps the root of a variance differentiable at 0."""
_THIN = 1e-4
"""Least over largest axis of an exported Gaussian: what float32 rotations keep apart."""


@dataclass(frozen=True)
class ConvexPrimitive:
    """Settings of smooth convexes."""

    kind: ClassVar[str] = "convex"
    purpose: ClassVar[str] = "hulls of a few points, for man-made scenes with hard edges; steps 4 to 5 times as long"
    export: ClassVar[Literal["exact", "lossy"]] = "lossy"
    can: ClassVar[frozenset[Ability]] = frozenset({"split", "halve", "opacities", "scales", "covariance", "sharpness"})

    points: int = 6
    """Vertices of a convex, 3 to 8."""
    init_opacity: float = 0.3
    """Opacity of the first splats."""
    init_radius: float = 0.8
    """Radius of the first splats over the spacing of the points. Not ``init_scale``, which mcmc makes small: vertices
    move by steps in the world, not in the logarithm, so that small convexes stay small."""
    init_smoothness: float = 0.1
    """Of the first splats (delta), over the spacing of the points; larger gives sharper corners."""
    init_sharpness: float = 9.5e-4
    """Of the first splats' borders (sigma), for points 0.02 units apart; larger is harder."""
    child_scale: float = 0.63
    """Size of the pieces of a split over that of the parent."""
    child_opacity: float = 0.5
    """Opacity of the pieces over that of the parent."""
    child_sharpness: float = 0.88
    """Exponent: the pieces of a border of sharpness s have s to this power (harder, for s below 1)."""
    masks: bool = True
    """Learn for every splat whether it is needed at all."""
    mask_threshold: float = 0.01
    """Splats whose mask falls to this are switched off."""
    mask_weight: float = 5e-4
    """Weight of the mean mask in the loss."""
    lr_means: float = 3e-4
    """Learning rate of positions at the first step, in scene extents."""
    lr_means_final: float = 3e-6
    """Learning rate of positions at the last step, in scene extents."""
    lr_vertices: float = 7e-4
    """Learning rate of vertices at the first step, in scene extents (the paper: 5e-4 world units, or 1e-4
    extents)."""
    lr_vertices_final: float = 2e-5
    """Learning rate of vertices at the last step, in scene extents."""
    lr_deltas: float = 0.02
    """Learning rate of the smoothness of corners (log)."""
    lr_sigmas: float = 0.02
    """Learning rate of the sharpness of borders (log)."""
    lr_opacities: float = 0.025
    """Learning rate of opacities."""
    lr_masks: float = 0.01
    """Learning rate of masks."""
    lr_sh0: float = 2.5e-3
    """Learning rate of the base colour."""
    lr_sh_rest: float = 1.25e-4
    """Learning rate of the view-dependent colour."""
    reference_focal: float | None = None
    """Focal length (px) that smoothness and sharpness refer to; None takes the capture's when training begins."""
    published_resolution: bool = False
    """Tie sharpness to the pixels drawn, as published: at half the size everything is softer."""
    published_gradients: bool = False
    """The published gradients of vertices: no pixel factor, no share of the depth."""

    def __post_init__(self) -> None:
        if not MIN_POINTS <= self.points <= MAX_POINTS:
            raise ValueError(f"points = {self.points} does not fit: a convex has {MIN_POINTS} to {MAX_POINTS} vertices")
        if self.reference_focal is not None and not self.reference_focal > 0:
            raise ValueError(f"reference_focal = {self.reference_focal} does not fit: it must be above 0 px")

    @property
    def pieces(self) -> int:
        """One per vertex."""
        return self.points

    @property
    def most_pieces(self) -> int:
        return self.points

    def fields(self, sh_degree: int) -> tuple[FieldSpec, ...]:
        higher = coefficients_of_degree(sh_degree) - 1
        decay = self.lr_vertices_final / self.lr_vertices
        return (
            FieldSpec("means", (3,), "identity", self.lr_means, self.lr_means_final / self.lr_means, True),
            FieldSpec("vertices", (self.points, 3), "identity", self.lr_vertices, decay, True),
            FieldSpec("log_deltas", (), "exp", self.lr_deltas),
            FieldSpec("log_sigmas", (), "exp", self.lr_sigmas),
            FieldSpec("logit_opacities", (), "sigmoid", self.lr_opacities),
            *([FieldSpec("masks", (), "sigmoid", self.lr_masks)] if self.masks else []),
            FieldSpec("sh0", (3,), "identity", self.lr_sh0),
            FieldSpec("sh_rest", (higher, 3), "identity", self.lr_sh_rest),
        )

    def start(self, xyz: Tensor, rgb: Tensor, *, sh_degree: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Fibonacci spheres as large as the spacing d of the points; nothing is drawn at random here.

        The middle of a convex has a logit of about sigma * delta * d^2 * focal^2. The paper starts with delta = 0.1 / d
        and one sigma, which is soft where points are dense, or the picture or the unit of the world is small: each
        splat then covers many times its size. So delta follows the focal length, and sigma is the paper's where points
        are 0.02 apart and inverse to d elsewhere (both to the radius, too): all splats look alike, as those there do.
        """
        xyz = xyz.detach().float()
        count, device = xyz.shape[0], xyz.device
        spacing = neighbour_spacing(xyz)
        log_deltas = log(self.init_smoothness) - spacing.log()
        log_sigmas = torch.full((count,), log(self.init_sharpness), device=device)
        if not self.published_resolution:
            smaller = log(_PUBLISHED_RADIUS / self.init_radius)
            farther = 2 * log(_PUBLISHED_FOCAL_PX / (self.reference_focal or _PUBLISHED_FOCAL_PX))
            log_deltas = log_deltas + smaller + farther
            log_sigmas = log_sigmas + smaller + log(_PUBLISHED_SPACING) - spacing.log()
        sphere = fibonacci_sphere(self.points).to(device) * self.init_radius
        rows = {
            "means": xyz.clone(),
            "vertices": spacing[:, None, None] * sphere,
            "log_deltas": log_deltas,
            "log_sigmas": log_sigmas,
            **raw_opacities(torch.full((count,), self.init_opacity, device=device)),
            "masks": torch.ones(count, device=device),
            "sh0": sh0_from_rgb(rgb.detach().float()),
            "sh_rest": torch.zeros(count, coefficients_of_degree(sh_degree) - 1, 3, device=device),
        }
        return {spec.name: rows[spec.name] for spec in self.fields(sh_degree)}

    def render_inputs(self, rows: Rows, *, filter3d: Tensor | None = None) -> RenderInputs:
        focal = 0.0 if self.published_resolution else (self.reference_focal or 0.0)
        return RenderInputs(
            rows["means"], None, None, self._drawn_logits(rows), rows["sh0"], rows["sh_rest"], filter3d=filter3d,
            kind=self.kind, shape=(rows["vertices"], rows["log_deltas"], rows["log_sigmas"]),
            constants=(focal, float(self.published_gradients)),
        )  # fmt: skip

    def _drawn_logits(self, rows: Rows) -> Tensor:  # [N]
        """Raw opacities, switched off where the mask is; its gradient is that of o * sigmoid(mask), straight through
        the threshold (Lee et al. 2024)."""
        logits = rows["logit_opacities"]
        if not self.masks:
            return logits
        strength = sigmoid(rows["masks"])
        # d opacity / d logit is o (1 - o): over (1 - o) leaves o.
        through = strength / (1 - sigmoid(logits.detach())).clamp_min(1e-6)
        return torch.where(strength > self.mask_threshold, logits + (through - through.detach()), _MASKED_LOGIT)

    def opacities(self, rows: Rows) -> Tensor:
        """As drawn: 0 for what is switched off."""
        return sigmoid(self._drawn_logits(rows))

    def sharpness(self, rows: Rows) -> Tensor:
        return torch.exp(rows["log_sigmas"])

    def scales(self, rows: Rows) -> Tensor:
        """Standard deviations of the vertices along the axes of the world."""
        offsets = _centred(rows["vertices"])
        return (_sum_of_vertices(offsets.square()) / self.points + _TINY).sqrt()

    def covariance_product(self, rows: Rows, vectors: Tensor) -> Tensor:
        offsets = _centred(rows["vertices"])
        x, y, z = offsets.unbind(2)
        along = x * vectors[:, :1] + y * vectors[:, 1:2] + z * vectors[:, 2:]  # [N,K]
        return _sum_of_vertices(offsets * along[..., None]) / self.points

    def split(self, rows: Rows, parents: Tensor, *, children: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Each child is the parent made smaller and moved onto one of its vertices: every vertex once, or, with fewer
        children, some of them, drawn at random."""
        if not 1 <= children <= self.points:
            raise ValueError(f"a convex of {self.points} vertices splits into 1 to {self.points}, not {children}")
        offsets = _centred(rows["vertices"].detach()[parents])
        if children == self.points:
            order = torch.arange(children, device=parents.device).repeat(parents.shape[0], 1)
        else:
            lots = torch.rand(parents.shape[0], self.points, generator=generator, device=parents.device)
            order = lots.sort(dim=1, stable=True).indices[:, :children]
        corners = offsets.gather(1, order[..., None].expand(-1, -1, 3))  # [P,children,3]
        means = rows["means"].detach()[parents][:, None] + corners
        log_sigmas = rows["log_sigmas"].detach()[parents]
        opacities = self._opacities_of(rows, parents)
        # Above 1, the power would make the border softer.
        harder = torch.maximum(log_sigmas, log_sigmas * self.child_sharpness)
        return {
            "means": means.transpose(0, 1).flatten(0, 1),
            "vertices": (offsets * self.child_scale).repeat(children, 1, 1),
            "log_sigmas": harder.repeat(children),
        } | raw_opacities((opacities * self.child_opacity).repeat(children))

    def halve(self, rows: Rows, parents: Tensor, *, how: Halving = "ends") -> dict[str, Tensor]:
        """Along the line between the two vertices farthest apart, whose ends the halves keep; what overlaps is as wide
        as the whole. Lines of the hull shrink with its area, which smoothness makes up for."""
        length, width = (HALF_LENGTH, HALF_WIDTH) if how == "ends" else (OVERLAP, 1.0)
        offsets = _centred(rows["vertices"].detach()[parents])  # [P,K,3]
        direction = _longest_axis(offsets)[:, None]  # [P,1,3]
        x, y, z = (offsets * direction).unbind(2)
        along = (x + y + z)[..., None]  # [P,K,1]
        first, last = along.amin(dim=1), along.amax(dim=1)  # [P,1]
        means, direction = rows["means"].detach()[parents], direction[:, 0]
        # The vertices of a half are centred on its mean: an end that was at t is now at length * t from there.
        ends = [means + end * (1 - length) * direction for end in (last, first)]
        half = (offsets - along * direction[:, None]) * width + along * length * direction[:, None]
        size = log(length * width**2) / 3
        return {
            "means": torch.cat(ends),
            "vertices": _centred(half).repeat(2, 1, 1),
            "log_deltas": (rows["log_deltas"].detach()[parents] - 2 * size).repeat(2),
        } | raw_opacities(halved_opacities(self._opacities_of(rows, parents), how).repeat(2))

    def _opacities_of(self, rows: Rows, which: Tensor) -> Tensor:  # [N], [R] -> [R]
        names = ("logit_opacities", "masks") if self.masks else ("logit_opacities",)
        return self.opacities({name: rows[name].detach()[which] for name in names})

    def with_opacities(self, opacities: Tensor) -> dict[str, Tensor]:
        return raw_opacities(opacities)

    def resized(self, rows: Rows, which: Tensor, factors: Tensor) -> dict[str, Tensor]:
        """Lines of the hull grow with the square of the size; the smoothness makes up for it."""
        vertices, log_deltas = rows["vertices"].detach()[which], rows["log_deltas"].detach()[which]
        factors = factors.to(vertices.dtype)
        return {"vertices": vertices * factors[:, None, None], "log_deltas": log_deltas - 2 * factors.log()}

    def transformed(self, rows: Rows, similarity: Tensor) -> dict[str, Tensor]:
        """In a world s times as large, cameras see the same pixels s times as far away. Smoothness and sharpness are
        multiplied by that depth, so both are divided by s."""
        scale, rotation, _ = split_similarity(similarity)
        rows = {name: table.detach() for name, table in rows.items()}
        turn = (scale * rotation.T).to(rows["vertices"].device)
        return {name: table.clone() for name, table in rows.items()} | {
            "means": moved_points(rows["means"], similarity),
            "vertices": (rows["vertices"].double() @ turn).to(rows["vertices"].dtype),
            "log_deltas": rows["log_deltas"] - log(scale),
            "log_sigmas": rows["log_sigmas"] - log(scale),
            "sh_rest": rotated_sh(rows["sh_rest"], rotation),
        }

    def turned(self, rows: Rows, means: Tensor, turns: Tensor) -> dict[str, Tensor]:
        vertices = rows["vertices"].detach()
        return {
            "means": means.to(vertices.dtype),
            "vertices": _times(matrix_from_quat(turns.to(vertices)), vertices),
        }

    def deformed(self, rows: Rows, means: Tensor, gradients: Tensor) -> dict[str, Tensor]:
        """Vertices follow the deformation; smoothness and sharpness are those of ``transformed``, with the cube root
        of how the volume grows as the scale."""
        rotations, limited = split_gradients(gradients)
        vertices = rows["vertices"].detach()
        a, b, c = limited.unbind(2)  # columns
        log_size = (torch.linalg.cross(a, b) * c).unbind(1)
        log_size = ((log_size[0] + log_size[1] + log_size[2]).log() / 3).to(vertices.dtype)
        return {
            "means": means.to(vertices.dtype),
            "vertices": _times(limited, vertices.double()).to(vertices.dtype),
            "log_deltas": rows["log_deltas"].detach() - log_size,
            "log_sigmas": rows["log_sigmas"].detach() - log_size,
            "sh_rest": turned_sh(rows["sh_rest"].detach(), rotations),
        }

    def gaussian_rows(self, rows: Rows, *, filter3d: Tensor | None = None) -> dict[str, Tensor]:
        """Gaussians with the covariance of the vertices, made larger or smaller and stronger or fainter by how hard
        the border is (``gaussian_match``)."""
        rows = {name: table.detach() for name, table in rows.items()}
        variances, axes = _principal_axes(_centred(rows["vertices"].double()) / self.points**0.5)
        opacities = self.opacities(rows)
        size, strength = convex_match(self.points, self._hardness(rows, variances), opacities)
        scales = variances.sqrt() * size.double()[:, None]
        plain = {
            "means": rows["means"],
            "quats": quat_from_matrix(axes).to(rows["means"]),
            **raw_scales(scales.to(rows["means"].dtype)),
            **raw_opacities(opacities * strength),
            "sh0": rows["sh0"],
            "sh_rest": rows["sh_rest"],
        }
        return with_filter_folded(plain, filter3d)

    def _hardness(self, rows: Rows, variances: Tensor) -> Tensor:  # [N], [N,3] -> [N]
        """Logit per unit of line value over covariance area, in the mean of three views along the axes. The depth
        cancels: lines shrink with its square, which both factors multiply."""
        if self.published_resolution or self.reference_focal is None:
            return torch.full_like(rows["log_sigmas"], SHARPEST)
        a, b, c = variances.sqrt().unbind(1)
        area = (a * b + b * c + c * a) / 3
        steepness = (rows["log_sigmas"] + rows["log_deltas"]).double().exp() * self.reference_focal**2
        return (steepness * area).to(rows["log_sigmas"].dtype)

    def regularizer(self, rows: Rows) -> Tensor | None:
        if not self.masks or self.mask_weight == 0 or rows["masks"].shape[0] == 0:
            return None
        return self.mask_weight * sigmoid(rows["masks"]).mean()

    def upkeep(self, rows: Rows, step: int) -> Iterator[RowEdit]:
        yield from ()

    def rescaled(self, factor: float) -> ConvexPrimitive:
        return self

    def fitted(self, focal_px: float) -> ConvexPrimitive:
        if self.published_resolution or self.reference_focal is not None:
            return self
        return replace(self, reference_focal=float(focal_px))


def _sum_of_vertices(table: Tensor) -> Tensor:  # [N,K,...] -> [N,...]
    """One after the other: the same bits on any number of threads."""
    first, *others = table.unbind(1)
    for other in others:
        first = first + other
    return first


def _centred(vertices: Tensor) -> Tensor:  # [N,K,3] -> [N,K,3]
    return vertices - (_sum_of_vertices(vertices) / vertices.shape[1])[:, None]


def _times(matrices: Tensor, vertices: Tensor) -> Tensor:  # [N,3,3], [N,K,3] -> [N,K,3]
    """Matrix times every vertex of its row, written out."""
    x, y, z = (column[:, None] for column in matrices.unbind(2))
    return x * vertices[..., :1] + y * vertices[..., 1:2] + z * vertices[..., 2:]


def _longest_axis(offsets: Tensor) -> Tensor:  # [P,K,3] -> [P,3]
    """Direction between the two vertices farthest apart; zero where all coincide."""
    pairs = (offsets[:, :, None] - offsets[:, None]).flatten(1, 2)  # [P,K*K,3]
    x, y, z = pairs.square().unbind(2)
    squared = x + y + z
    farthest = pairs.gather(1, squared.argmax(dim=1)[:, None, None].expand(-1, 1, 3))[:, 0]
    return farthest / squared.amax(dim=1)[:, None].clamp_min(_TINY).sqrt()


def _principal_axes(offsets: Tensor) -> tuple[Tensor, Tensor]:  # [N,K,3] -> [N,3], [N,3,3]
    """Variances and axes (a rotation, in columns) of sum_k v_k v_k^T; round where that is not finite."""
    covariance = offsets.transpose(1, 2) @ offsets
    finite = torch.isfinite(covariance).all(dim=2).all(dim=1)[:, None, None]
    identity = torch.eye(3, dtype=covariance.dtype, device=covariance.device)
    variances, axes = torch.linalg.eigh(torch.where(finite, covariance, identity))
    variances = torch.maximum(variances, variances[:, 2:] * _THIN**2).clamp_min(_TINY)
    mirrored = torch.linalg.det(axes) < 0
    return variances, torch.where(mirrored[:, None, None], -axes, axes)
