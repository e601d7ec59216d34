"""Priors with weights, on tiny random networks. Skipped where the extra ``diffusion`` is not installed."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from prior_worlds import cameras, lift, right_end, save_inpainting, slab

pytest.importorskip("diffusers", reason="the extra 'diffusion' is not installed")
pytest.importorskip("transformers", reason="the extra 'diffusion' is not installed")
pytest.importorskip("peft", reason="the extra 'diffusion' is not installed")

from splat.edit.prior.inpaint import InpaintGuidance, SdsInpaint
from splat.edit.prior.protocol import EditView
from splat.edit.prior.refine import RefineSettings, refine_drag
from splat.edit.prior.regions import split_regions
from splat.edit.prior.schedule import T_MIN
from splat.edit.prior.score import distillation_loss
from splat.errors import UserError
from splat.render.native_rasterizer import NativeRasterizer

# Packages of the extra warn about their own future.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
TINY = RefineSettings(steps=3, batch=2, views=2, longest_px=64, resolutions=(4, 8), channels=2, nodes=40)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_inpainting(tmp_path_factory.mktemp("inpainting"))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may open a connection."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def guidance(weights: Path, prior: SdsInpaint, *, views: int = 2, seed: int = 0) -> InpaintGuidance:
    generator = torch.Generator().manual_seed(5)
    mask = torch.zeros(64, 64)
    mask[16:48, 16:48] = 1
    points = torch.tensor([[32.0, 32.0]])
    made = [
        EditView(camera, torch.rand(3, 64, 64, generator=generator), mask, points, points + 8)
        for camera in cameras(views)
    ]
    nowhere = torch.zeros(1, 3)
    return prior.prepare(made, nowhere, nowhere, folder=weights, device=torch.device("cpu"), seed=seed)


def test_the_gradient_of_score_distillation_against_differences(weights: Path) -> None:
    """One parameter, the brightness of a picture; z* fixed."""
    judge = guidance(weights, SdsInpaint(source_rank=0))
    for network in (judge.networks.vae, judge.networks.unet):
        network.double()
    networks = replace(judge.networks, dtype=torch.float64)
    pattern = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def latents(brightness: torch.Tensor) -> torch.Tensor:
        return networks.encode(pattern * brightness)

    brightness = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    z = latents(brightness)
    target = z.detach() + 0.1 * torch.randn(z.shape, generator=torch.Generator().manual_seed(2), dtype=z.dtype)

    def loss(value: torch.Tensor) -> torch.Tensor:
        return distillation_loss(latents(value), target, networks.decode, networks.table, 400)

    loss(brightness).backward()
    step = 1e-5
    with torch.no_grad():
        difference = (loss(brightness + step) - loss(brightness - step)) / (2 * step)
    assert float(brightness.grad) == pytest.approx(float(difference), rel=1e-5)


def test_without_a_source_branch_the_latents_get_the_gradient_of_sds(weights: Path) -> None:
    """2 w (e_prior - e) inside the mask, nothing outside; w = 1 - a^2."""
    judge = guidance(weights, SdsInpaint(source_rank=0, decoded_weight=0))
    table, step = judge.networks.table, 400
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3)).requires_grad_()
    state = judge._noises.get_state()
    target = judge.target(z.detach(), [0], step, 0.5)
    judge._noises.set_state(state)
    noise = torch.randn(z.shape, generator=judge._noises)
    with torch.no_grad():
        predicted = judge.prior_noise(table.noised(z, noise, step), [0], step, 0.5)
    distillation_loss(z, target, judge.networks.decode, table, step, decoded_weight=0).backward()
    _, s = table.scales(step)
    wanted = 2 * s**2 * (predicted - noise) * judge.masks[0]
    torch.testing.assert_close(z.grad, wanted, rtol=1e-4, atol=1e-5)
    assert 0 < judge.masks[0].mean() < 1 and bool((z.grad[judge.masks[0].expand_as(z) == 0] == 0).all())


def test_the_source_branch_learns_the_renders_and_leaves_the_prior_alone(weights: Path) -> None:
    judge = guidance(weights, SdsInpaint(source_rank=4, source_lr=1e-2))
    picture = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    z = judge.networks.encode(picture)
    z_t = judge.networks.table.noised(z, torch.randn_like(z), 300)
    before = judge.predicted(z_t, [0, 1], 300, judge.texts[0])
    with judge.source.on():  # at first the branch is the prior itself
        torch.testing.assert_close(judge.predicted(z_t, [0, 1], 300, judge.source.embedding), before)
    errors = [judge.loss(picture, [0, 1], 0.5)[1]["source"] for _ in range(30)]
    assert sum(errors[-8:]) < 0.95 * sum(errors[:8])
    torch.testing.assert_close(judge.predicted(z_t, [0, 1], 300, judge.texts[0]), before, rtol=0, atol=0)
    with judge.source.on():
        assert not torch.allclose(judge.predicted(z_t, [0, 1], 300, judge.source.embedding), before, atol=1e-4)


def test_the_noise_ends_at_its_least_level(weights: Path) -> None:
    judge = guidance(weights, SdsInpaint())
    picture = torch.rand(1, 3, 64, 64)
    assert judge.loss(picture, [0], 1.0)[1]["t"] == pytest.approx(T_MIN)
    assert judge.loss(picture, [0], 0.0)[1]["t"] == pytest.approx(0.98)


def test_a_prompt_guides(weights: Path) -> None:
    plain, told = (guidance(weights, SdsInpaint(prompt=text, source_rank=0)) for text in ("", "a b c"))
    z_t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(6))
    first, second = (judge.prior_noise(z_t, [0], 500, 0.5) for judge in (plain, told))
    assert not torch.allclose(first, second)


def test_gradients_reach_splats_of_mask_and_shell_alone(weights: Path) -> None:
    model = slab()
    mask, drag, seen = right_end(model), lift(model, band=0.0), []
    edit = refine_drag(
        model, mask, drag, cameras(), SdsInpaint(source_rank=2), NativeRasterizer(), settings=TINY, folder=weights,
        progress=lambda number, total, figures: seen.append((number, total, figures)),
    )  # fmt: skip
    assert [part[:2] for part in seen] == [(1, 3), (2, 3), (3, 3)]
    assert seen[0][2]["t"] == pytest.approx(0.98) and seen[-1][2]["t"] == pytest.approx(T_MIN)
    rows = edit.values["means"][0]
    allowed = split_regions(model.rows["means"], mask).rows
    assert torch.equal(rows, allowed) and bool(mask[rows].any()) and not bool(mask[rows].all())
    # In the second stage (from step 2 of 3) colours learn: only of what the cameras see, by pictures alone.
    colours, before = edit.values["sh0"][1], model.rows["sh0"][rows]
    assert float((colours - before).abs().max()) > 1e-4
    after = model.detached()
    after.apply(edit)
    others = torch.ones(model.count, dtype=torch.bool).index_fill_(0, rows, False)
    for name, table in model.rows.items():
        assert torch.equal(after.rows[name][others], table[others]), name


def test_the_same_seed_gives_the_same_drag(weights: Path) -> None:
    model = slab(300)
    told = {"settings": TINY, "folder": weights}
    runs = [
        refine_drag(model, right_end(model), lift(model), cameras(), SdsInpaint(source_rank=2), NativeRasterizer(),
                    seed=seed, **told).values["sh0"][1]
        for seed in (1, 1, 2)
    ]  # fmt: skip
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_a_model_that_is_not_for_inpainting_is_refused(weights: Path, tmp_path: Path) -> None:
    import shutil

    from diffusers import UNet2DConditionModel

    folder = tmp_path / "plain"
    shutil.copytree(weights, folder)
    config = UNet2DConditionModel.load_config(str(weights / "unet")) | {"in_channels": 4}
    UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")
    with pytest.raises(UserError, match=r"takes 4 channels; one for inpainting takes 9"):
        guidance(folder, SdsInpaint())


def test_a_damaged_file_is_a_line(weights: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "damaged"
    shutil.copytree(weights, folder)
    (folder / "unet" / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"sds-inpaint.*cannot be read"):
        guidance(folder, SdsInpaint())
