"""Offsets from a field: features on three planes at several resolutions, two heads (specs: viewer_editing 4.1).

The planes make neighbours move alike, coarse to fine. The second head is for what stands outside the edited part: it
starts from the first head's offset, and neither its own corrections nor the price of moving reach the first one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_PLANES = ((0, 1), (0, 2), (1, 2))
_START = (0.1, 0.5)
"""Range of the planes' first values: positive and not small, or the product of three would vanish."""
_WIDTH = 64
"""Of the features after mixing, and of the heads' hidden layer."""


class TriplaneField(nn.Module):
    """Offsets of points in a box; zero everywhere before the first step."""

    def __init__(
        self, low: Tensor, high: Tensor, *, resolutions: tuple[int, ...] = (64, 128, 256, 512), channels: int = 32,
        seed: int = 0,
    ) -> None:  # fmt: skip
        """low, high [3]: corners of the box, world units. Offsets are in half diagonals of it."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("center", (low + high) / 2)
        self.register_buffer("extent", ((high - low) / 2).clamp_min(1e-6))
        self.planes = nn.ParameterList(
            nn.Parameter(torch.empty(3, channels, size, size).uniform_(*_START, generator=generator))
            for size in resolutions
        )
        self.mix = _linear(channels * len(resolutions), _WIDTH, generator)
        self.inner, self.outer = _head(generator), _head(generator)
        self.to(low.device)

    @property
    def unit(self) -> float:
        """World units of an offset of 1."""
        return float(self.extent.norm())

    def features(self, points: Tensor) -> Tensor:  # [P,3] -> [P,64]
        unit = (points - self.center) / self.extent
        places = torch.stack([unit[:, axes] for axes in _PLANES])[:, None]  # [3,1,P,2]
        products = []
        for plane in self.planes:
            sampled = functional.grid_sample(plane, places, align_corners=True, padding_mode="border")  # [3,C,1,P]
            products.append(sampled[0] * sampled[1] * sampled[2])
        return self.mix(torch.cat(products)[:, 0].T)

    def forward(self, points: Tensor, inside: Tensor) -> Tensor:  # [P,3], [P] bool -> [P,3]
        """World units. Inside: the first head. Outside: the first head's answer as it is, corrected by the second,
        whose gradient reaches neither the first head nor the planes."""
        features = self.features(points)
        first = self.inner(features)
        second = first.detach() + self.outer(features.detach())
        return torch.where(inside[:, None], first, second) * self.unit

    def grid_parameters(self) -> list[nn.Parameter]:
        return list(self.planes)

    def head_parameters(self) -> list[nn.Parameter]:
        return [*self.mix.parameters(), *self.inner.parameters(), *self.outer.parameters()]


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Random of its own generator, uniform within one over the root of the inputs."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)  # draws nothing of the ambient generator
    with torch.no_grad():
        for table in layer.parameters():
            table.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer


def _head(generator: torch.Generator) -> nn.Sequential:
    last = nn.utils.skip_init(nn.Linear, _WIDTH, 3)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(_linear(_WIDTH, _WIDTH, generator), nn.ReLU(), last)
