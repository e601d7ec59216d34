"""Rounding that a picture can be trained through: the values drawn are those the file will hold, to the last step.

Steps are multiples of one length after ``through``, not shares of the range between the smallest and the largest value:
one splat far out then makes nobody else coarser (entropy coding makes unused steps free), and steps do not move while
values do.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod, sqrt
from typing import Literal

import torch
from torch import Tensor

from splat.io.codecs.codec import attribute_of, code_type
from splat.io.codecs.smallest3 import Smallest3
from splat.io.codecs.uniform import Uniform
from splat.io.packed import Attribute, Coding
from splat.model.activations import logit, sigmoid

Through = Literal["identity", "log", "sigmoid"]
FAINTEST, STRONGEST = 0.004, 0.996
"""Ends of opacities: below the first (1/255 is the blending cut) nothing is seen, the second is opaque to the eye."""
_MOST_CODES = 2**16
_REACH = 1 / sqrt(2)


@dataclass(frozen=True)
class Steps:
    """Equal steps of ``length`` after ``through``; of opacities, between their fixed ends."""

    length: float
    through: Through = "identity"

    def codes(self, values: Tensor) -> tuple[Tensor, float]:
        """Multiples [N,...] float of the length that is returned: the own, doubled until all fit into 16 bits."""
        if self.through == "sigmoid":
            last = round((STRONGEST - FAINTEST) / self.length)
            return ((sigmoid(values) - FAINTEST) / self.length).round().clamp(0, last), self.length
        warped = _signed_log(values) if self.through == "log" else values
        length = self.length
        finite = warped[warped.isfinite()]
        reach = float(finite.max() - finite.min()) if finite.numel() else 0.0
        while reach / length > _MOST_CODES - 2:
            length *= 2
        return (warped / length).round(), length

    def values(self, codes: Tensor, length: float) -> Tensor:
        """Back from ``codes``."""
        if self.through == "sigmoid":
            return logit(FAINTEST + codes * length)
        return _signed_exp(codes * length) if self.through == "log" else codes * length

    def rounded(self, values: Tensor) -> Tensor:
        """The nearest steps; backwards as if nothing were done."""
        if not values.numel():
            return values
        with torch.no_grad():
            steps = self.values(*self.codes(values.detach()))
        return values + (steps - values.detach())

    def attribute(self, values: Tensor, coding: Coding) -> Attribute:
        """``values [N,...]``, finite, as the codec ``uniform`` reads them."""
        codes, length = self.codes(values.detach())
        table = codes.double().reshape(len(codes), prod(codes.shape[1:]))
        if self.through == "sigmoid":
            low, levels = table.new_zeros(1), round((STRONGEST - FAINTEST) / length)
        else:
            low = table.amin(0) if len(table) else table.new_zeros(table.shape[1])
            levels = int((table - low).max()) if table.numel() else 0
        bits = max(levels.bit_length(), 1)
        low, high = low.expand(table.shape[1]), (low + (2**bits - 1)).expand(table.shape[1])
        if self.through == "sigmoid":  # its steps end where opacities do
            bits = _bits_of(levels)
            high = low + levels
        ends = [self.values(end, length).tolist() for end in (low, high)]
        kept = (table - low).cpu().numpy().round().astype(code_type(2**bits - 1)).reshape(tuple(values.shape))
        numbers = {"bits": bits, "through": self.through, "low": ends[0], "high": ends[1]}
        return attribute_of(Uniform, numbers, {"codes": kept}, {"": values.cpu().float().numpy()}, {"codes": coding})


def opacity_steps(bits: int) -> Steps:
    """2^bits opacities from the faintest to the strongest."""
    return Steps((STRONGEST - FAINTEST) / (2**bits - 1), "sigmoid")


def rounded_quats(quats: Tensor, bits: int) -> Tensor:  # [N,4] -> [N,4]
    """As the codec ``smallest3`` keeps them: length 1, the largest component positive; differentiable."""
    if not len(quats):
        return quats
    unit = one_sign(quats)
    half = 2 ** (bits - 1) - 1
    with torch.no_grad():
        largest = unit.abs().argmax(1, keepdim=True)
        rest = (((unit / _REACH + 1) * half).round().clamp(0, 2 * half) / half - 1) * _REACH
        rest = rest.scatter(1, largest, 0.0)
        w, x, y, z = rest.square().unbind(1)
        last = (1 - (w + x + y + z)).clamp_min(0).sqrt()
        kept = rest.scatter(1, largest, last[:, None])
        kept = kept / (w + x + y + z + last.square()).sqrt()[:, None]
    return unit + (kept - unit.detach())


def quats_attribute(quats: Tensor, bits: int, coding: Coding) -> Attribute:
    """``quats [N,4]``, finite."""
    return Smallest3(bits, coding=coding).encode(one_sign(quats.detach()).cpu().numpy())


def one_sign(quats: Tensor) -> Tensor:  # [N,4] -> [N,4]
    """The same turns by quaternions of length 1 with their largest component positive; length 0 is no turn."""
    w, x, y, z = quats.unbind(1)
    squares = w * w + x * x + y * y + z * z
    length = torch.where(squares > 0, squares, 1.0).sqrt()
    largest = quats.detach().gather(1, quats.detach().abs().argmax(1, keepdim=True))
    unit = quats / length[:, None] * torch.where(largest < 0, -1.0, 1.0)
    return torch.where(squares[:, None] > 0, unit, unit.new_tensor([1.0, 0.0, 0.0, 0.0]))


def _bits_of(levels: int) -> int:
    bits = max(levels.bit_length(), 1)
    if 2**bits - 1 != levels:
        raise ValueError(f"{levels} steps of opacity are not one less than a power of two")
    return bits


def _signed_log(values: Tensor) -> Tensor:
    return values.sign() * values.abs().log1p()


def _signed_exp(values: Tensor) -> Tensor:
    return values.sign() * values.abs().expm1()
