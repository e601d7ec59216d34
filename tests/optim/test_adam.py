import pytest
import torch

from splat.errors import UserError
from splat.geometry.rng import keyed_generator
from splat.model.gaussian import GaussianPrimitive
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel
from splat.optim import reference
from splat.optim.adam import SplatAdam

PRIMITIVE = GaussianPrimitive()
SPECS = PRIMITIVE.fields(2)
LRS = {spec.name: spec.lr * 3 for spec in SPECS}


@pytest.fixture(params=["reference", "native"])
def adam_ops(request):
    """The optimizer must be right on the readable step and on the compiled one."""
    if request.param == "reference":
        return request.getfixturevalue("oracle_ops")
    ops = pytest.importorskip("splat.native.ops", reason="the native library is not built")
    try:
        ops.info()
    except (UserError, OSError):
        pytest.skip("the native library is not built")
    return ops


def _model(count=6):
    generator = keyed_generator(0, "adam", count)
    rows = {spec.name: torch.randn(count, *spec.shape, generator=generator) for spec in SPECS}
    return SplatModel(PRIMITIVE, rows, 2).requires_grad_()


def _set_grads(model, step, scale=1e-6):
    """Gradients as small as a mean over pixels gives, so that a wrong epsilon shows."""
    generator = keyed_generator(0, "grads", step)
    for table in model.rows.values():
        table.grad = torch.randn(table.shape, generator=generator) * scale


def test_equals_torch(adam_ops):
    model, twin = _model(), _model()
    groups = [{"params": [twin.rows[spec.name]], "lr": LRS[spec.name]} for spec in SPECS]
    oracle = torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-15)
    adam = SplatAdam(SPECS)
    adam.start(model)
    for step in range(30):
        _set_grads(model, step)
        _set_grads(twin, step)
        adam.step(model, LRS)
        oracle.step()
    for name in model.rows:
        assert torch.allclose(model.rows[name], twin.rows[name], rtol=1e-5, atol=1e-6), name
        assert not torch.equal(model.rows[name], _model().rows[name])
    assert adam.steps == 30


def test_clears_gradients_and_skips_fields_without(adam_ops):
    model = _model()
    before = {name: table.detach().clone() for name, table in model.rows.items()}
    adam = SplatAdam(SPECS)
    adam.start(model)
    _set_grads(model, 0)
    model.rows["sh_rest"].grad = None
    adam.step(model, LRS)
    assert all(table.grad is None for table in model.rows.values())
    assert torch.equal(model.rows["sh_rest"], before["sh_rest"])
    assert not torch.equal(model.rows["means"], before["means"])
    _set_grads(model, 1)  # the skipped field takes its own first step now: exactly lr in size
    adam.step(model, LRS)
    moved = (model.rows["sh_rest"].detach() - before["sh_rest"]).abs()
    assert torch.allclose(moved, torch.tensor(LRS["sh_rest"]), rtol=1e-2)


def test_fresh_rows_start_from_zero_moments_and_others_keep_theirs(adam_ops):
    model = _model()
    adam = SplatAdam(SPECS)
    adam.start(model)
    _set_grads(model, 0)
    adam.step(model, LRS)
    old = {spec.name: [moment.clone() for moment in adam.moments(spec.name)] for spec in SPECS}
    edit = RowEdit.replace(
        torch.tensor([False, True, False, False, False, False]), torch.tensor([1, 1, 3]), {}, reason="split"
    )
    model.apply(edit)
    adam.apply(edit)
    for spec in SPECS:
        for new, before in zip(adam.moments(spec.name), old[spec.name], strict=True):
            assert torch.equal(new[:5], before[[0, 2, 3, 4, 5]])
            assert (new[5:] == 0).all() and new.shape == model.rows[spec.name].shape
    _set_grads(model, 1)
    adam.step(model, LRS)  # shapes fit
    assert model.count == 8


def test_opacity_reset_touches_one_field_only(adam_ops):
    model = _model()
    adam = SplatAdam(SPECS)
    adam.start(model)
    _set_grads(model, 0)
    adam.step(model, LRS)
    rows = torch.arange(6)
    edit = RowEdit.overwrite(
        6, {"logit_opacities": (rows, torch.zeros(6))}, fresh=torch.ones(6, dtype=torch.bool),
        fresh_fields=frozenset({"logit_opacities"}), reason="reset",
    )  # fmt: skip
    kept = adam.moments("means")[0]
    adam.apply(edit)
    assert adam.moments("means")[0] is kept
    assert all((moment == 0).all() for moment in adam.moments("logit_opacities"))


def test_state_continues_to_the_same_bits(adam_ops):
    model = _model()
    adam = SplatAdam(SPECS)
    adam.start(model)
    for step in range(5):
        _set_grads(model, step)
        adam.step(model, LRS)
    copy, resumed = model.detached().requires_grad_(), SplatAdam(SPECS)
    resumed.load_state_tensors({name: tensor.clone() for name, tensor in adam.state_tensors().items()})
    for step in range(5, 9):
        for each, optimizer in ((model, adam), (copy, resumed)):
            _set_grads(each, step)
            optimizer.step(each, LRS)
    assert resumed.steps == adam.steps == 9
    assert all(torch.equal(model.rows[name], copy.rows[name]) for name in model.rows)


def test_state_of_other_fields_is_refused():
    adam = SplatAdam(SPECS)
    adam.start(_model())
    state = adam.state_tensors()
    state["first.colour"] = state.pop("first.sh0")
    with pytest.raises(ValueError, match=r"first\.colour"):
        SplatAdam(SPECS).load_state_tensors(state)


def test_no_rows(adam_ops):
    model = _model(0)
    adam = SplatAdam(SPECS)
    adam.start(model)
    _set_grads(model, 0)
    adam.step(model, LRS)
    assert adam.steps == 1


def test_strided_gradients_are_accepted(adam_ops):
    model, twin = _model(), _model()
    results = []
    for each, strided in ((model, True), (twin, False)):
        adam = SplatAdam(SPECS)
        adam.start(each)
        _set_grads(each, 0)
        grad = each.rows["means"].grad
        each.rows["means"].grad = grad.T.contiguous().T if strided else grad
        adam.step(each, LRS)
        results.append(each.rows["means"].detach())
    assert torch.equal(*results)


def test_first_step_by_hand():
    param, grad, m, v = (torch.tensor([x]) for x in (1.0, 4.0, 0.0, 0.0))
    reference.adam_step(param, grad, m, v, lr=0.1, beta1=0.9, beta2=0.999, eps=0.0, step=1)
    assert param.item() == pytest.approx(0.9)
    assert (m.item(), v.item()) == pytest.approx((0.4, 0.016))
