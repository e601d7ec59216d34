"""The named statistics of ``SplatStats``, by brute force over [pixels x splats] (see ``reference``)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splat.render.types import BACKWARD_STATS, SplatStats

MIN_FINAL_ALPHA = 1e-5  # keeps abs_grad2d_l2 finite on pixels that are almost empty


@dataclass(frozen=True, eq=False)
class Fragments:
    """Everything about a chunk of P pixels under n splats, front to back."""

    offsets: tuple[Tensor, Tensor]  # [P,n] x and y of pixel centre minus splat centre, px
    opacities: Tensor  # [P,n] the splat's opacity, one copy per pixel
    response: Tensor  # [P,n] of the footprint, before the opacity
    live: Tensor  # [P,n] bool: contributes
    clamped: Tensor  # [P,n] bool: alpha is held at its maximum
    alphas: Tensor  # [P,n] 0 where not live
    transmittance: Tensor  # [P,n] in front of the splat
    final_transmittance: Tensor  # [P]


class ViewStats:
    """Adds up one view's statistics and writes them into rows ``rows [n]`` of view ``view`` of ``stats``."""

    def __init__(self, stats: SplatStats, names: frozenset[str], view: int, rows: Tensor, size: tuple[int, int, int]):
        self.stats, self.names, self.view, self.rows = stats, names, view, rows
        self.cameras, self.count, self.maps = size
        self.sums: dict[str, Tensor] = {}

    @property
    def wants_backward(self) -> bool:
        return bool(self.names & BACKWARD_STATS)

    @torch.no_grad()
    def observe_forward(self, chunk: Fragments, weights: Tensor | None) -> None:
        """Sums over a chunk; ``weights [M,P]`` are the pixel weights there."""
        if not len(self.rows):
            return
        blend = chunk.alphas * chunk.transmittance  # [P,n]
        self._add("fragments", chunk.live.sum(0))
        self._add("blend_sum", blend.sum(0))
        self._add("center_dist", (torch.hypot(*chunk.offsets) * chunk.live).sum(0))
        winner = blend.argmax(1)[blend.amax(1) > 0]  # the first of equals, that is the nearest
        self._add("max_contrib", torch.bincount(winner, minlength=blend.shape[1]))
        if "blend_max" in self.names:
            table = self._table("blend_max")[self.view]
            table[self.rows] = torch.maximum(table[self.rows], blend.amax(0))
        if weights is not None:
            self._add("weighted_count", weights @ chunk.live.to(weights.dtype))
            self._add("weighted_blend", weights @ blend)

    @torch.no_grad()
    def observe_sensitivity(self, chunk: Fragments, colors: Tensor, background: Tensor) -> None:
        """sum (dI/dG)^2 with dI/dalpha_i = T_i c_i - (what lies behind i) / (1 - alpha_i)."""
        seen = (chunk.alphas * chunk.transmittance)[:, :, None] * colors  # [P,n,3]
        behind = seen.flip(1).cumsum(1).flip(1) - seen + chunk.final_transmittance[:, None, None] * background
        by_alpha = chunk.transmittance[:, :, None] * colors - behind / (1 - chunk.alphas)[:, :, None]
        by_response = by_alpha * (chunk.opacities * (chunk.live & ~chunk.clamped))[:, :, None]
        self._add("sensitivity", by_response.square().sum((0, 2)))

    def watch(self, chunk: Fragments, weights: Tensor | None, width: int, height: int) -> None:
        """Collects the per-pixel gradients of the chunk's splat centres and opacities when they pass by."""
        final_alphas = (1 - chunk.final_transmittance.detach()).clamp(min=MIN_FINAL_ALPHA)[:, None]
        held: dict[str, Tensor] = {}

        def by_x(grad: Tensor) -> None:
            held["x"] = grad.detach() * (width / 2)
            self._accumulate("abs_x", held["x"].abs().sum(0))
            finish()

        def by_y(grad: Tensor) -> None:
            held["y"] = grad.detach() * (height / 2)
            self._accumulate("abs_y", held["y"].abs().sum(0))
            finish()

        def finish() -> None:
            if len(held) == 2:
                norms = torch.hypot(held.pop("x"), held.pop("y"))  # [P,n], (W/2, H/2) units
                self._accumulate("l2", (2 * norms / final_alphas).sum(0))
                if weights is not None:
                    self._accumulate("tex", weights[0] @ norms)

        def by_opacity(grad: Tensor) -> None:
            self._accumulate("opacity", grad.detach().sum(0))
            self._accumulate("opacity_sq", grad.detach().square().sum(0))

        chunk.offsets[0].register_hook(by_x)
        chunk.offsets[1].register_hook(by_y)
        chunk.opacities.register_hook(by_opacity)

    def finish_on(self, means2d: Tensor, colors: Tensor, opacities: Tensor, width: int, height: int) -> None:
        """Autograd completes a tensor's gradient before its hooks run, so every chunk has been counted by then."""

        def centers(grad: Tensor) -> None:
            half = grad.new_tensor([width / 2, height / 2])
            self._write("grad2d", (grad.detach() * half).norm(dim=1))
            if "abs_x" in self.sums:
                self._write("abs_grad2d", torch.hypot(self.sums["abs_x"], self.sums["abs_y"]))
                self._write("abs_grad2d_l2", self.sums["l2"])
            if "tex" in self.sums:
                self._write("texgrad", self.sums["tex"])

        def opacity(_: Tensor) -> None:
            self._write("opacity_grad_sum", self.sums["opacity"])
            self._write("opacity_grad_sq", self.sums["opacity_sq"])

        means2d.register_hook(centers)
        opacities.register_hook(opacity)
        colors.register_hook(lambda grad: self._write("color_grad", grad.detach().norm(dim=1)))

    def finish_shape_on(self, shapes: Tensor) -> None:
        shapes.register_hook(lambda grad: self._write("shape_grad", grad.detach()))

    def prepare(self, name: str, like: Tensor) -> None:
        """A zero table, so that splats nobody touches read 0."""
        if name in self.names and getattr(self.stats, name) is None:
            per_map = (self.maps,) if name.startswith("weighted_") else ()
            per_axis = (2,) if name == "radii_px" else ()
            dtype = {"fragments": torch.int32, "max_contrib": torch.int32, "visible": torch.bool}.get(name, like.dtype)
            table = torch.zeros(self.cameras, *per_map, self.count, *per_axis, dtype=dtype, device=like.device)
            setattr(self.stats, name, table)

    def _table(self, name: str) -> Tensor:
        return getattr(self.stats, name)

    def _add(self, name: str, values: Tensor) -> None:
        if name in self.names:
            table = self._table(name)[self.view]  # a view of memory: [N] or [M,N]
            table[..., self.rows] += values.to(table.dtype)

    def _accumulate(self, name: str, values: Tensor) -> None:
        self.sums[name] = self.sums[name] + values if name in self.sums else values

    def _write(self, name: str, values: Tensor) -> None:
        for each in self.names & BACKWARD_STATS:
            self.prepare(each, values)
        if name in self.names:
            self._table(name)[self.view][self.rows] = values
