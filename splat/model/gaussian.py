"""The classic primitive: one anisotropic 3D Gaussian per row (specs: primitives 1)."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import ClassVar, Literal

import torch
from torch import Tensor

from splat.geometry.rotations import matrix_from_quat, quat_from_matrix, quat_product, rotated, split_similarity
from splat.geometry.sh import coefficients_of_degree, rotated_sh, sh0_from_rgb
from splat.model.activations import logit, sigmoid
from splat.model.filter3d import filtered
from splat.model.primitive import Ability, FieldSpec, Rows
from splat.model.render_inputs import RenderInputs
from splat.model.start import neighbour_spacing

_MIN_OPACITY = 1e-7
_MAX_OPACITY = 1 - 1e-6
"""Limits of activated opacities before the logit: the closest to 0 and 1 that float32 keeps apart safely."""
_MIN_SCALE = 1e-20
"""World units; keeps log() finite, far below anything drawn."""
_SPLIT_SHRINK = 0.8
"""Children are smaller by 0.8 x their number: 1.6 for two (Kerbl et al. 2023, section 5.2)."""


@dataclass(frozen=True)
class GaussianPrimitive:
    """Settings of 3D Gaussians."""

    kind: ClassVar[str] = "gaussian"
    export: ClassVar[Literal["exact", "lossy"]] = "exact"
    can: ClassVar[frozenset[Ability]] = frozenset({"split", "opacities", "scales", "covariance"})

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
            rows["means"], rows["quats"], rows["log_scales"], rows["logit_opacities"], rows["sh0"], rows["sh_rest"],
            filter3d=filter3d,
        )  # fmt: skip

    def opacities(self, rows: Rows) -> Tensor:
        return sigmoid(rows["logit_opacities"])

    def scales(self, rows: Rows) -> Tensor:
        return torch.exp(rows["log_scales"])

    def covariance_product(self, rows: Rows, vectors: Tensor) -> Tensor:
        # R S S R^T v
        world_from_axes = matrix_from_quat(rows["quats"])
        along_axes = rotated(world_from_axes.transpose(1, 2), vectors) * self.scales(rows).square()
        return rotated(world_from_axes, along_axes)

    def split(self, rows: Rows, parents: Tensor, *, children: int, generator: torch.Generator) -> dict[str, Tensor]:
        parents = parents.repeat(children)
        log_scales = rows["log_scales"].detach()[parents]
        noise = torch.randn(log_scales.shape, generator=generator, device=log_scales.device, dtype=log_scales.dtype)
        world_from_axes = matrix_from_quat(rows["quats"].detach()[parents])
        offsets = rotated(world_from_axes, noise * log_scales.exp())
        return {
            "means": rows["means"].detach()[parents] + offsets,
            "log_scales": log_scales - log(_SPLIT_SHRINK * children),
        }

    def with_opacities(self, opacities: Tensor) -> dict[str, Tensor]:
        return {"logit_opacities": logit(opacities.clamp(_MIN_OPACITY, _MAX_OPACITY))}

    def with_scales(self, scales: Tensor) -> dict[str, Tensor]:
        return {"log_scales": scales.clamp_min(_MIN_SCALE).log()}

    def transformed(self, rows: Rows, similarity: Tensor) -> dict[str, Tensor]:
        scale, rotation, translation = split_similarity(similarity)
        rows = {name: table.detach() for name, table in rows.items()}
        means = (rows["means"].double() @ (scale * rotation.T).to(rows["means"].device)) + translation.to(
            rows["means"].device
        )
        turn = quat_from_matrix(rotation).to(rows["quats"])
        return {
            "means": means.to(rows["means"].dtype),
            "quats": quat_product(turn.expand_as(rows["quats"]), rows["quats"]),
            "log_scales": rows["log_scales"] + log(scale),
            "logit_opacities": rows["logit_opacities"].clone(),
            "sh0": rows["sh0"].clone(),
            "sh_rest": rotated_sh(rows["sh_rest"], rotation),
        }

    def gaussian_rows(self, rows: Rows, *, filter3d: Tensor | None = None) -> dict[str, Tensor]:
        plain = {spec.name: rows[spec.name].detach() for spec in self.fields(0)}
        if filter3d is None:
            return plain
        scales, opacities = filtered(self.scales(plain), self.opacities(plain), filter3d)
        return plain | self.with_scales(scales) | self.with_opacities(opacities)
