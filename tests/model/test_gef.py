import pytest
import torch
from varied_rows import camera_at, drawn, varied_model

from splat.model.gaussian import GaussianPrimitive
from splat.model.gef import GefPrimitive
from splat.model.splat_model import SplatModel

pytestmark = pytest.mark.usefixtures("oracle_ops")


def _model(count=10):
    return varied_model(GefPrimitive(), count)


def test_exponents_stay_in_range_and_start_at_one():
    model = _model()
    model.rows["shapes"][:5] = torch.tensor([0.0, 1.0, -1.0, 1e6, -1e6])
    exponents = GefPrimitive().exponents(model.rows)
    expected = 4 ** torch.tanh(model.rows["shapes"].double())
    assert torch.allclose(exponents.double(), expected, rtol=1e-5)
    assert exponents[0] == 1
    assert exponents[3:5].tolist() == pytest.approx([4, 0.25])


def test_starts_as_gaussians_and_exports_them_exactly():
    points = torch.rand(8, 3) - 0.5
    rows = GefPrimitive().start(points, torch.rand(8, 3), sh_degree=1, generator=torch.Generator())
    same = GaussianPrimitive().start(points, rows["sh0"], sh_degree=1, generator=torch.Generator())
    plain = GefPrimitive().gaussian_rows(rows)
    assert torch.equal(rows["log_scales"], same["log_scales"])
    for name, table in plain.items():
        assert torch.allclose(table, rows[name], rtol=1e-6, atol=1e-6), name


def test_shapes_go_to_the_rasterizer_as_they_are():
    model = _model()
    inputs = model.render_inputs()
    assert inputs.kind == "gef" and inputs.shape == (model.rows["shapes"],) and inputs.constants == ()
    assert inputs.log_scales is model.rows["log_scales"]


@pytest.mark.parametrize(("shape", "opacity"), [(-2.0, 0.6), (-0.5, 0.9), (0.6, 0.4), (0.6, 0.95), (2.0, 0.5)])
def test_export_is_the_nearest_gaussian_in_the_picture(shape, opacity):
    """No other size or opacity comes nearer, one splat alone; in the picture, so clamps and cuts count too."""
    primitive = GefPrimitive()
    rows = primitive.start(torch.zeros(1, 3), torch.ones(1, 3), sh_degree=0, generator=torch.Generator())
    rows |= {"log_scales": torch.full((1, 3), -1.6), "shapes": torch.tensor([shape])}
    rows |= primitive.with_opacities(torch.tensor([opacity]))
    cameras = camera_at(2.5, size=(64, 64), focal=80.0)
    picture = drawn(SplatModel(primitive, rows, 0), cameras)
    plain = primitive.gaussian_rows(rows)
    assert torch.sigmoid(plain["logit_opacities"]) <= 0.99 + 1e-6

    def distance(size=1.0, strength=1.0):
        opacities = torch.sigmoid(plain["logit_opacities"]) * strength
        other = {"log_scales": plain["log_scales"] + torch.tensor(size).log()}
        other |= GaussianPrimitive().with_opacities(opacities.clamp(max=0.99))
        return float((drawn(SplatModel(GaussianPrimitive(), plain | other, 0), cameras) - picture).square().sum())

    assert distance() < 0.15 * float(picture.square().sum())
    assert distance() < min(distance(1.15), distance(0.85), distance(1.0, 1.15), distance(1.0, 0.85)) or (
        opacity == 0.95 and distance() < min(distance(1.15), distance(0.85))
    )
