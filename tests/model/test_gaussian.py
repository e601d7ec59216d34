import pytest
import torch

from splat.errors import UserError
from splat.geometry.rng import keyed_generator
from splat.geometry.rotations import matrix_from_quat
from splat.geometry.sh import rgb_from_sh0
from splat.model.gaussian import GaussianPrimitive
from splat.model.primitives import PRIMITIVES


def _points(count):
    generator = keyed_generator(0, "points", count)
    return torch.rand(count, 3, generator=generator), torch.rand(count, 3, generator=generator)


def _started(xyz, rgb=None, *, sh_degree=3, **settings):
    rgb = torch.full_like(xyz, 0.5) if rgb is None else rgb
    return GaussianPrimitive(**settings).start(xyz, rgb, sh_degree=sh_degree, generator=keyed_generator(0, "s", 0))


def _random_rows(count, sh_degree=3):
    generator = keyed_generator(1, "rows", count)
    return {
        spec.name: torch.randn(count, *spec.shape, generator=generator)
        for spec in GaussianPrimitive().fields(sh_degree)
    }


def _covariances(rows):
    axes = matrix_from_quat(rows["quats"].double())
    return axes @ torch.diag_embed(rows["log_scales"].double().exp().square()) @ axes.transpose(1, 2)


def test_fields_and_reference_rates():
    fields = {spec.name: spec for spec in GaussianPrimitive().fields(2)}
    assert fields["sh_rest"].shape == (8, 3)
    assert fields["means"].lr_times_extent and fields["means"].lr_final_ratio == pytest.approx(0.01)
    rates = {name: spec.lr for name, spec in fields.items()}
    assert rates == {
        "means": 1.6e-4, "quats": 1e-3, "log_scales": 5e-3, "logit_opacities": 0.025, "sh0": 2.5e-3,
        "sh_rest": 1.25e-4,
    }  # fmt: skip
    assert PRIMITIVES["gaussian"] is GaussianPrimitive


