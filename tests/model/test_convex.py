import math

import pytest
import torch
from varied_rows import camera_at, drawn, varied_model

from splat.model.convex import ConvexPrimitive
from splat.model.gaussian import GaussianPrimitive
from splat.model.splat_model import SplatModel

pytestmark = pytest.mark.usefixtures("oracle_ops")


def _model(count=10, **settings):
    return varied_model(ConvexPrimitive(**settings), count)


def _centred(vertices):
    return vertices - vertices.mean(dim=1, keepdim=True)


def _corners(model):
    """Vertices in the world [N,K,3]."""
    return model.rows["means"][:, None] + _centred(model.rows["vertices"])


def _split(model, parents, children, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return model.primitive.split(model.rows, torch.tensor(parents), children=children, generator=generator)


@pytest.mark.parametrize("settings", [{"points": 2}, {"points": 9}, {"reference_focal": 0.0}])
def test_settings_that_do_not_fit(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=name):
        ConvexPrimitive(**settings)


@pytest.mark.parametrize("points", [3, 8])
def test_any_number_of_points(points):
    model = _model(points=points)
    assert model.rows["vertices"].shape == (10, points, 3) and model.primitive.pieces == points
    assert torch.isfinite(drawn(model, camera_at())).all()
    assert all(torch.isfinite(table).all() for table in model.primitive.gaussian_rows(model.rows).values())


def test_published_start():
    """Fibonacci spheres of 1.2 d, delta 0.1 / d, sigma 9.5e-4, masks of raw 1 (specs: primitives 3.1)."""
    xyz = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0.1, 0.3, 0], [1, 1, 1]])
    primitive = ConvexPrimitive(published_resolution=True, init_radius=1.2).fitted(77.0)
    assert primitive.reference_focal is None
    rows = primitive.start(xyz, torch.rand(4, 3), sh_degree=0, generator=torch.Generator())
    distances = torch.cdist(xyz.double(), xyz.double()).square().sort(dim=1).values[:, 1:].mean(dim=1).sqrt().float()
    assert torch.allclose(rows["vertices"].norm(dim=2), 1.2 * distances[:, None], rtol=1e-4)
    assert torch.allclose(rows["vertices"].sum(dim=2).diff(dim=0) != 0, torch.tensor(True))
    assert torch.allclose(rows["log_deltas"].exp(), 0.1 / distances, rtol=1e-4)
    assert rows["log_sigmas"].exp().tolist() == pytest.approx([9.5e-4] * 4)
    assert rows["masks"].tolist() == [1] * 4
    assert primitive.render_inputs(rows).constants == (0.0, 0.0)


def test_start_is_the_published_one_where_that_is_at_home():
    """Points 0.02 apart seen by a camera of 1000 px; elsewhere, size and border keep that proportion."""
    xyz = torch.cartesian_prod(*[torch.arange(3.0)] * 3)
    middle = 13
    home, published, coarse, small, tiny = (
        ConvexPrimitive(published_resolution=tied, init_radius=radius)
        .fitted(focal)
        .start(xyz * unit, torch.rand(27, 3), sh_degree=0, generator=torch.Generator())
        for tied, focal, unit, radius in (
            (False, 1000.0, 0.02, 1.2),
            (True, 1.0, 0.02, 1.2),
            (False, 1000.0, 2.0, 1.2),
            (False, 100.0, 0.02, 1.2),
            (False, 1000.0, 0.02, 0.1),
        )
    )
    for name in ("vertices", "log_deltas", "log_sigmas"):
        assert torch.allclose(home[name][middle], published[name][middle], atol=1e-4), name
    # The logit in the middle goes with sigma delta d^2 focal^2.
    logits = [
        (rows["log_sigmas"] + rows["log_deltas"]).exp() * rows["vertices"].square().sum(dim=2).amax(dim=1) * focal**2
        for rows, focal in ((home, 1000), (coarse, 1000), (small, 100), (tiny, 1000))
    ]
    assert all(torch.allclose(logits[0], other, rtol=1e-3) for other in logits[1:])


def test_tables_go_to_the_rasterizer():
    model = _model(masks=False, published_gradients=True, reference_focal=500.0)
    inputs = model.render_inputs()
    assert inputs.kind == "convex" and inputs.quats is None and inputs.log_scales is None
    assert [id(t) for t in inputs.shape] == [id(model.rows[n]) for n in ("vertices", "log_deltas", "log_sigmas")]
    assert inputs.constants == (500.0, 1.0) and inputs.logit_opacities is model.rows["logit_opacities"]
    assert "masks" not in model.rows and model.primitive.regularizer(model.rows) is None


