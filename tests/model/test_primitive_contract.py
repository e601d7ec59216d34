"""What every primitive promises."""

from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from varied_rows import FOCAL, camera_at, drawn, similarity, varied_model

from splat.geometry.rng import keyed_generator
from splat.model.gaussian_family import GAUSSIAN_FIELDS
from splat.model.primitive import stretched
from splat.model.primitives import PRIMITIVES
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel
from splat.model.transform import transformed

pytestmark = pytest.mark.usefixtures("oracle_ops")
EVERY = pytest.mark.parametrize("kind", PRIMITIVES)


def _model(kind, count=12, **settings):
    return varied_model(PRIMITIVES[kind](), count, **settings)


def _spread(model):
    """Mean variance of each splat over the axes of the world [N]."""
    axes = torch.eye(3)
    parts = [model.primitive.covariance_product(model.rows, axis.expand(model.count, 3)) @ axis for axis in axes]
    return torch.stack(parts).mean(dim=0)


@EVERY
def test_settings_and_what_it_says_about_itself(kind):
    cls = PRIMITIVES[kind]
    assert cls.kind == kind and is_dataclass(cls) and cls.__dataclass_params__.frozen and cls() == cls()
    assert 20 < len(cls.purpose) <= 100 and "\n" not in cls.purpose
    assert cls.export in ("exact", "lossy") and cls().pieces >= 2
    assert all(isinstance(getattr(cls(), field.name), int | float | bool | None) for field in fields(cls))


