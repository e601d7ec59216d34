"""Loading the networks of a prior from a folder: never from a network, never from a pickle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from splat.edit.prior.score import NoiseTable
from splat.edit.prior.weights import require_packages
from splat.errors import UserError

Precision = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True, eq=False)
class Networks:
    """Of a latent diffusion model; all fixed, on one device."""

    unet: Any
    vae: Any
    table: NoiseTable
    tokenizer: Any
    text_encoder: Any
    device: torch.device
    dtype: torch.dtype

    def encode(self, pictures: Tensor) -> Tensor:  # [B,3,H,W] 0..1 -> [B,C,h,w]
        """Latents: the mean of what the encoder gives, so that the same picture has the same latents."""
        values = (pictures * 2 - 1).to(self.dtype)
        return self.vae.encode(values).latent_dist.mode() * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:  # [B,C,h,w] -> [B,3,H,W] about -1..1
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample

    def embedding(self, prompt: str) -> Tensor:  # [1,L,D]
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(
            prompt, padding="max_length", max_length=min(length, self.text_encoder.config.max_position_embeddings),
            truncation=True, return_tensors="pt",
        )  # fmt: skip
        with torch.no_grad():
            return self.text_encoder(tokens.input_ids.to(self.device))[0].to(self.dtype)


def load_networks(
    prior: str, folder: Path, *, vae_folder: Path | None = None, device: torch.device, precision: Precision
) -> Networks:
    """A folder as ``diffusers`` saves a pipeline: unet, vae, text_encoder, tokenizer, scheduler.

    ``vae_folder`` holds another autoencoder. UserError when a package or a part of the folder does not fit.
    """
    require_packages(prior)
    dtype = getattr(torch, precision)
    try:
        return _loaded(folder, vae_folder or folder / "vae", device, dtype)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise UserError(f"edit prior '{prior}': {folder} cannot be read ({_first_line(error)})") from error


def _loaded(folder: Path, vae_folder: Path, device: torch.device, dtype: torch.dtype) -> Networks:
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    local = {"local_files_only": True}
    tensors = local | {"use_safetensors": True, "torch_dtype": dtype}
    unet = UNet2DConditionModel.from_pretrained(str(folder / "unet"), **_variant(folder / "unet"), **tensors)
    vae = AutoencoderKL.from_pretrained(str(vae_folder), **_variant(vae_folder), **tensors)
    text = CLIPTextModel.from_pretrained(
        str(folder / "text_encoder"), **_variant(folder / "text_encoder", "model"), **local,
        use_safetensors=True, dtype=dtype,
    )  # fmt: skip
    tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), **local)
    scheduler = DDPMScheduler.from_pretrained(str(folder / "scheduler"), **local)
    for network in (unet, vae, text):
        network.requires_grad_(False).eval().to(device)
    if unet.config.in_channels != 2 * vae.config.latent_channels + 1:
        raise UserError(
            f"{folder / 'unet'} takes {unet.config.in_channels} channels; one for inpainting takes "
            f"{2 * vae.config.latent_channels + 1} (latents, mask, latents of the unmasked part)"
        )
    table = NoiseTable(scheduler.alphas_cumprod.double(), scheduler.config.prediction_type)
    return Networks(unet, vae, table, tokenizer, text, device, dtype)


def _variant(folder: Path, stem: str = "diffusion_pytorch_model") -> dict[str, str]:
    """Half-precision files carry a word in their name; taken where there are no others."""
    full, half = folder / f"{stem}.safetensors", folder / f"{stem}.fp16.safetensors"
    return {"variant": "fp16"} if half.is_file() and not full.is_file() else {}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
