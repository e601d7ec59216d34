"""LightningDrag as a prior (Shi et al. 2024; specs: viewer_editing 4.1): an inpainting model that was taught where
points go. It sees the picture before the drag, the mask, and each handle with its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from splat.edit.prior.inpaint import InpaintGuidance, pipeline_files
from splat.edit.prior.networks import Networks, Precision, load_networks
from splat.edit.prior.protocol import EditView
from splat.edit.prior.schedule import point_guidance
from splat.edit.prior.weights import WeightSpec, found, require_weights
from splat.errors import UserError
from splat.io.tensors import load_tensors

BASE, VAE, IMAGE, DRAG = "dreamshaper-8-inpainting", "sd-vae-ft-ema", "IP-Adapter/models", "lightning-drag-sd15"
"""Folders below ``checkpoints``, as its installation page lays them out."""
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_CONVERTED = "published as a pickle, to be converted to safetensors"
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the pictures its image encoder was trained with."""


@dataclass(frozen=True)
class LightningDrag:
    """Settings of the prior ``lightning-drag``."""

    kind: ClassVar[str] = "lightning-drag"
    purpose: ClassVar[str] = "LightningDrag judges renders knowing where handles go (the prior of Drag Your Gaussian)"
    looks: ClassVar[bool] = True

    decoded_weight: float = 0.1
    """Of the decoded pictures beside the latents."""
    source_rank: int = 16
    """Of the branch that learns the current renders; 0 = none."""
    source_lr: float = 1e-4
    """Learning rate of that branch."""
    precision: Precision = "float32"
    """Of the networks' numbers."""
    prompt: ClassVar[str] = ""
    """It was trained without."""

    def needs(self) -> tuple[WeightSpec, ...]:
        hub = "on the Hugging Face hub"
        base = tuple(name for name in pipeline_files(f"{BASE}/") if "/vae/" not in name)
        return (
            WeightSpec("the inpainting model", base,
                       4000, "CreativeML OpenRAIL-M", f"Lykon/dreamshaper-8-inpainting {hub}, to {BASE}"),
            WeightSpec("the autoencoder", (f"{VAE}/config.json", f"{VAE}/{_WEIGHTS}"),
                       340, "MIT", f"stabilityai/sd-vae-ft-mse {hub}, to {VAE}"),
            WeightSpec("the image prompt", (f"{IMAGE}/image_encoder/config.json",
                                            f"{IMAGE}/image_encoder/model.safetensors",
                                            f"{IMAGE}/ip-adapter_sd15.safetensors"),
                       2600, "Apache-2.0", f"the folder models of h94/IP-Adapter {hub}, to {IMAGE}"),
            WeightSpec("LightningDrag", (f"{DRAG}/appearance_encoder/{_WEIGHTS}",
                                         f"{DRAG}/point_embedding/point_embedding.safetensors",
                                         f"{DRAG}/lightning-drag-sd15-attn.safetensors"),
                       1900, "Apache-2.0",
                       f"LightningDrag/lightning-drag-sd15 {hub}, to {DRAG}; two files are {_CONVERTED}"),
        )  # fmt: skip

    def prepare(
        self, views: Sequence[EditView], handles: Tensor, targets: Tensor, *, folder: Path | None,
        device: torch.device, seed: int,
    ) -> LightningGuidance:  # fmt: skip
        folder = require_weights(self.kind, self.needs(), folder)
        networks = load_networks(
            self.kind, folder / BASE, vae_folder=folder / VAE, device=device, precision=self.precision
        )
        try:
            parts = _Parts(folder, networks)
        except (KeyError, RuntimeError, OSError, ValueError, StopIteration) as error:
            raise UserError(f"edit prior '{self.kind}': {folder} cannot be read ({error})") from error
        return LightningGuidance(self, networks, views, seed, parts)


