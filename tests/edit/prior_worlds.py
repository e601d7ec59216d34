"""Small things the tests of priors share: a cloud, a drag, cameras, and networks of a few thousand numbers on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from splat.edit.ops import Drag, Handle
from splat.geometry.camera import Camera
from splat.model.gaussian import GaussianPrimitive
from splat.model.splat_model import SplatModel

SIDE = 64
"""Pixels of a picture."""


def slab(count: int = 600, *, seed: int = 0, primitive=None, sh_degree: int = 1) -> SplatModel:
    """Splats in a box of 2 x 1 x 0.5 about the origin."""
    generator = torch.Generator().manual_seed(seed)
    xyz = (torch.rand(count, 3, generator=generator) - 0.5) * torch.tensor([2.0, 1.0, 0.5])
    rgb = torch.rand(count, 3, generator=generator)
    primitive = primitive or GaussianPrimitive(init_opacity=0.9)
    spacing_rows = primitive.start(xyz, rgb, sh_degree=sh_degree, generator=generator)
    return SplatModel(primitive, spacing_rows, sh_degree)


def right_end(model: SplatModel) -> torch.Tensor:  # [N] bool
    return model.rows["means"][:, 0] > 0.3


def lift(model: SplatModel, by: float = 0.4, **settings) -> Drag:
    """The right end goes up (y), by the splat in its middle."""
    end = model.rows["means"][right_end(model)]
    at = end[(end - end.mean(0)).norm(dim=1).argmin()]
    to = at + torch.tensor([0.0, by, 0.0])
    return Drag((Handle(tuple(at.tolist()), tuple(to.tolist())),), **settings)


def cameras(count: int = 3) -> list[Camera]:
    """Looking at the origin from 3 units away, a little turned."""
    made = []
    for number, angle in enumerate(np.linspace(-0.3, 0.3, count)):
        cos, sin = np.cos(angle), np.sin(angle)
        pose = np.eye(4)
        pose[:3, :3] = [[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]
        pose[:3, 3] = (0, 0, 3)
        matrix = np.array([[80.0, 0, SIDE / 2], [0, 80.0, SIDE / 2], [0, 0, 1]])
        made.append(Camera(f"view {number}", pose, matrix, SIDE, SIDE))
    return made


def save_inpainting(folder: Path, *, vae_folder: Path | None = None) -> Path:
    """A diffusers folder for inpainting with random networks: two levels, eight channels."""
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=9, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        cross_attention_dim=12, attention_head_dim=4, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, norm_num_groups=4, layers_per_block=1,
    )  # fmt: skip
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=20, hidden_size=12, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=8, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    ))  # fmt: skip
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(vae_folder or folder / "vae")
    text.save_pretrained(folder / "text_encoder")
    DDPMScheduler(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
                  ).save_pretrained(folder / "scheduler")  # fmt: skip
    _save_tokenizer(folder / "tokenizer")
    return folder


def _save_tokenizer(folder: Path) -> None:
    """As published folders have it: a table of words, a table of pairs."""
    folder.mkdir(parents=True)
    words = ["<|startoftext|>", "<|endoftext|>", "a", "b", "c", "a</w>", "b</w>", "c</w>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 8, "bos_token": words[0], "eos_token": words[1],
        "unk_token": words[1], "pad_token": words[1],
    }))  # fmt: skip


def save_lightning(folder: Path) -> Path:
    """The layout of LightningDrag's installation page (in safetensors), with random networks."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from splat.edit.prior.lightning import BASE, DRAG, IMAGE, VAE
    from splat.edit.prior.lightning_nets import ImageTokens, PointEmbedding, install
    from splat.io.tensors import save_tensors

    save_inpainting(folder / BASE, vae_folder=folder / VAE)
    torch.manual_seed(1)
    unet = UNet2DConditionModel.from_pretrained(str(folder / BASE / "unet"))
    points = PointEmbedding((3, 1), width=2)
    install(unet, points.widths)
    processors = torch.nn.ModuleList(unet.attn_processors.values()).state_dict()
    image = {f"ip_adapter.{name}": table for name, table in processors.items() if "_ip." in name}
    image |= {f"image_proj.{name}": table for name, table in ImageTokens(6, 12).state_dict().items()}
    for part in (IMAGE, f"{DRAG}/point_embedding", f"{DRAG}/appearance_encoder"):
        (folder / part).mkdir(parents=True)
    save_tensors(folder / IMAGE / "ip-adapter_sd15.safetensors", image, {})
    save_tensors(folder / DRAG / "point_embedding" / "point_embedding.safetensors", points.state_dict(), {})
    attention = {name: table for name, table in processors.items() if "_ip." not in name}
    save_tensors(folder / DRAG / "lightning-drag-sd15-attn.safetensors", attention, {})
    config = dict(unet.config) | {"in_channels": 4}
    learned = UNet2DConditionModel.from_config(config).state_dict()
    # As published: nothing of what comes after the last attention's input.
    cut = {name: table for name, table in learned.items() if not name.startswith(("conv_norm_out", "conv_out"))}
    last = "up_blocks.1.attentions.1."
    cut = {name: table for name, table in cut.items() if not name.startswith(last) or ".norm1." in name
           or name.startswith((f"{last}norm.", f"{last}proj_in."))}  # fmt: skip
    assert len(cut) < len(learned) - 4
    path = folder / DRAG / "appearance_encoder"
    save_tensors(path / "diffusion_pytorch_model.safetensors", {n: t.contiguous() for n, t in cut.items()}, {})
    (path / "config.json").write_text(json.dumps(config, default=str))
    CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8,
        projection_dim=6,
    )).save_pretrained(folder / IMAGE / "image_encoder")  # fmt: skip
    return folder
