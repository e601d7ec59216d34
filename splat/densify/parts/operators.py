"""What happens to the rows that are taken: row edits, or None where nobody is."""

from __future__ import annotations

from functools import lru_cache
from math import comb, sqrt

import torch
from torch import Tensor

from splat.densify.parts.selectors import best_first
from splat.model.filter3d import opacity_factor
from splat.model.primitive import Halving
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel

MAX_COPIES = 51
"""Largest multiplicity of ``relocated_shape`` (the reference's table size)."""
_OPACITY_BELOW_ONE = 1 - 1e-6


def shared_opacity(opacities: Tensor, copies: Tensor | int) -> Tensor:
    """Opacity of each of ``copies`` coincident splats that together cover what one did: 1 - (1 - o)^(1/copies).

    Bulo et al. 2024 ("Revising densification"); for 2 copies 1 - sqrt(1 - o). Float64, and without pow(), whose
    last bit depends on the number of threads.
    """
    opacities = opacities.double().clamp(0, _OPACITY_BELOW_ONE)
    return -torch.expm1(torch.log1p(-opacities) / copies)


def relocated_shape(opacities: Tensor, copies: Tensor, *, min_opacity: float) -> tuple[Tensor, Tensor]:
    """Opacity [R] and factor of the size [R] (float64) of each of ``copies [R]`` splats that replace one
    (Kheradmand et al. 2024, eq. 9). The factor is that of Gaussians; other kernels take it as a good guess.

    The double sum of the paper, sum_{i=1..N} sum_{k<i} C(i-1,k) (-1)^k o^(k+1) / sqrt(k+1), is summed over i first
    (sum_i C(i-1,k) = C(N,k+1)), which leaves sum_{k=1..N} C(N,k) (-1)^(k+1) o^k / sqrt(k). In float64, because
    the terms alternate and grow to 1e4 at 51 copies.
    """
    dtype, copies = opacities.dtype, copies.clamp(1, MAX_COPIES)
    opacities = opacities.double().clamp(0, _OPACITY_BELOW_ONE)
    shared = shared_opacity(opacities, copies).clamp(min_opacity, _OPACITY_BELOW_ONE)
    coefficients = _relocation_coefficients().to(opacities.device)[copies - 1]  # [R, MAX_COPIES]
    denominator, power = torch.zeros_like(shared), torch.ones_like(shared)
    for k in range(int(copies.max()) if copies.numel() else 0):
        power = power * shared
        denominator = denominator + coefficients[:, k] * power
    return shared.to(dtype), opacities / denominator


@lru_cache(maxsize=1)
def _relocation_coefficients() -> Tensor:  # [copies - 1, k - 1]
    """C(N,k) (-1)^(k+1) / sqrt(k), zero for k > N."""
    table = [
        [comb(n, k) * (-1) ** (k + 1) / sqrt(k) for k in range(1, MAX_COPIES + 1)] for n in range(1, MAX_COPIES + 1)
    ]
    return torch.tensor(table, dtype=torch.float64)


def clone_edit(model: SplatModel, chosen: Tensor, *, share_opacity: bool) -> RowEdit | None:
    """Duplicate the rows where ``chosen [N]``; with ``share_opacity`` parent and copy cover what the parent did."""
    parents = chosen.nonzero().squeeze(1)
    if parents.numel() == 0:
        return None
    edit = RowEdit.append(model.count, parents, {}, reason="clone")
    if not share_opacity:
        return edit
    shared = shared_opacity(model.opacities.detach()[parents], 2).to(torch.float32)
    copies = torch.arange(model.count, model.count + parents.shape[0], device=parents.device)
    rows = torch.cat([parents, copies])
    values = {name: (rows, new.repeat(2)) for name, new in model.primitive.with_opacities(shared).items()}
    return RowEdit(edit.source, edit.count_before, values, edit.fresh, None, edit.reason)


def split_edit(
    model: SplatModel, chosen: Tensor, *, children: int, share_opacity: bool, generator: torch.Generator
) -> RowEdit | None:
    """Replace each row where ``chosen [N]`` by ``children`` smaller ones drawn from it, at the end of the table."""
    parents = chosen.nonzero().squeeze(1)
    if parents.numel() == 0:
        return None
    values = model.primitive.split(model.rows, parents, children=children, generator=generator)
    if share_opacity:
        shared = shared_opacity(model.opacities.detach()[parents], children).to(torch.float32)
        values |= {name: new.repeat(children) for name, new in model.primitive.with_opacities(shared).items()}
    return RowEdit.replace(chosen, parents.repeat(children), values, reason="split")


def halve_edit(
    model: SplatModel, chosen: Tensor, *, how: Halving = "ends", generator: torch.Generator
) -> RowEdit | None:
    """Replace each row where ``chosen [N]`` by its two halves, at the end of the table; primitives that cannot halve
    split in two (only that draws at random)."""
    if "halve" not in model.primitive.can:
        return split_edit(model, chosen, children=2, share_opacity=False, generator=generator)
    parents = chosen.nonzero().squeeze(1)
    if parents.numel() == 0:
        return None
    return RowEdit.replace(
        chosen, parents.repeat(2), model.primitive.halve(model.rows, parents, how=how), reason="split"
    )


def prune_edit(keep: Tensor) -> RowEdit | None:
    """Drop the rows where ``keep [N]`` is false."""
    return None if bool(keep.all()) else RowEdit.keep(keep)


def cap_edit(model: SplatModel, cap: int | None) -> RowEdit | None:
    """Drop the faintest rows above ``cap``."""
    if cap is None or model.count <= cap:
        return None
    everyone = torch.ones(model.count, dtype=torch.bool, device=model.device)
    return prune_edit(best_first(everyone, model.opacities.detach().nan_to_num(-1.0), cap))


def opacity_reset_edit(model: SplatModel, ceiling: float) -> RowEdit:
    """Lower every opacity *as drawn* to ``ceiling`` at most; moments of the opacity fields start again.

    With a Mip 3D filter the drawn opacity is o * factor, so that product is what gets limited (Yu et al. 2024).
    """
    opacities = model.opacities.detach()
    ceilings = torch.full_like(opacities, ceiling)
    if model.filter3d is not None:
        ceilings = ceiling / opacity_factor(model.scales.detach(), model.filter3d).clamp_min(1e-12)
    rows = torch.arange(model.count, device=opacities.device)
    values = {
        name: (rows, new) for name, new in model.primitive.with_opacities(torch.minimum(opacities, ceilings)).items()
    }
    return RowEdit.overwrite(
        model.count, values, fresh=torch.ones_like(rows, dtype=torch.bool), fresh_fields=frozenset(values),
        reason="reset",
    )  # fmt: skip


def opacity_decay_edit(model: SplatModel, *, loss: float, factor: float = 1.0, floor: float = 0.0) -> RowEdit | None:
    """Lower every opacity to ``factor * o - loss``, not below ``floor`` (nor below itself); moments go on. What
    pictures need climbs back, what they do not need fades."""
    if model.count == 0 or (loss <= 0 and factor >= 1):
        return None
    opacities = model.opacities.detach()
    lowered = torch.minimum((opacities * factor - loss).clamp_min(floor), opacities)
    rows = torch.arange(model.count, device=opacities.device)
    values = {name: (rows, new) for name, new in model.primitive.with_opacities(lowered).items()}
    return RowEdit.overwrite(model.count, values, reason="decay")
