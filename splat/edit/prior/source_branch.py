"""The source branch: a low-rank change of a denoiser, and an embedding, that learn to denoise the current renders.

What the prior predicts beyond it is what it wants otherwise; without it, a prior also complains about everything that
it never saw but that is right (specs: viewer_editing 4.1). Where we leave the paper: the low-rank change sits on the
prior's own network and is switched off for the prior's answer, instead of a second network being loaded beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from splat.edit.prior.adam import Adam, Group
from splat.edit.prior.score import NoiseTable
from splat.geometry.rng import keyed_generator

_LAYERS = ("to_q", "to_k", "to_v", "to_out.0")
"""Of every attention."""
_NAME = "source"


class SourceBranch:
    def __init__(self, unet: Any, embedding: Tensor, *, rank: int, lr: float, seed: int) -> None:
        """``embedding [1,L,D]``: where the learned one starts (that of the prompt)."""
        from peft import LoraConfig

        with torch.random.fork_rng(devices=[]):  # the package draws first values of its own; ours replace them
            unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(_LAYERS)), _NAME)
        self._unet = unet
        self.embedding = embedding.detach().float().clone().requires_grad_()
        self.parameters = [table for name, table in unet.named_parameters() if "lora_" in name]
        generator = keyed_generator(seed, "edit prior source", 0)
        with torch.no_grad():
            for name, table in unet.named_parameters():
                if "lora_A" in name:  # random in, zero out: at first the network is what it was
                    draw = torch.randn(table.shape, generator=generator) / rank
                    table.copy_(draw.to(table))
                elif "lora_B" in name:
                    table.zero_()
        self._optimizer = Adam([Group([*self.parameters, self.embedding], lr)])
        self.off()

    @contextmanager
    def on(self) -> Iterator[None]:
        """Within it the network answers with the branch, whose parameters take gradients."""
        self._unet.enable_adapters()
        try:
            yield
        finally:
            self.off()

    def off(self) -> None:
        """The network answers as if there were no branch."""
        self._unet.disable_adapters()

    def learn(
        self, ask: Callable[[Tensor, int, Tensor], Tensor], z: Tensor, table: NoiseTable, generator: torch.Generator
    ) -> float:
        """One step of denoising ``z [B,C,h,w]`` at a random noise level; ``ask(z_t, step, embedding [1,L,D])`` gives
        the predicted noise. The mean squared error before the step."""
        step = int(torch.randint(table.count, (), generator=generator))
        noise = torch.randn(z.shape, generator=generator).to(z)
        z_t = table.noised(z.detach(), noise, step)
        with torch.enable_grad(), self.on():  # gradients reach parameters only while they are on
            error = (ask(z_t, step, self.embedding) - noise).float().square().mean()
            self._optimizer.zero_grad()
            error.backward()
        self._optimizer.step()
        return float(error.detach())
