"""Masks against what they stand for: factors on activated opacity and size."""

import torch

from splat.compress.masks import OFF, mask_loss, masked_rows, shown
from splat.model.activations import sigmoid
from splat.model.gaussian import GaussianPrimitive
from splat.render.reference import ReferenceRasterizer
from splat.render.types import CameraBatch, RenderOptions

COUNT = 6


def _rows(seed=0):
    rng = torch.Generator().manual_seed(seed)
    rows = {
        "means": torch.randn(COUNT, 3, generator=rng) * 0.4,
        "quats": torch.randn(COUNT, 4, generator=rng),
        "log_scales": torch.randn(COUNT, 3, generator=rng) * 0.3 - 1.5,
        "logit_opacities": torch.randn(COUNT, generator=rng),
        "sh0": torch.randn(COUNT, 3, generator=rng),
        "sh_rest": torch.zeros(COUNT, 0, 3),
    }
    return {name: table.double() for name, table in rows.items()}


def _loss(rows):
    """A smooth number of a small picture."""
    pose = torch.eye(4, dtype=torch.float64)
    pose[2, 3] = 3.0
    K = torch.tensor([[14.0, 0, 8], [0, 14, 6], [0, 0, 1]], dtype=torch.float64)
    cameras = CameraBatch(pose[None], K[None], 16, 12)
    inputs = GaussianPrimitive().render_inputs(rows)
    color = ReferenceRasterizer().render(inputs, cameras, RenderOptions(sh_degree=0)).color
    return (color * torch.linspace(0.2, 1, color.numel(), dtype=torch.float64).view_as(color)).sum()


def test_the_gradient_is_that_of_factors_on_opacity_and_size():
    rows = _rows()
    logits = torch.linspace(-2, 3, COUNT, dtype=torch.float64).requires_grad_(True)
    _loss(masked_rows(rows, logits, 0.01)).backward()

    def with_factor(index, factor):
        opacity, scales = sigmoid(rows["logit_opacities"]).clone(), rows["log_scales"].exp()
        opacity[index] *= factor
        scales[index] *= factor
        return _loss(rows | {"logit_opacities": opacity.logit(), "log_scales": scales.log()})

    step = 1e-5
    for index in range(COUNT):
        by_factor = (with_factor(index, 1 + step) - with_factor(index, 1 - step)) / (2 * step)
        strength = torch.sigmoid(logits.detach()[index])
        expected = by_factor * strength * (1 - strength)
        torch.testing.assert_close(logits.grad[index], expected, rtol=1e-4, atol=1e-9)
    assert logits.grad.abs().min() > 1e-6


def test_rows_get_the_gradients_they_had():
    plain, masked = ({name: table.requires_grad_(True) for name, table in _rows().items()} for _ in range(2))
    _loss(plain).backward()
    _loss(masked_rows(masked, torch.ones(COUNT, dtype=torch.float64), 0.01)).backward()
    for name in ("means", "quats", "log_scales", "logit_opacities", "sh0"):
        torch.testing.assert_close(masked[name].grad, plain[name].grad, rtol=1e-12, atol=0)


def test_switched_off_means_not_there():
    rows = _rows()
    logits = torch.ones(COUNT, dtype=torch.float64)
    logits[[1, 4]] = -4.7  # sigmoid 0.0090
    logits[2] = -4.5  # 0.0110
    leaf = logits.clone().requires_grad_(True)
    raw = {name: table.requires_grad_(True) for name, table in rows.items()}
    drawn = masked_rows(raw, leaf, 0.01)
    assert shown(logits, 0.01).tolist() == [True, False, True, True, False, True]
    assert (drawn["logit_opacities"][[1, 4]] == OFF).all()
    kept = {name: table.detach()[[0, 2, 3, 5]] for name, table in rows.items()}
    loss = _loss(drawn)
    torch.testing.assert_close(loss, _loss(kept))
    loss.backward()
    assert (leaf.grad[[1, 4]] == 0).all() and (raw["logit_opacities"].grad[[1, 4]] == 0).all()


def test_the_loss_pulls_down_every_mask_alike():
    logits = torch.zeros(10).requires_grad_(True)
    mask_loss(logits).backward()
    torch.testing.assert_close(logits.grad, torch.full((10,), 0.025))


def test_saturated_opacities_keep_finite_gradients():
    rows = _rows()
    rows["logit_opacities"] = torch.tensor([-60.0, -20, 0, 20, 60, 100], dtype=torch.float64)
    logits = torch.ones(COUNT, dtype=torch.float64).requires_grad_(True)
    _loss(masked_rows(rows, logits, 0.01)).backward()
    assert logits.grad.isfinite().all()


def test_without_a_field_of_sizes():
    logits, opacities = torch.ones(3).requires_grad_(True), torch.zeros(3).requires_grad_(True)
    drawn = masked_rows({"logit_opacities": opacities}, logits, 0.01)
    drawn["logit_opacities"].sum().backward()
    strength = sigmoid(torch.tensor(1.0))
    torch.testing.assert_close(logits.grad, (2 * strength * (1 - strength)).repeat(3))
    assert (opacities.grad == 1).all()