def test_picture_keeps_its_look_at_any_size():
    """At half and twice the size, after averaging pixels (specs: primitives 3.4)."""
    model = _model(5)
    half, full, double = (
        drawn(model, camera_at(size=(24 * k, 18 * k), focal=60.0 * k)) for k in (2, 4, 8)
    )  # fmt: skip

    def shrunk(picture, times):
        return torch.nn.functional.avg_pool2d(picture.permute(2, 0, 1)[None], times)[0].permute(1, 2, 0)

    assert (shrunk(full, 2) - half).abs().mean() < 2e-3 and (shrunk(double, 2) - full).abs().mean() < 2e-3
    tied = SplatModel(ConvexPrimitive(published_resolution=True), model.rows, model.sh_degree)
    first, second = (drawn(tied, camera_at(size=(24 * k, 18 * k), focal=60.0 * k)) for k in (2, 4))
    assert (shrunk(second, 2) - first).abs().mean() > 5e-3, "published: sharper when larger"


def test_masks_let_their_gradient_through():
    """As o * sigmoid(m): straight through the threshold."""
    primitive = ConvexPrimitive()
    rows = {
        "logit_opacities": torch.tensor([0.3, 2.0, -1.0], requires_grad=True),
        "masks": torch.tensor([1.0, -2.0, -6.0], requires_grad=True),
    }
    opacities = primitive.opacities(rows)
    plain = torch.sigmoid(rows["logit_opacities"].detach())
    assert torch.allclose(opacities[:2].detach(), plain[:2]) and opacities[2] < 1e-12
    opacities.sum().backward()
    slope = torch.sigmoid(rows["masks"].detach()) * (1 - torch.sigmoid(rows["masks"].detach()))
    assert torch.allclose(rows["masks"].grad[:2], (plain * slope)[:2], rtol=1e-5)
    assert torch.allclose(rows["logit_opacities"].grad[:2], (plain * (1 - plain))[:2], rtol=1e-5)
    assert rows["masks"].grad[2] == 0 and rows["logit_opacities"].grad[2] == 0
    edge = {"logit_opacities": torch.tensor([90.0, -90.0]), "masks": torch.tensor([90.0, 90.0])}
    assert torch.isfinite(primitive.opacities({k: v.requires_grad_() for k, v in edge.items()})).all()


def test_masked_splats_are_not_drawn():
    model = _model(3)
    model.rows["masks"][:2] = -5.0
    alone = SplatModel(model.primitive, {name: table[2:] for name, table in model.rows.items()}, 2)
    assert torch.equal(drawn(model, camera_at()), drawn(alone, camera_at()))


def test_mask_term():
    model = _model(4)
    model.rows["masks"] = torch.tensor([0.0, 0.0, 100.0, -100.0], requires_grad=True)
    term = model.primitive.regularizer(model.rows)
    assert term.item() == pytest.approx(5e-4 * 0.5)


def test_sizes_are_those_of_the_vertices():
    model = _model()
    centred = _centred(model.rows["vertices"].double())
    covariance = centred.transpose(1, 2) @ centred / 6
    assert torch.allclose(model.scales.double(), covariance.diagonal(dim1=1, dim2=2).sqrt(), rtol=1e-5)
    vectors = torch.randn(10, 3)
    product = model.primitive.covariance_product(model.rows, vectors)
    assert torch.allclose(product.double(), (covariance @ vectors.double()[..., None])[..., 0], atol=1e-5)
    collapsed = {"vertices": torch.ones(2, 6, 3, requires_grad=True)}
    model.primitive.scales(collapsed).sum().backward()
    assert torch.isfinite(collapsed["vertices"].grad).all()


def test_split_puts_a_child_on_every_vertex():
    model = _model()
    values = _split(model, [6, 1], 6)
    corners = _corners(model)[[6, 1]]
    places = values["means"].reshape(6, 2, 3).transpose(0, 1)
    assert torch.allclose(places, corners, atol=1e-6)
    assert torch.allclose(places.mean(dim=1), model.rows["means"][[6, 1]], atol=1e-6)
    small = _centred(model.rows["vertices"][[6, 1]]) * 0.63
    assert torch.allclose(_centred(values["vertices"]), small.repeat(6, 1, 1), atol=1e-6)
    assert "log_deltas" not in values and "masks" not in values
    halved = torch.sigmoid(model.rows["logit_opacities"][[6, 1]].repeat(6)) / 2
    assert torch.allclose(torch.sigmoid(values["logit_opacities"]), halved, rtol=1e-4)


def test_children_are_harder_never_softer():
    model = _model(3, masks=False)
    model.rows["log_sigmas"] = torch.tensor([math.log(9.5e-4), math.log(0.5), math.log(4.0)])
    sigmas = _split(model, [0, 1, 2], 6)["log_sigmas"][:3].exp()
    assert sigmas.tolist() == pytest.approx([9.5e-4**0.88, 0.5**0.88, 4.0], rel=1e-5)
    assert sigmas[0].item() == pytest.approx(2.19e-3, rel=0.01)


