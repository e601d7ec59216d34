import pytest
import torch

from splat.geometry.rng import keyed_generator
from splat.model.gaussian import GaussianPrimitive
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel


def _model(count=5, sh_degree=1):
    generator = keyed_generator(0, "model", count)
    primitive = GaussianPrimitive()
    rows = {spec.name: torch.randn(count, *spec.shape, generator=generator) for spec in primitive.fields(sh_degree)}
    return SplatModel(primitive, rows, sh_degree, filter3d=torch.rand(count, generator=generator))


def test_values_only_edit_keeps_other_tensors_and_their_memory():
    model = _model().requires_grad_()
    before = dict(model.rows)
    old_opacities = model.rows["logit_opacities"].detach().clone()
    filter3d = model.filter3d
    model.apply(RowEdit.overwrite(5, {"logit_opacities": (torch.tensor([2]), torch.tensor([4.0]))}, reason="reset"))
    for name, table in model.rows.items():
        assert (table is before[name]) == (name != "logit_opacities")
    assert model.filter3d is filter3d
    assert model.rows["logit_opacities"][2] == 4
    assert model.rows["logit_opacities"].requires_grad and model.rows["logit_opacities"].is_leaf
    assert torch.equal(before["logit_opacities"], old_opacities), "the old table was written to"


def test_moving_rows_moves_every_field_and_the_filter():
    model = _model().requires_grad_()
    before = {name: table.detach().clone() for name, table in model.rows.items()} | {"filter3d": model.filter3d}
    order = torch.tensor([3, 0, 4])
    model.apply(RowEdit(order, 5, reason="sort"))
    assert model.count == 3
    for name, table in (model.rows | {"filter3d": model.filter3d}).items():
        assert torch.equal(table.detach(), before[name][order])
    assert all(table.is_leaf and table.requires_grad for table in model.rows.values())


def test_unknown_field_is_refused_before_anything_changes():
    model = _model()
    before = dict(model.rows)
    with pytest.raises(ValueError, match=r"\['colour'\]"):
        model.apply(RowEdit.append(5, torch.tensor([0]), {"colour": torch.zeros(1)}, reason="grow"))
    assert all(model.rows[name] is before[name] for name in before)


def test_detached_shares_no_memory():
    model = _model()
    copy = model.detached()
    copy.rows["means"].zero_()
    copy.filter3d.zero_()
    assert model.rows["means"].abs().sum() > 0
    assert model.filter3d.sum() > 0
