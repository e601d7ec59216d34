"""The palette of view-dependent colour of ``budget``: k-means weighted by what is seen, then trained in whole steps."""

from __future__ import annotations

from math import log2, prod

import torch
from torch import Tensor

from splat.compress.fake_quant import Steps
from splat.compress.palette import LABELS, PALETTE, palette_colors
from splat.compress.protocol import CompressState
from splat.geometry.sh import coefficients_of_degree
from splat.io.codecs.codec import attribute_of, code_type
from splat.io.codecs.palette import Palette
from splat.io.packed import Attribute

LARGEST = 65_536
_SAMPLE = 20_000
_OF_ROWS = 0.8
"""Bits of a number of the palette, of those that one of a row needs."""


def entries_of(share: float, count: int) -> int:
    """Of a palette: a power of two, so that labels need whole bits."""
    wanted = min(share * count, LARGEST)
    return 2 ** round(log2(wanted)) if wanted >= 2 else int(wanted > 0)


def begun_palette(state: CompressState, rest: Tensor, *, entries: int, weights: Tensor, seed: int) -> None:
    """Put a palette for ``rest [N,K-1,3]`` into ``state``; none where there is no such colour or no entry to be."""
    if not prod(rest.shape[1:]) or not entries or not len(rest):
        return
    from splat.io.palette import kmeans

    flat = rest.detach().flatten(1)
    flat = torch.where(flat.isfinite(), flat, 0.0)
    weights = torch.where(weights.isfinite(), weights, 0.0)
    palette, labels = kmeans(flat, min(entries, LARGEST), seed=seed, weights=weights)
    state.parameters[PALETTE] = palette.requires_grad_(True)
    state.rows[LABELS] = labels


def drawn_rest(state: CompressState, rest: Tensor, *, step: float, degree: int) -> Tensor:
    """View-dependent colour [N,K-1,3] as it decodes; the own one of bands that stay while there is no palette yet."""
    if PALETTE in state.parameters:
        rounded = Steps(step).rounded(state.parameters[PALETTE])
        kept = palette_colors(CompressState({LABELS: state.rows[LABELS]}, {PALETTE: rounded}))
    else:
        kept = rest[:, : coefficients_of_degree(degree) - 1].flatten(1)
        if "rows_fitted" in state.scalars:
            kept = kept[:, :0]
    width = prod(rest.shape[1:])
    kept = kept[:, :width]
    return torch.cat([kept, kept.new_zeros(len(kept), width - kept.shape[1])], 1).view(rest.shape)


def rest_attribute(state: CompressState, rows: Tensor, values: Tensor, *, step: float) -> Attribute:
    """For splats ``rows [M]`` of the state; ``values [M,K-1,3]`` are what they had. For the codec ``palette``."""
    labels = state.rows[LABELS][rows.to(state.rows[LABELS].device)].cpu()
    used, labels = torch.unique(labels, return_inverse=True)
    codes, length = Steps(step).codes(state.parameters[PALETTE].detach().cpu()[used])
    order = torch.sort(codes[:, 0], stable=True).indices if len(codes) else used
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    labels, codes = rank[labels.reshape(-1)], codes[order].double()
    low = float(codes.min()) if codes.numel() else 0.0
    levels = int(codes.max() - low) if codes.numel() else 0
    bits = max(levels.bit_length(), 1)
    numbers = {"entries": len(codes), "bits": bits, "range": [low * length, (low + 2**bits - 1) * length]}
    streams = {
        "labels": labels.numpy().astype(code_type(max(len(codes) - 1, 0))),
        "palette": (codes - low).numpy().astype(code_type(2**bits - 1)),
    }
    return attribute_of(Palette, numbers, streams, {"": values.cpu().float().numpy()},
                        {"labels": "webp", "palette": "webp"})  # fmt: skip


def rest_bytes(rest: Tensor, entries: int, *, step: float) -> tuple[float, float]:
    """What a palette of ``rest [N,K-1,3]`` will take, roughly: per splat, and whatever their number. An entry is a mean
    of rows, so it needs fewer bits than they do."""
    width = prod(rest.shape[1:])
    if not width or not entries or not len(rest):
        return 0.0, 0.0
    sample = rest.detach()[:: max(len(rest) // _SAMPLE, 1)].reshape(-1)
    counts = torch.unique((sample[sample.isfinite()] / step).round(), return_counts=True)[1].double()
    bits = float((counts * (counts.sum() / counts).log2()).sum() / counts.sum().clamp_min(1))
    return log2(max(entries, 2)) / 8, entries * width * _OF_ROWS * bits / 8
