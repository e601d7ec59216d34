"""What Gaussians and their relatives share: an ellipsoid per row, its colours, one opacity (specs: primitives 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import log
from typing import ClassVar

import torch
from torch import Tensor

from splat.geometry.deformation import deformed_axes, split_gradients
from splat.geometry.rotations import matrix_from_quat, quat_from_matrix, quat_product, rotated, split_similarity
from splat.geometry.sh import coefficients_of_degree, rotated_sh, sh0_from_rgb
from splat.geometry.sh_turns import turned_sh
from splat.model.activations import logit, sigmoid
from splat.model.filter3d import filtered
from splat.model.primitive import Ability, FieldSpec, Halving, Rows
from splat.model.render_inputs import RenderInputs
from splat.model.row_edit import RowEdit
from splat.model.start import neighbour_spacing

GAUSSIAN_FIELDS = ("means", "quats", "log_scales", "logit_opacities", "sh0", "sh_rest")
"""Fields of a plain 3DGS row."""
_MIN_OPACITY = 1e-7
_MAX_OPACITY = 1 - 1e-6
"""Limits of activated opacities before the logit: the closest to 0 and 1 that float32 keeps apart safely."""
_MIN_SCALE = 1e-20
"""World units; keeps log() finite, far below anything drawn."""
HALF_LENGTH, HALF_OFFSET, HALF_WIDTH, HALF_OPACITY = 0.55, 0.45, 0.893, 0.6
"""A half over the whole: length along the longest axis, distance of the centres in half lengths (of 3 standard
deviations: 1.35 of them), the other axes (sqrt(1 - 0.45^2)), opacity. Of Improved-GS (specs: densifiers 5.6)."""
_REACH = 3.0
"""Standard deviations from the centre to the end of a Gaussian, as far as halving is concerned."""
OVERLAP = 0.5**0.5
"""Length of an overlapping half over the whole, and what of the whole's optical depth it has (specs: densifiers
1.4)."""
_SPLIT_SHRINK = 0.8
"""Children are smaller by 0.8 x their number: 1.6 for two (Kerbl et al. 2023, section 5.2)."""


def raw_opacities(opacities: Tensor) -> dict[str, Tensor]:
    """The field of activated ``opacities [R]``."""
    return {"logit_opacities": logit(opacities.clamp(_MIN_OPACITY, _MAX_OPACITY))}


def raw_scales(scales: Tensor) -> dict[str, Tensor]:
    """The field of activated ``scales [R,3]``."""
    return {"log_scales": scales.clamp_min(_MIN_SCALE).log()}


def halved_opacities(opacities: Tensor, how: Halving) -> Tensor:  # [P] -> [P]
    """Of either half. Without pow(), whose last bit depends on the number of threads."""
    if how == "ends":
        return opacities * HALF_OPACITY
    depths = torch.log1p(-opacities.double().clamp(0, _MAX_OPACITY))
    return (-torch.expm1(depths * OVERLAP)).to(opacities.dtype)


def with_filter_folded(plain: dict[str, Tensor], filter3d: Tensor | None) -> dict[str, Tensor]:
    """Plain 3DGS rows that draw without the Mip 3D filter what ``plain`` draws with it."""
    if filter3d is None:
        return plain
    scales, opacities = filtered(torch.exp(plain["log_scales"]), sigmoid(plain["logit_opacities"]), filter3d)
    return plain | raw_scales(scales) | raw_opacities(opacities)


def moved_points(points: Tensor, similarity: Tensor) -> Tensor:  # [N,3], [4,4] -> [N,3]
    """Points after a similarity; in float64, as frames may lie far apart."""
    scale, rotation, translation = split_similarity(similarity)
    moved = points.double() @ (scale * rotation.T).to(points.device) + translation.to(points.device)
    return moved.to(points.dtype)


@dataclass(frozen=True)
class GaussianFamily:
    """Settings and behaviour of rows that are ellipsoids. A relative adds a field or two and says how it is drawn."""

    can: ClassVar[frozenset[Ability]] = frozenset({"split", "halve", "opacities", "scales", "covariance", "filter3d"})
    pieces: ClassVar[int] = 2
    most_pieces: ClassVar[int | None] = None

    init_opacity: float = 0.1
    """Opacity of the first splats (0.5 suits mcmc)."""
    init_scale: float = 1.0
    """Size of the first splats over the spacing of the points (0.1 suits mcmc)."""
    lr_means: float = 1.6e-4
    """Learning rate of positions at the first step, in scene extents."""
    lr_means_final: float = 1.6e-6
    """Learning rate of positions at the last step, in scene extents."""
    lr_sh0: float = 2.5e-3
    """Learning rate of the base colour."""
    lr_sh_rest: float = 1.25e-4
    """Learning rate of the view-dependent colour."""
    lr_opacities: float = 0.025
    """Learning rate of opacities (0.05 in the 2023 release and in mcmc)."""
    lr_scales: float = 5e-3
    """Learning rate of sizes."""
    lr_quats: float = 1e-3
    """Learning rate of orientations."""

    def fields(self, sh_degree: int) -> tuple[FieldSpec, ...]:
        higher = coefficients_of_degree(sh_degree) - 1
        return (
            FieldSpec("means", (3,), "identity", self.lr_means, self.lr_means_final / self.lr_means, True),
            FieldSpec("quats", (4,), "normalize", self.lr_quats),
            FieldSpec("log_scales", (3,), "exp", self.lr_scales),
            FieldSpec("logit_opacities", (), "sigmoid", self.lr_opacities),
            FieldSpec("sh0", (3,), "identity", self.lr_sh0),
            FieldSpec("sh_rest", (higher, 3), "identity", self.lr_sh_rest),
        )

    def start(self, xyz: Tensor, rgb: Tensor, *, sh_degree: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Round splats as large as the spacing of the points; nothing is drawn at random here."""
        xyz = xyz.detach().float()
        count, device = xyz.shape[0], xyz.device
        spacing = neighbour_spacing(xyz) * self.init_scale
        opacities = torch.full((count,), self.init_opacity, device=device)
        return {
            "means": xyz.clone(),
            "quats": torch.tensor([1.0, 0, 0, 0], device=device).repeat(count, 1),
            **self.with_scales(spacing[:, None].repeat(1, 3)),
            **self.with_opacities(opacities),
            "sh0": sh0_from_rgb(rgb.detach().float()),
            "sh_rest": torch.zeros(count, coefficients_of_degree(sh_degree) - 1, 3, device=device),
        }

    def render_inputs(self, rows: Rows, *, filter3d: Tensor | None = None) -> RenderInputs:
        return RenderInputs(
            rows["means"], rows["quats"], self.drawn_log_scales(rows), rows["logit_opacities"], rows["sh0"],
            rows["sh_rest"], filter3d=filter3d,
        )  # fmt: skip

    def drawn_log_scales(self, rows: Rows) -> Tensor:  # [N,3]
        """Log standard deviations of what is drawn; differentiable."""
        return rows["log_scales"]

    def opacities(self, rows: Rows) -> Tensor:
        return sigmoid(rows["logit_opacities"])

    def scales(self, rows: Rows) -> Tensor:
        return torch.exp(self.drawn_log_scales(rows))

    def covariance_product(self, rows: Rows, vectors: Tensor) -> Tensor:
        # R S S R^T v
        world_from_axes = matrix_from_quat(rows["quats"])
        along_axes = rotated(world_from_axes.transpose(1, 2), vectors) * self.scales(rows).square()
        return rotated(world_from_axes, along_axes)

    def split(self, rows: Rows, parents: Tensor, *, children: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Centres are drawn from the parent, sizes divided by 0.8 x ``children``."""
        parents = parents.repeat(children)
        chosen = {name: rows[name].detach()[parents] for name in rows if name not in ("sh0", "sh_rest")}
        scales = self.scales(chosen)
        noise = torch.randn(scales.shape, generator=generator, device=scales.device, dtype=scales.dtype)
        offsets = rotated(matrix_from_quat(chosen["quats"]), noise * scales)
        return {
            "means": chosen["means"] + offsets,
            "log_scales": chosen["log_scales"] - log(_SPLIT_SHRINK * children),
        }

    def halve(self, rows: Rows, parents: Tensor, *, how: Halving = "ends") -> dict[str, Tensor]:
        """``ends``: 1.35 standard deviations to either side along the longest axis. ``overlap``: along every axis, by
        how long it is, so that two halves have the variance of the whole."""
        chosen = {name: rows[name].detach()[parents] for name in rows if name not in ("sh0", "sh_rest")}
        scales = self.scales(chosen)
        if how == "ends":
            along = torch.nn.functional.one_hot(scales.argmax(dim=1), 3).to(scales.dtype)  # [P,3]
            steps = along * (HALF_OFFSET * _REACH)
            shrink = HALF_WIDTH + along * (HALF_LENGTH - HALF_WIDTH)
        else:
            shrink = 1 - (scales / scales.amax(dim=1, keepdim=True)).square() * (1 - OVERLAP)
            steps = (1 - shrink.square()).sqrt()
        offsets = rotated(matrix_from_quat(chosen["quats"]), steps * scales)
        return {
            "means": torch.cat([chosen["means"] + offsets, chosen["means"] - offsets]),
            "log_scales": (chosen["log_scales"] + shrink.log()).repeat(2, 1),
        } | self.with_opacities(halved_opacities(self.opacities(chosen), how).repeat(2))

    def with_opacities(self, opacities: Tensor) -> dict[str, Tensor]:
        return raw_opacities(opacities)

    def with_scales(self, scales: Tensor) -> dict[str, Tensor]:
        """The raw field of ``scales [R,3]`` for rows without any shape of their own."""
        return raw_scales(scales)

    def resized(self, rows: Rows, which: Tensor, factors: Tensor) -> dict[str, Tensor]:
        scales = torch.exp(rows["log_scales"].detach()[which])
        return raw_scales((scales.double() * factors.double()[:, None]).to(scales.dtype))

    def transformed(self, rows: Rows, similarity: Tensor) -> dict[str, Tensor]:
        scale, rotation, _ = split_similarity(similarity)
        rows = {name: table.detach() for name, table in rows.items()}
        turn = quat_from_matrix(rotation).to(rows["quats"])
        return {name: table.clone() for name, table in rows.items()} | {
            "means": moved_points(rows["means"], similarity),
            "quats": quat_product(turn.expand_as(rows["quats"]), rows["quats"]),
            "log_scales": rows["log_scales"] + log(scale),
            "sh_rest": rotated_sh(rows["sh_rest"], rotation),
        }

    def turned(self, rows: Rows, means: Tensor, turns: Tensor) -> dict[str, Tensor]:
        quats = rows["quats"].detach()
        return {"means": means.to(rows["means"].dtype), "quats": quat_product(turns.to(quats), quats)}

    def deformed(self, rows: Rows, means: Tensor, gradients: Tensor) -> dict[str, Tensor]:
        """F R S has the covariance F Sigma F^T; its orthogonal axes are the new ones. A size factor of a relative
        passes through."""
        rotations, limited = split_gradients(gradients)
        log_scales = rows["log_scales"].detach().double()
        axes = matrix_from_quat(rows["quats"].detach().double()) * log_scales.exp()[:, None]
        directions, lengths = deformed_axes(axes, limited)
        table = rows["means"]
        return {
            "means": means.to(table.dtype),
            "quats": quat_from_matrix(directions).to(table.dtype),
            "log_scales": lengths.clamp_min(_MIN_SCALE).log().to(table.dtype),
            "sh_rest": turned_sh(rows["sh_rest"].detach(), rotations),
        }

    def gaussian_rows(self, rows: Rows, *, filter3d: Tensor | None = None) -> dict[str, Tensor]:
        rows = {name: table.detach() for name, table in rows.items()}
        plain = {name: rows[name] for name in GAUSSIAN_FIELDS} | {"log_scales": self.drawn_log_scales(rows)}
        return with_filter_folded(plain, filter3d)

    def regularizer(self, rows: Rows) -> Tensor | None:
        return None

    def upkeep(self, rows: Rows, step: int) -> Iterator[RowEdit]:
        yield from ()

    def rescaled(self, factor: float) -> GaussianFamily:
        return self

    def fitted(self, focal_px: float) -> GaussianFamily:
        return self
