"""The parts of LightningDrag (Shi et al. 2024) beside its inpainting network, so that its published weights fit: names
and shapes are those of its files (Apache-2.0), the code is ours. Imported only where ``diffusers`` is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGE_TOKENS = 4
"""Of the image prompt, appended to those of the text."""
_EMBED = 16
"""Channels of a point's embedding before the first halving."""


class PointEmbedding(nn.Module):
    """Maps of handles and targets, at every size at which the network attends."""

    def __init__(self, halvings: Sequence[int] = (3, 3), width: int = _EMBED) -> None:
        """``halvings``: of the autoencoder, and within the denoiser."""
        super().__init__()
        first, inner = halvings
        sizes = [2 * width * 2**i for i in range(first + inner + 1)]
        self.conv_in = nn.Conv2d(2, sizes[0], 3, padding=1, bias=False)
        blocks = [_Halving(sizes[i], sizes[i + 1]) for i in range(first + inner)]
        self.downsample_blocks_vae = nn.Sequential(*blocks[:first])
        self.downsample_blocks_unet = nn.ModuleList(blocks[first:])
        self.widths = [size // 2 for size in sizes[first:]]
        """Channels of a handle's embedding, finest first."""

    def forward(self, handles: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Maps [B,1,H,W] -> for each size, finest first, embeddings of handles and targets [B,C,h,w]."""
        table = self.downsample_blocks_vae(self.conv_in(torch.cat([handles, targets], dim=1)))
        tables = [table]
        for block in self.downsample_blocks_unet:
            tables.append(block(tables[-1]))
        return [tuple(table.chunk(2, dim=1)) for table in tables]


class _Halving(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)

    def forward(self, table: Tensor) -> Tensor:
        return functional.silu(self.conv2(functional.silu(self.conv1(table))))


class ImageTokens(nn.Module):
    """An image's embedding as tokens beside those of the text (the projection of IP-Adapter)."""

    def __init__(self, image_width: int, text_width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(image_width, IMAGE_TOKENS * text_width)
        self.norm = nn.LayerNorm(text_width)

    def forward(self, embeds: Tensor) -> Tensor:  # [B,D] -> [B,4,E]
        return self.norm(self.proj(embeds).unflatten(1, (IMAGE_TOKENS, -1)))


class ReferenceAttention(nn.Module):
    """Self-attention that also looks at the reference: its keys and values follow those of the picture itself. Where
    the points go is added to the queries and the picture's keys, where they come from to the reference's keys."""

    def __init__(self, point_width: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(point_width)
        self.proj = nn.Linear(point_width, width, bias=False)
        self.memory: Tensor | None = None  # [B,S,D] of the reference; None = plain self-attention
        self.points: tuple[Tensor, Tensor] | None = None  # [B,C,h,w] of handles and targets; None = no points

    def forward(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        query, seen = attn.to_q(hidden_states), hidden_states
        if self.memory is not None:
            seen = torch.cat([hidden_states, self.memory.to(hidden_states)], dim=1)
        key, value = attn.to_k(seen), attn.to_v(seen)
        if self.memory is not None and self.points is not None:
            came, go = (self.proj(self.norm(table.flatten(2).transpose(1, 2).to(query))) for table in self.points)
            query, key = query + go, key + torch.cat([go, came], dim=1)
        return _output(attn, _attention(attn, query, key, value))


class ImageAttention(nn.Module):
    """Cross-attention whose last tokens are an image's, with keys and values of their own (IP-Adapter)."""

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.to_k_ip = nn.Linear(text_width, width, bias=False)
        self.to_v_ip = nn.Linear(text_width, width, bias=False)
        self.tokens = IMAGE_TOKENS
        """At the end of what is attended to; 0 = text alone."""

    def forward(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        split = encoder_hidden_states.shape[1] - self.tokens
        text, image = encoder_hidden_states[:, :split], encoder_hidden_states[:, split:]
        query = attn.to_q(hidden_states)
        mixed = _attention(attn, query, attn.to_k(text), attn.to_v(text))
        if self.tokens:
            mixed = mixed + _attention(attn, query, self.to_k_ip(image), self.to_v_ip(image))
        return _output(attn, mixed)


def _attention(attn: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key, value = (table.unflatten(2, (attn.heads, -1)).transpose(1, 2) for table in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def _output(attn: Any, mixed: Tensor) -> Tensor:
    return attn.to_out[1](attn.to_out[0](mixed))


def install(unet: Any, widths: Sequence[int]) -> dict[str, ReferenceAttention]:
    """Replace the attentions of ``unet``: self-attentions by ``ReferenceAttention`` (returned, by the name of their
    block), cross-attentions by ``ImageAttention``. ``widths``: of the points' embeddings, finest first."""
    references = {}
    for name, level in attending_blocks(unet).items():
        block = unet.get_submodule(name)
        width = block.attn1.to_q.out_features
        references[name] = ReferenceAttention(widths[level], width)
        block.attn1.set_processor(references[name])
        block.attn2.set_processor(ImageAttention(block.attn2.to_q.out_features, unet.config.cross_attention_dim))
    for module in unet.attn_processors.values():
        module.to(unet.device, unet.dtype).requires_grad_(False)
    return references


def attending_blocks(unet: Any) -> dict[str, int]:
    """Names of the blocks with attention -> how often the picture was halved before them."""
    found, level = {}, 0
    for i, block in enumerate(unet.down_blocks):
        found |= {name: level for name in _blocks_below(unet, f"down_blocks.{i}")}
        level += block.downsamplers is not None
    found |= {name: level for name in _blocks_below(unet, "mid_block")}
    for i, block in enumerate(unet.up_blocks):
        found |= {name: level for name in _blocks_below(unet, f"up_blocks.{i}")}
        level -= block.upsamplers is not None
    return found


def _blocks_below(unet: Any, name: str) -> list[str]:
    from diffusers.models.attention import BasicTransformerBlock

    inside = unet.get_submodule(name).named_modules()
    return [f"{name}.{below}" for below, module in inside if isinstance(module, BasicTransformerBlock)]


class Recorder:
    """Runs a network over a reference and keeps what its self-attentions were given, by the name of their block."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def of(self, latents: Tensor, text: Tensor) -> dict[str, Tensor]:
        """latents [B,C,h,w] without noise, text [B,L,D] -> [B,S,D] by block."""
        kept: dict[str, Tensor] = {}

        def keeper(name: str) -> Callable[..., None]:
            return lambda module, given, answer: kept.__setitem__(name, answer)

        names = attending_blocks(self._network)
        hooks = [self._network.get_submodule(f"{name}.norm1").register_forward_hook(keeper(name)) for name in names]
        try:
            with torch.no_grad():
                steps = torch.zeros(len(latents), device=latents.device, dtype=torch.int64)
                self._network(latents, steps, encoder_hidden_states=text)
        finally:
            for hook in hooks:
                hook.remove()
        return kept
