import math

import pytest
import torch
from varied_rows import camera_at, drawn, varied_model

from splat.model.gaussian import GaussianPrimitive
from splat.model.ges import GesPrimitive
from splat.model.splat_model import SplatModel
from splat.optim.adam import SplatAdam

pytestmark = pytest.mark.usefixtures("oracle_ops")


def _model(count=10, **settings):
    return varied_model(GesPrimitive(**settings), count)


def _phi(shapes, strength=0.1):
    return 2 * torch.sigmoid(strength * shapes.double())


def test_sizes_follow_the_shapes():
    model = _model()
    model.rows["shapes"][:4] = torch.tensor([0.0, 1e4, -1e4, -3.0])
    phi = _phi(model.rows["shapes"].clamp(-700, 700))
    expected = model.rows["log_scales"].double().exp() * phi[:, None]
    assert torch.allclose(model.scales.double(), expected, rtol=1e-5)
    inputs = model.render_inputs()
    assert inputs.kind == "gaussian" and torch.equal(inputs.log_scales[0], model.rows["log_scales"][0])
    assert torch.isfinite(inputs.log_scales).all()


def test_gradient_of_the_size_factor():
    """d phi / d s = strength phi (1 - phi / 2), so d log phi / d s = strength (1 - phi / 2)."""
    shapes = torch.tensor([-20.0, -1.0, 0.0, 0.5, 30.0], dtype=torch.float64, requires_grad=True)
    GesPrimitive().log_size_factors({"shapes": shapes}).sum().backward()
    assert torch.allclose(shapes.grad, 0.1 * (1 - _phi(shapes.detach()) / 2))


def test_covariances_and_children_are_those_of_what_is_drawn():
    model = _model()
    plain = SplatModel(GaussianPrimitive(), model.primitive.gaussian_rows(model.rows), 2)
    vectors = torch.randn(10, 3)
    products = (m.primitive.covariance_product(m.rows, vectors) for m in (model, plain))
    assert torch.allclose(*products, rtol=1e-4)
    parents = torch.tensor([3, 5])
    made = [
        m.primitive.split(m.rows, parents, children=2, generator=torch.Generator().manual_seed(1))
        for m in (model, plain)
    ]
    assert torch.allclose(made[0]["means"], made[1]["means"], atol=1e-6)
    assert torch.allclose(made[0]["log_scales"], model.rows["log_scales"][parents.repeat(2)] - math.log(1.6))


def test_export_adds_the_logarithm():
    """The release multiplies the log scales instead, which moves sizes the other way (specs: primitives 2.6)."""
    model = _model()
    model.rows["log_scales"].fill_(-5.0)
    model.rows["shapes"].fill_(-1.0)
    size = model.primitive.gaussian_rows(model.rows)["log_scales"].exp() / math.exp(-5)
    assert size.flatten().tolist() == pytest.approx([0.95] * 30, abs=1e-3)


def test_reset_keeps_sizes_and_restarts_only_the_shapes():
    model = _model()
    adam = SplatAdam(model.primitive.fields(2))
    adam.start(model)
    for name in model.rows:
        for moment in adam.moments(name):
            moment.fill_(1.0)
    sizes = model.scales.clone()
    (edit,) = model.primitive.upkeep(model.rows, 2000)
    model.apply(edit)
    adam.apply(edit)
    assert torch.equal(model.scales, sizes) and not model.rows["shapes"].any()
    for name in model.rows:
        assert all((moment == (name != "shapes")).all() for moment in adam.moments(name)), name


def test_published_reset_jumps():
    model = _model(published_reset=True)
    before, logs = drawn(model, camera_at()), model.rows["log_scales"].clone()
    (edit,) = model.primitive.upkeep(model.rows, 1000)
    model.apply(edit)
    assert torch.equal(model.rows["log_scales"], logs) and not model.rows["shapes"].any()
    assert (drawn(model, camera_at()) - before).abs().amax() > 1e-3


def test_schedule_of_resets():
    def due(primitive):
        rows = varied_model(primitive, 2).rows
        return [step for step in range(1, 30_001) if list(primitive.upkeep(rows, step))]

    assert due(GesPrimitive()) == list(range(1000, 15_000, 1000))
    assert due(GesPrimitive().rescaled(0.25)) == list(range(250, 3750, 250))
    assert due(GesPrimitive(shape_reset_every=0)) == []
    assert GesPrimitive().rescaled(0.01).shape_reset_every == 100
