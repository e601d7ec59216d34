"""Score distillation with a plain Stable Diffusion inpainting model: it knows nothing of handles, only whether what
stands in the mask fits its surroundings. Where things go is left to the geometric energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from splat.edit.prior.networks import Networks, Precision, load_networks
from splat.edit.prior.protocol import EditView
from splat.edit.prior.schedule import timestep
from splat.edit.prior.score import distillation_loss, score_target
from splat.edit.prior.source_branch import SourceBranch
from splat.edit.prior.weights import WeightSpec, require_weights
from splat.geometry.rng import keyed_generator

_WEIGHTS = "diffusion_pytorch_model.safetensors|diffusion_pytorch_model.fp16.safetensors"


def pipeline_files(folder: str = "") -> tuple[str, ...]:
    """What ``diffusers`` saves of an inpainting pipeline and we read."""
    unet, vae = (_in(f"{folder}{part}/", _WEIGHTS) for part in ("unet", "vae"))
    text = _in(f"{folder}text_encoder/", "model.safetensors|model.fp16.safetensors")
    words, pairs = (_in(f"{folder}tokenizer/", f"{name}|tokenizer.json") for name in ("vocab.json", "merges.txt"))
    plain = ("unet/config.json", "vae/config.json", "text_encoder/config.json", "tokenizer/tokenizer_config.json",
             "scheduler/scheduler_config.json")  # fmt: skip
    return (unet, vae, text, words, pairs, *(folder + name for name in plain))


def _in(folder: str, names: str) -> str:
    return "|".join(folder + name for name in names.split("|"))


@dataclass(frozen=True)
class SdsInpaint:
    """Settings of the prior ``sds-inpaint``."""

    kind: ClassVar[str] = "sds-inpaint"
    purpose: ClassVar[str] = "a Stable Diffusion inpainting folder judges how what was dragged fits in"
    looks: ClassVar[bool] = True

    prompt: str = ""
    """What the picture shows; empty = whatever fits."""
    guidance: float = 7.5
    """Factor on the difference that the prompt makes; without a prompt there is none."""
    decoded_weight: float = 0.1
    """Of the decoded pictures beside the latents."""
    source_rank: int = 16
    """Of the branch that learns the current renders; 0 = none."""
    source_lr: float = 1e-4
    """Learning rate of that branch."""
    precision: Precision = "float32"
    """Of the networks' numbers."""

    def needs(self) -> tuple[WeightSpec, ...]:
        return (
            WeightSpec(
                "Stable Diffusion inpainting (1.5 or a relative)", pipeline_files(), 4300, "CreativeML OpenRAIL-M",
                "any folder of diffusers' StableDiffusionInpaintPipeline, such as Lykon/dreamshaper-8-inpainting on "
                "the Hugging Face hub",
            ),
        )  # fmt: skip

    def prepare(
        self, views: Sequence[EditView], handles: Tensor, targets: Tensor, *, folder: Path | None,
        device: torch.device, seed: int,
    ) -> InpaintGuidance:  # fmt: skip
        folder = require_weights(self.kind, self.needs(), folder)
        networks = load_networks(self.kind, folder, device=device, precision=self.precision)
        return InpaintGuidance(self, networks, views, seed)


@dataclass(eq=False)
class InpaintGuidance:
    """The networks, what they were told of each view, and the source branch."""

    settings: SdsInpaint
    networks: Networks
    views: Sequence[EditView]
    seed: int
    masks: list[Tensor] = field(default_factory=list, repr=False)
    """Of each view, at the size of the latents [1,1,h,w]."""
    unmasked: list[Tensor] = field(default_factory=list, repr=False)
    """Latents of each view's picture before the drag, without what may change [1,C,h,w]."""

    def __post_init__(self) -> None:
        networks, settings = self.networks, self.settings
        self._noises = keyed_generator(self.seed, "edit prior noise", 0)
        for view in self.views:
            with torch.no_grad():
                # Grey where it may change: 0 in the -1..1 of the encoder, as the network was trained.
                empty = torch.where(view.mask.to(view.picture) > 0.5, 0.5, view.picture)[None].to(networks.device)
                latents = networks.encode(empty)
            self.unmasked.append(latents)
            mask = view.mask.to(networks.device, networks.dtype)[None, None]
            self.masks.append(functional.interpolate(mask, latents.shape[2:], mode="nearest"))
        self.texts = networks.embedding(settings.prompt), networks.embedding("")
        self.source = None
        if settings.source_rank > 0:
            self.source = SourceBranch(
                networks.unet, self.texts[0], rank=settings.source_rank, lr=settings.source_lr, seed=self.seed
            )  # fmt: skip

    def loss(self, render: Tensor, view_ids: Sequence[int], progress: float) -> tuple[Tensor, Mapping[str, float]]:
        networks, table = self.networks, self.networks.table
        step = timestep(progress, table.count)
        z = networks.encode(render.to(networks.device))
        target = self.target(z.detach(), view_ids, step, progress)
        loss = distillation_loss(z, target, networks.decode, table, step, decoded_weight=self.settings.decoded_weight)
        figures = {"prior": float(loss.detach()), "t": step / table.count}
        if self.source is not None:
            figures["source"] = self.source.learn(
                lambda z_t, t, text: self.predicted(z_t, view_ids, t, text), z, table, self._noises
            )
        return loss.to(render.device, render.dtype), figures

    @torch.no_grad()
    def target(self, z: Tensor, view_ids: Sequence[int], step: int, progress: float) -> Tensor:
        """z* where the picture may change, z elsewhere."""
        table = self.networks.table
        noise = torch.randn(z.shape, generator=self._noises).to(z)
        z_t = table.noised(z, noise, step)
        prior = self.prior_noise(z_t, view_ids, step, progress)
        source = noise
        if self.source is not None:
            with self.source.on():
                source = self.predicted(z_t, view_ids, step, self.source.embedding)
        mask = torch.cat([self.masks[i] for i in view_ids])
        return z + mask * (score_target(table, step, z_t, noise=noise, prior=prior, source=source) - z)

    def prior_noise(self, z_t: Tensor, view_ids: Sequence[int], step: int, progress: float) -> Tensor:
        """What the prior takes for noise, with its guidance."""
        with_prompt, without = self.texts
        answer = self.predicted(z_t, view_ids, step, with_prompt)
        if not self.settings.prompt:
            return answer
        plain = self.predicted(z_t, view_ids, step, without)
        return plain + self.settings.guidance * (answer - plain)

    def predicted(self, z_t: Tensor, view_ids: Sequence[int], step: int, text: Tensor) -> Tensor:
        """Predicted noise [B,C,h,w] under an embedding [1,L,D]."""
        networks = self.networks
        asked = torch.cat(
            [z_t, torch.cat([self.masks[i] for i in view_ids]), torch.cat([self.unmasked[i] for i in view_ids])], dim=1
        )
        steps = torch.full((len(z_t),), step, device=networks.device)
        answer = networks.unet(asked, steps, encoder_hidden_states=text.expand(len(z_t), -1, -1).to(z_t)).sample
        return networks.table.noise_of(answer, z_t, step)
