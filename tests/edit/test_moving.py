"""Raw values of moved splats, against moving a whole model and against what is drawn."""

import pytest
import torch
from drag_models import bar, block, everything

from splat.edit.drag.drag import drag_values
from splat.edit.moving import deformed_values, moved_values
from splat.edit.ops import Drag, Handle
from splat.errors import UserError
from splat.geometry.rotations import matrix_from_quat
from splat.model.primitives import PRIMITIVES
from splat.model.splat_model import SplatModel
from splat.render.reference import ReferenceRasterizer
from splat.render.types import CameraBatch, RenderOptions


def similarity(scale, turn=(0.5**0.5, 0.0, 0.5**0.5, 0.0), shift=(0.2, 0.1, -0.3)):
    matrix = torch.eye(4).double()
    matrix[:3, :3] = scale * matrix_from_quat(torch.tensor(turn).double())
    matrix[:3, 3] = torch.tensor(shift).double()
    return matrix


@pytest.mark.parametrize("kind", PRIMITIVES)
def test_moved_rows_are_those_of_the_moved_model(kind):
    model, rows = block(30, (1.0, 1, 1), kind=kind), torch.tensor([3, 29, 7])
    whole = model.primitive.transformed(model.rows, similarity(1.5))
    values = moved_values(model, rows, similarity(1.5))
    assert {"means", "sh_rest"} <= set(values) < set(model.rows) and "logit_opacities" not in values
    for name, table in values.items():
        assert torch.equal(table, whole[name][rows]), name
    assert set(moved_values(model, rows, similarity(1.0, (1.0, 0, 0, 0)))) <= {"means", "sh_rest", "vertices"}
    assert moved_values(model, rows, torch.eye(4)) == {}
    assert all(len(table) == 0 for table in moved_values(model, rows[:0], similarity(2.0)).values())


def test_a_mirror_is_refused():
    model = block(5, (1.0, 1, 1))
    with pytest.raises(UserError, match="similarity"):
        moved_values(model, torch.arange(5), torch.diag(torch.tensor([1.0, 1, -1, 1])))


@pytest.mark.parametrize("kind", PRIMITIVES)
def test_deformed_by_a_rotation_is_moved(kind):
    model, rows = block(30, (1.0, 1, 1), kind=kind), torch.tensor([3, 29, 7])
    moved = moved_values(model, rows, similarity(1.0))
    turn = similarity(1.0)[:3, :3].expand(3, 3, 3)
    deformed = deformed_values(model, rows, moved["means"], turn)
    for name, table in deformed.items():
        if name != "quats":  # of either sign
            assert torch.allclose(table, moved.get(name, model.rows[name][rows]), atol=3e-6), name


def _picture(model, pose):
    K = torch.tensor([[40.0, 0, 12], [0, 40, 9], [0, 0, 1]]).double()
    rows = {name: table.double() for name, table in model.rows.items()}
    inputs = model.primitive.render_inputs(rows)
    cameras = CameraBatch(pose[None], K[None], 24, 18)
    return ReferenceRasterizer().render(inputs, cameras, RenderOptions(sh_degree=model.sh_degree)).color[0]


@pytest.mark.parametrize("kind", PRIMITIVES)
def test_turned_by_a_quarter_it_looks_the_same_from_the_turned_camera(kind):
    """A drag that turns everything by 90 degrees: covariances and colours must turn with it."""
    model = block(25, (0.8, 0.8, 0.8), kind=kind, sh_degree=3)
    turn = (0.5**0.5, 0.0, 0.5**0.5, 0.0)
    rows, values = drag_values(model, everything(model), Drag((Handle((0, 0, 0), (0.1, 0, 0), 0.3, turn),)))
    after = SplatModel(model.primitive, dict(model.rows), 3)
    for name, table in values.items():
        after.rows[name] = after.rows[name].clone()
        after.rows[name][rows] = table
    pose = torch.eye(4).double()
    pose[2, 3] = 2.0
    turned = pose @ torch.linalg.inv(similarity(1.0, turn, (0.1, 0, 0)))
    first, second = _picture(model, pose), _picture(after, turned)
    assert first.amax() > 0.2 and torch.allclose(first, second, atol=2e-5)
    still = SplatModel(model.primitive, after.rows | {"sh_rest": model.rows["sh_rest"]}, 3)
    assert not torch.allclose(first, _picture(still, turned), atol=1e-2)


def test_the_arguments_stay_as_they_are():
    model = bar(100)
    before = {name: table.clone() for name, table in model.rows.items()}
    moved_values(model, torch.arange(50), similarity(1.2))
    deformed_values(model, torch.arange(50), model.rows["means"][:50], torch.eye(3).expand(50, 3, 3))
    assert all(torch.equal(model.rows[name], before[name]) for name in before)


def test_a_larger_copy_of_a_splat_has_a_larger_filter():
    """The Mip filter is a size in the world, set by the views; undo brings back the bits."""
    from splat.edit.bench import Bench
    from splat.edit.ops import Select, Transform
    from splat.edit.session import EditSession
    from splat.edit.shapes import AttributeRange

    model = block(30, (2.0, 2.0, 2.0))
    model.filter3d = torch.rand(30) + 0.1
    before, rows, session = model.filter3d.clone(), Bench(model), EditSession()
    rows.apply(session.do(rows, Select(AttributeRange("x", 0.0, 9.0))))
    chosen = model.rows["means"][:, 0] >= 0
    double = ((2.0, 0, 0, 0), (0, 2.0, 0, 0), (0, 0, 2.0, 0), (0, 0, 0, 1.0))
    rows.apply(session.do(rows, Transform(double)))
    assert torch.equal(rows.model.filter3d, torch.where(chosen, 2 * before, before))
    rows.apply(session.undo(rows))
    assert torch.equal(rows.model.filter3d, before)
    rows.apply(session.redo(rows))
    assert torch.equal(rows.model.filter3d, torch.where(chosen, 2 * before, before))


def test_splats_grow_with_what_is_pulled_long():
    """A plate drawn out to three times its length has no holes."""
    model = block(1000, (1.0, 0.5, 0.004), at=(0, 0, 2.5))
    model.rows["logit_opacities"] += 3.0
    ends = [Handle((x, 0, 2.5), (3 * x, 0, 2.5), 0.06) for x in (-0.48, 0.48)]
    rows, values = drag_values(model, everything(model), Drag(tuple(ends), mode="smooth"))
    pulled = SplatModel(model.primitive, {**model.rows, **values}, model.sh_degree)
    assert torch.equal(rows, torch.arange(model.count))
    inputs = pulled.primitive.render_inputs({name: table.double() for name, table in pulled.rows.items()})
    K = torch.tensor([[60.0, 0, 20], [0, 60, 3], [0, 0, 1]]).double()
    camera = CameraBatch(torch.eye(4).double()[None], K[None], 40, 6)
    alpha = ReferenceRasterizer().render(inputs, camera, RenderOptions(sh_degree=model.sh_degree)).alpha[0]
    inner = alpha.reshape(6, 40)[:, 2:-2]
    assert inner.min() > 0.85