def test_fewer_children_take_vertices_of_their_own():
    model = _model()
    values = _split(model, [3] * 50, 2)
    apart = torch.cdist(values["means"].double(), _corners(model)[3].double())
    chosen = apart.argmin(dim=1).reshape(2, 50)
    assert apart.amin(dim=1).max() < 1e-6
    assert (chosen[0] != chosen[1]).all() and len(chosen.unique()) == 6
    with pytest.raises(ValueError, match="not 7"):
        _split(model, [0], 7)


def test_export_lies_along_the_vertices():
    """The covariance of the Gaussian is that of the vertices, but for a factor."""
    model = _model(30)
    plain = model.primitive.gaussian_rows(model.rows)
    vectors = torch.randn(30, 3)
    mine, exported = (
        primitive.covariance_product(rows, vectors)
        for primitive, rows in ((model.primitive, model.rows), (GaussianPrimitive(), plain))
    )
    factors = exported / mine
    assert torch.allclose(factors, factors[:, :1].expand(30, 3), rtol=1e-2) and (factors > 0).all()
    assert torch.equal(plain["means"], model.rows["means"])


def test_export_of_a_hard_round_one():
    """A hull drawn hard: about the covariance of its vertices times 0.79^2, 1.33 times as strong."""
    primitive = ConvexPrimitive(masks=False, reference_focal=1000.0)
    rows = primitive.start(torch.zeros(1, 3), torch.ones(1, 3), sh_degree=0, generator=torch.Generator())
    rows |= {"log_sigmas": torch.tensor([9.0])} | primitive.with_opacities(torch.tensor([0.5]))
    plain = primitive.gaussian_rows(rows)
    expected = torch.linalg.svdvals(_centred(rows["vertices"])[0]) / 6**0.5
    assert plain["log_scales"].exp().sort(descending=True).values[0].tolist() == pytest.approx(
        (0.79 * expected).tolist(), rel=0.02
    )
    assert torch.sigmoid(plain["logit_opacities"]).item() == pytest.approx(0.5 * 1.335, rel=0.02)


@pytest.mark.parametrize("hardness", [0.5, 3.0, 40.0])
def test_export_is_near_the_best_of_its_kind(hardness):
    """One factor of size and one of opacity for all: no other pair draws splats that do not overlap much nearer."""
    model = varied_model(ConvexPrimitive(masks=False), 15, sh_degree=0)
    rows = dict(model.rows)
    rows["vertices"] = rows["vertices"] * (0.14 / model.scales.amax(dim=1))[:, None, None]
    rows["log_deltas"] = torch.full((15,), 3.0)
    offsets = torch.linalg.svdvals(_centred(rows["vertices"])) / 6**0.5
    area = (offsets * offsets.roll(1, dims=1)).mean(dim=1)
    rows["log_sigmas"] = torch.log(hardness / (area * 60**2)) - 3
    grid = torch.cartesian_prod(torch.arange(5.0) - 2, torch.arange(3.0) - 1, torch.zeros(1))
    rows |= {"means": grid, "sh0": torch.ones(15, 3)} | model.primitive.with_opacities(torch.full((15,), 0.5))
    plain = model.primitive.gaussian_rows(rows)
    cameras = camera_at(8.0, size=(100, 60), focal=150.0)
    picture = drawn(SplatModel(model.primitive, rows, 0), cameras)

    def distance(size=1.0, strength=1.0):
        other = plain | {"log_scales": plain["log_scales"] + math.log(size)}
        other |= GaussianPrimitive().with_opacities(torch.sigmoid(plain["logit_opacities"]) * strength)
        return float((drawn(SplatModel(GaussianPrimitive(), other, 0), cameras) - picture).square().sum())

    assert distance() < 0.35 * float(picture.square().sum())
    assert distance() < 1.05 * min(distance(1.12), distance(0.88), distance(1.0, 1.12), distance(1.0, 0.88))


def test_export_of_degenerate_rows_is_finite():
    model = _model(4)
    model.rows["vertices"][0] = 0.3  # a point
    model.rows["vertices"][1] = torch.arange(6.0)[:, None] * torch.tensor([1.0, 2.0, 3.0])  # a line
    model.rows["vertices"][2, :, 1] = 0.0  # flat
    model.rows["vertices"][3, 0, 0] = torch.nan
    plain = model.primitive.gaussian_rows(model.rows)
    assert all(torch.isfinite(table).all() for table in plain.values())
    assert torch.allclose(plain["quats"].norm(dim=1), torch.ones(4))


def test_fitted_keeps_what_is_set():
    assert ConvexPrimitive().fitted(640.0).reference_focal == 640.0
    assert ConvexPrimitive(reference_focal=10.0).fitted(640.0).reference_focal == 10.0