@EVERY
@pytest.mark.parametrize("sh_degree", [0, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_start_has_every_field(kind, sh_degree, count):
    primitive, generator = PRIMITIVES[kind](), keyed_generator(0, "start", 0)
    rows = primitive.start(torch.rand(count, 3), torch.rand(count, 3), sh_degree=sh_degree, generator=generator)
    specs = primitive.fields(sh_degree)
    assert list(rows) == [spec.name for spec in specs]
    for spec in specs:
        table = rows[spec.name]
        assert table.shape == (count, *spec.shape) and table.dtype == torch.float32, spec.name
        assert table.is_contiguous() and torch.isfinite(table).all() and spec.lr > 0, spec.name
    assert primitive.scales(rows).shape == (count, 3) and primitive.opacities(rows).shape == (count,)
    assert primitive.opacities(rows).tolist() == pytest.approx([primitive.init_opacity] * count)


@EVERY
def test_first_splats_grow_with_the_world(kind):
    """Their picture from twice as far away is the same."""
    xyz, rgb = torch.rand(9, 3) - 0.5, torch.rand(9, 3)
    primitive, generator = PRIMITIVES[kind]().fitted(FOCAL), keyed_generator(0, "start", 0)
    near, far = (
        SplatModel(primitive, primitive.start(xyz * size, rgb, sh_degree=0, generator=generator), 0) for size in (1, 2)
    )
    assert torch.allclose(primitive.scales(far.rows), 2 * primitive.scales(near.rows), rtol=1e-4)
    assert torch.allclose(drawn(near, camera_at(2.5)), drawn(far, camera_at(5.0)), atol=1e-5)
    assert drawn(near, camera_at(2.5)).amax() > 0.1


@EVERY
def test_render_inputs_carry_every_row(kind):
    model = _model(kind).requires_grad_()
    inputs = model.render_inputs()
    assert inputs.count == model.count and inputs.kind in ("gaussian", kind)
    tables = [inputs.means, inputs.quats, inputs.log_scales, inputs.logit_opacities, inputs.sh0, inputs.sh_rest]
    total = sum(table.square().sum() for table in (*tables, *inputs.shape) if table is not None)
    total.backward()
    for name, table in model.rows.items():
        assert table.grad is not None and (table.grad != 0).any(), f"{name} has no gradient"
    assert all(torch.isfinite(table.grad).all() for table in model.rows.values())


@EVERY
def test_activated_values_have_gradients(kind):
    model = _model(kind).requires_grad_()
    (model.scales.sum() + model.opacities.sum()).backward()
    assert all(torch.isfinite(t.grad).all() for t in model.rows.values() if t.grad is not None)
    sizes = {"gaussian": "log_scales", "ges": "shapes", "gef": "log_scales", "convex": "vertices"}
    assert (model.rows[sizes[kind]].grad != 0).any()


@EVERY
def test_row_edits_keep_it_drawable(kind):
    model = _model(kind)
    model.apply(RowEdit.keep(torch.arange(12) % 2 == 0))
    model.apply(RowEdit.append(6, torch.tensor([1, 1]), {}, reason="clone"))
    assert model.count == 8 and model.render_inputs().count == 8
    assert torch.isfinite(drawn(model, camera_at())).all()


@EVERY
def test_with_opacities_and_back(kind):
    model, wanted = _model(kind), torch.linspace(0.01, 0.98, 12)
    if "masks" in model.rows:
        model.rows["masks"].fill_(1.0)
    model.rows |= model.primitive.with_opacities(wanted)
    assert torch.allclose(model.opacities, wanted, atol=1e-6)
    edge = model.primitive.with_opacities(torch.tensor([0.0, 1.0]))
    assert all(torch.isfinite(table).all() for table in edge.values())


@EVERY
@pytest.mark.parametrize("children", [2, None])
def test_split(kind, children):
    """Fields, order, places around the parents', smaller sizes; the arguments stay as they are."""
    model = _model(kind)
    before = {name: table.clone() for name, table in model.rows.items()}
    primitive, parents = model.primitive, torch.tensor([7, 2, 4])
    children = primitive.pieces if children is None else children
    generator = keyed_generator(0, "split", 0)
    values = primitive.split(model.rows, parents, children=children, generator=generator)
    assert set(values) <= set(model.rows) and all(len(table) == 3 * children for table in values.values())
    rows = {name: table[parents.repeat(children)] for name, table in model.rows.items()} | values
    family = SplatModel(primitive, rows, model.sh_degree)
    kin = SplatModel(primitive, {name: table[parents.repeat(children)] for name, table in before.items()}, 2)
    assert (_spread(family) < _spread(kin)).all()
    reach = 5 * _spread(kin).sqrt()
    assert ((rows["means"] - kin.rows["means"]).norm(dim=1) < reach).all()
    assert (family.opacities <= kin.opacities).all()
    again = primitive.split(model.rows, parents, children=children, generator=keyed_generator(0, "split", 0))
    assert all(torch.equal(values[name], again[name]) for name in values)
    assert all(torch.equal(model.rows[name], before[name]) for name in before)


@EVERY
def test_resized_is_the_same_picture_at_another_size(kind):
    """Twice the size in front of one camera is what a camera of twice the focal length sees."""
    model = _model(kind, count=3)
    rows = {name: table[:1].clone() for name, table in model.rows.items()}
    rows["means"].zero_()
    rows |= model.primitive.with_opacities(torch.tensor([0.9]))
    small = SplatModel(model.primitive, rows, 2)
    large = SplatModel(model.primitive, rows | model.primitive.resized(rows, torch.tensor([0]), torch.tensor([2.0])), 2)
    assert torch.allclose(_spread(large), 4 * _spread(small), rtol=1e-4)
    assert torch.allclose(large.scales, 2 * small.scales, rtol=1e-4)
    # From far away, as perspective differs across a splat that is near.
    first, second = drawn(large, camera_at(1e4, focal=4e4)), drawn(small, camera_at(1e4, focal=8e4))
    assert first.amax() > 0.2 and first.amin() < 0.1 and torch.allclose(first, second, atol=1e-4)
    which = torch.tensor([2, 0])
    one = model.primitive.resized(model.rows, which, torch.ones(2))
    assert all(torch.allclose(table, model.rows[name][which], atol=1e-6) for name, table in one.items())


@EVERY
def test_transformed_draws_the_same_seen_from_the_moved_camera(kind):
    model, moved = _model(kind), similarity()
    before = {name: table.clone() for name, table in model.rows.items()}
    there = transformed(model, moved)
    assert set(there.rows) == set(model.rows)
    near = camera_at()
    # Cameras keep pixels when world and camera are moved alike: z grows with the scale.
    pose = near.camera_from_world @ torch.linalg.inv(moved)
    pose[:, :3] *= 1.7
    pictures = drawn(model, near), drawn(there, replace(near, camera_from_world=pose))
    assert torch.allclose(*pictures, atol=1e-4) and pictures[0].amax() > 0.1
    assert torch.allclose(there.scales.square().sum(dim=1), 1.7**2 * model.scales.square().sum(dim=1), rtol=1e-3)
    assert all(torch.equal(model.rows[name], before[name]) for name in before)
    assert transformed(_model(kind, count=0), moved).count == 0


@EVERY
@pytest.mark.parametrize("count", [0, 12])
def test_gaussian_rows_are_plain_and_finite(kind, count):
    model = _model(kind, count)
    plain = model.primitive.gaussian_rows(model.rows)
    assert tuple(plain) == GAUSSIAN_FIELDS or set(plain) == set(GAUSSIAN_FIELDS)
    shapes = {spec.name: spec.shape for spec in PRIMITIVES["gaussian"]().fields(2)}
    for name, table in plain.items():
        assert table.shape == (count, *shapes[name]) and table.dtype == torch.float32, name
        assert torch.isfinite(table).all() and not table.requires_grad, name
    wider = model.primitive.gaussian_rows(model.rows, filter3d=torch.full((count,), 0.5))
    assert (wider["log_scales"] > plain["log_scales"]).all()


@EVERY
def test_export_is_as_good_as_it_says(kind):
    """Exact: the same picture. Lossy: nearer to it than no splats, or plain rows of the same sizes, would be."""
    model = _model(kind)
    plain = SplatModel(PRIMITIVES["gaussian"](), model.primitive.gaussian_rows(model.rows), 2)
    picture, exported = drawn(model, camera_at()), drawn(plain, camera_at())
    if model.primitive.export == "exact":
        assert torch.allclose(picture, exported, atol=1e-5)
    else:
        error = (picture - exported).square().mean()
        assert error > 1e-7 and error < 0.1 * picture.square().mean()


@EVERY
def test_upkeep_changes_no_picture(kind):
    model = _model(kind)
    primitive = model.primitive
    single = {"dtype": torch.float32}
    before = drawn(model, camera_at(**single), **single)
    inputs = primitive.render_inputs(model.rows)
    happened = 0
    for step in (1, 500, 1000, 3000, 15_000, 30_000):
        for edit in primitive.upkeep(model.rows, step):
            model.apply(edit)
            happened += 1
    after = primitive.render_inputs(model.rows)
    assert torch.equal(drawn(model, camera_at(**single), **single), before)
    assert inputs.log_scales is None or torch.equal(inputs.log_scales, after.log_scales)
    assert happened == (2 if kind == "ges" else 0)


@EVERY
def test_schedule_and_capture(kind):
    primitive = PRIMITIVES[kind]()
    assert primitive.rescaled(1.0) == primitive and isinstance(primitive.rescaled(0.1), PRIMITIVES[kind])
    fitted = primitive.fitted(512.0)
    assert fitted.fields(2) == primitive.fields(2) and fitted.fitted(99.0) == fitted


@EVERY
def test_regularizer_is_a_scalar_with_a_gradient(kind):
    model = _model(kind).requires_grad_()
    term = model.primitive.regularizer(model.rows)
    assert (term is None) == (kind != "convex")
    if term is not None:
        term.backward()
        assert term.ndim == 0 and any((t.grad != 0).any() for t in model.rows.values() if t.grad is not None)
    assert model.primitive.regularizer(_model(kind, count=0).rows) is None


def test_stretched():
    assert stretched(100, 2.0) == 200
    assert stretched(100, 0.1, at_least=25) == 25
    assert stretched(10, 0.1, at_least=25) == 10
    assert stretched(0, 3.0, at_least=25) == 0