def test_start_follows_points(oracle_ops):
    xyz, rgb = _points(40)
    rows = _started(xyz, rgb, init_opacity=0.3, init_scale=0.5)
    for spec in GaussianPrimitive().fields(3):
        assert rows[spec.name].shape == (40, *spec.shape), spec.name
        assert rows[spec.name].dtype == torch.float32 and rows[spec.name].is_contiguous()
    assert torch.equal(rows["means"], xyz) and rows["means"].data_ptr() != xyz.data_ptr()
    assert torch.allclose(rgb_from_sh0(rows["sh0"]), rgb, atol=1e-6)
    assert torch.allclose(torch.sigmoid(rows["logit_opacities"]), torch.tensor(0.3))
    distances = torch.cdist(xyz.double(), xyz.double()).square().sort(dim=1).values[:, 1:4].mean(dim=1).sqrt()
    assert torch.allclose(rows["log_scales"].exp(), (0.5 * distances).float()[:, None].expand(40, 3), rtol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_start_with_few_points(oracle_ops, count):
    rows = _started(_points(count)[0])
    assert all(len(table) == count and torch.isfinite(table).all() for table in rows.values())


def test_start_with_duplicates_has_finite_sizes(oracle_ops):
    xyz = torch.cat([torch.zeros(6, 3), _points(20)[0] + 5])
    sizes = _started(xyz)["log_scales"].exp()
    assert (sizes > 1e-6).all() and torch.isfinite(sizes).all()
    assert sizes[0, 0] < sizes[6:].min()
    same = _started(torch.ones(5, 3))["log_scales"].exp()
    assert ((same > 1e-3) & (same < 1)).all()


def test_start_scales_with_the_world(oracle_ops):
    xyz, _ = _points(30)
    small, large = _started(xyz * 1e-3)["log_scales"], _started(xyz * 1e3)["log_scales"]
    assert torch.allclose(small.exp() * 1e6, large.exp(), rtol=1e-3)


def test_start_refuses_points_that_are_not_finite(oracle_ops):
    xyz = _points(4)[0]
    xyz[2, 1] = torch.nan
    with pytest.raises(UserError, match="1 of 4 start points"):
        _started(xyz)


def test_covariance_product():
    rows, vectors = _random_rows(20), torch.randn(20, 3, generator=keyed_generator(0, "v", 0))
    expected = torch.einsum("nij,nj->ni", _covariances(rows), vectors.double())
    assert torch.allclose(GaussianPrimitive().covariance_product(rows, vectors).double(), expected, rtol=1e-4)


@pytest.mark.parametrize("children", [2, 3])
def test_split_is_child_major_and_smaller(children):
    rows = _random_rows(6)
    parents = torch.tensor([4, 1])
    before = {name: table.clone() for name, table in rows.items()}
    values = GaussianPrimitive().split(rows, parents, children=children, generator=keyed_generator(0, "split", 0))
    assert set(values) == {"means", "log_scales"}
    order = parents.repeat(children)
    shrunk = rows["log_scales"][order].exp() / (0.8 * children)
    assert torch.allclose(values["log_scales"].exp(), shrunk)
    assert (values["means"] != rows["means"][order]).all()
    assert all(torch.equal(rows[name], before[name]) for name in rows)


def test_split_draws_from_the_parent():
    rows = _random_rows(1)
    values = GaussianPrimitive().split(
        rows, torch.zeros(20_000, dtype=torch.int64), children=2, generator=keyed_generator(0, "many", 0)
    )
    offsets = (values["means"] - rows["means"]).double()
    expected = _covariances(rows)[0]
    assert torch.allclose(offsets.T @ offsets / len(offsets), expected, atol=0.03 * float(expected.diagonal().max()))
    assert torch.allclose(offsets.mean(dim=0), torch.zeros(3).double(), atol=0.03 * float(expected.diagonal().max()))


def test_activations_go_back_and_forth():
    primitive, generator = GaussianPrimitive(), keyed_generator(0, "activations", 0)
    opacities, scales = torch.rand(50, generator=generator), torch.rand(50, 3, generator=generator) + 1e-3
    assert torch.allclose(primitive.opacities(primitive.with_opacities(opacities)), opacities, atol=1e-6)
    assert torch.allclose(primitive.scales(primitive.with_scales(scales)), scales)
    edge = primitive.with_opacities(torch.tensor([0.0, 1.0])) | primitive.with_scales(torch.zeros(1, 3))
    assert all(torch.isfinite(table).all() for table in edge.values())


def test_render_inputs_are_the_rows_themselves():
    rows = _random_rows(3)
    inputs = GaussianPrimitive().render_inputs(rows, filter3d=torch.ones(3))
    assert inputs.means is rows["means"] and inputs.sh_rest is rows["sh_rest"] and inputs.count == 3
    assert inputs.filter3d.tolist() == [1, 1, 1]


def test_gaussian_rows_fold_the_filter_in():
    rows, sigma = _random_rows(8), torch.rand(8, generator=keyed_generator(0, "f", 0)) + 0.2
    primitive = GaussianPrimitive()
    plain = primitive.gaussian_rows(rows)
    assert all(torch.equal(plain[name], rows[name]) for name in rows)
    folded = primitive.gaussian_rows(rows, filter3d=sigma)
    axes = matrix_from_quat(rows["quats"].double())
    widened = _covariances(rows) + torch.diag_embed(sigma.double().square()[:, None].expand(8, 3))
    expected_scales = torch.linalg.eigvalsh(widened).sqrt()
    assert torch.allclose(folded["log_scales"].double().exp().sort(dim=1).values, expected_scales, rtol=1e-4)
    ratio = (torch.linalg.det(_covariances(rows)) / torch.linalg.det(widened)).sqrt()
    expected_opacities = torch.sigmoid(rows["logit_opacities"].double()) * ratio
    assert torch.allclose(torch.sigmoid(folded["logit_opacities"].double()), expected_opacities, rtol=1e-3, atol=1e-6)
    assert torch.allclose(_covariances({**rows, "log_scales": folded["log_scales"]}), widened, rtol=1e-3, atol=1e-4)
    assert axes.shape == (8, 3, 3)