class _Parts:
    """What LightningDrag adds to an inpainting model, loaded into it."""

    def __init__(self, folder: Path, networks: Networks) -> None:
        from diffusers import UNet2DConditionModel
        from transformers import CLIPVisionModelWithProjection

        from splat.edit.prior.lightning_nets import ImageTokens, PointEmbedding, Recorder, install

        unet, place = networks.unet, {"device": networks.device, "dtype": networks.dtype}
        halvings = len(networks.vae.config.block_out_channels) - 1, len(unet.config.block_out_channels) - 1
        own, _ = load_tensors(found(folder, f"{DRAG}/point_embedding/point_embedding.safetensors"))
        self.points = PointEmbedding(halvings, width=own["conv_in.weight"].shape[0] // 2)
        self.points.load_state_dict(own)
        self.references = install(unet, self.points.widths)
        image, _ = load_tensors(folder / IMAGE / "ip-adapter_sd15.safetensors")
        attention, _ = load_tensors(folder / DRAG / "lightning-drag-sd15-attn.safetensors")
        processors = torch.nn.ModuleList(unet.attn_processors.values())
        processors.load_state_dict(attention | _below(image, "ip_adapter."))
        self.encoder = CLIPVisionModelWithProjection.from_pretrained(
            str(folder / IMAGE / "image_encoder"), local_files_only=True, use_safetensors=True, dtype=networks.dtype
        )
        self.tokens = ImageTokens(self.encoder.config.projection_dim, unet.config.cross_attention_dim)
        self.tokens.load_state_dict(_below(image, "image_proj."))
        config = dict(unet.config) | {"in_channels": networks.vae.config.latent_channels}
        with torch.random.fork_rng(devices=[]):  # first values that files replace
            reference = UNet2DConditionModel.from_config(config)
        learned, _ = load_tensors(folder / DRAG / "appearance_encoder" / _WEIGHTS)
        absent, unknown = reference.load_state_dict(learned, strict=False)
        unfit = sorted({*unknown, *(name for name in absent if not _unused(name, reference))})
        if unfit:
            raise ValueError(f"the appearance encoder does not fit: {', '.join(unfit[:3])}")
        self.recorder = Recorder(reference.to(**place).requires_grad_(False).eval())
        for part in (self.points, self.encoder, self.tokens):
            part.to(**place).requires_grad_(False).eval()

    def image_prompt(self, picture: Tensor) -> Tensor:  # [3,H,W] 0..1 -> [1,4,D]
        """Tokens of the picture, as its encoder's own preparation would have it: middle square, bicubic."""
        size = self.encoder.config.image_size
        side = min(picture.shape[1:])
        top, left = ((whole - side) // 2 for whole in picture.shape[1:])
        square = picture[:, top : top + side, left : left + side].float()[None]
        small = functional.interpolate(square, (size, size), mode="bicubic", antialias=True, align_corners=False)
        mean, std = (small.new_tensor(values)[:, None, None] for values in (_CLIP_MEAN, _CLIP_STD))
        values = ((small.clamp(0, 1) - mean) / std).to(self.encoder.device, self.encoder.dtype)
        with torch.no_grad():
            return self.tokens(self.encoder(values).image_embeds)


def _below(table: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): values for name, values in table.items() if name.startswith(prefix)}


def _unused(name: str, network: Any) -> bool:
    """Whether a parameter comes after what the last self-attention is given. The published file leaves these out, and
    nothing of them is looked at."""
    level = len(network.up_blocks) - 1
    last = f"up_blocks.{level}.attentions.{len(network.up_blocks[level].attentions) - 1}."
    after_norm = name.startswith((f"{last}transformer_blocks.", f"{last}proj_out.")) and ".norm1." not in name
    return after_norm or name.startswith(("conv_norm_out.", "conv_out."))


class LightningGuidance(InpaintGuidance):
    """As for inpainting, with the reference, its image prompt and the points of each view."""

    def __init__(
        self, settings: LightningDrag, networks: Networks, views: Sequence[EditView], seed: int, parts: _Parts
    ) -> None:
        self.parts = parts
        super().__init__(settings, networks, views, seed)  # type: ignore[arg-type]
        self._known = [self._told(view) for view in views]

    def _told(self, view: EditView) -> dict[str, Any]:
        """What stays the same of a view: its memory, its points, its image prompt."""
        networks, parts = self.networks, self.parts
        picture = view.picture.to(networks.device)
        with torch.no_grad():
            memory = parts.recorder.of(networks.encode(picture[None]), self.texts[1])
            maps = (point_map(view, which).to(networks.device, networks.dtype) for which in ("handles", "targets"))
            points = parts.points(*maps)
        return {"memory": memory, "points": points, "image": parts.image_prompt(picture)}

    def prior_noise(self, z_t: Tensor, view_ids: Sequence[int], step: int, progress: float) -> Tensor:
        """Guided by the points alone: both answers know the reference, one does not know where it should go."""
        known = [self._known[i] for i in view_ids]
        text = torch.cat([torch.cat([self.texts[0], view["image"]], dim=1) for view in known])
        try:
            for name, reference in self.parts.references.items():
                reference.memory = torch.cat([view["memory"][name] for view in known])
            plain = self._asked(z_t, view_ids, step, text)
            sizes = {table[0].shape[2] * table[0].shape[3]: i for i, table in enumerate(known[0]["points"])}
            for reference in self.parts.references.values():
                level = sizes[reference.memory.shape[1]]
                tables = [view["points"][level] for view in known]
                reference.points = tuple(torch.cat(part) for part in zip(*tables, strict=True))
            aware = self._asked(z_t, view_ids, step, text)
        finally:
            for reference in self.parts.references.values():
                reference.memory = reference.points = None
        return plain + point_guidance(progress) * (aware - plain)

    def predicted(self, z_t: Tensor, view_ids: Sequence[int], step: int, text: Tensor) -> Tensor:
        """Of the source branch: text alone, no reference, no points."""
        attentions = [module for module in self.networks.unet.attn_processors.values() if hasattr(module, "tokens")]
        kept = [module.tokens for module in attentions]
        try:
            for module in attentions:
                module.tokens = 0
            return super().predicted(z_t, view_ids, step, text)
        finally:
            for module, count in zip(attentions, kept, strict=True):
                module.tokens = count

    def _asked(self, z_t: Tensor, view_ids: Sequence[int], step: int, text: Tensor) -> Tensor:
        return super().predicted(z_t, view_ids, step, text)


def point_map(view: EditView, which: str) -> Tensor:  # [1,1,H,W]
    """Zero but for one pixel per point, which has the point's number (from 1); points that the view does not show at
    both ends are left out."""
    _, height, width = view.picture.shape
    pixels = torch.stack([view.handles, view.targets]).cpu()  # [2,K,2]
    within = (pixels >= 0) & (pixels < torch.tensor([width, height], dtype=pixels.dtype))  # NaN is nowhere
    shown = within.all(2).all(0).nonzero().squeeze(1)
    places = getattr(view, which).cpu()[shown].long()
    table = torch.zeros(1, 1, height, width)
    table[0, 0, places[:, 1], places[:, 0]] = torch.arange(1, len(shown) + 1, dtype=torch.float32)
    return table
