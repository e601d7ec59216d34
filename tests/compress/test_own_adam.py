import torch

from splat.compress.own_adam import step_learnables
from splat.compress.protocol import CompressState


def _state():
    rng = torch.Generator().manual_seed(0)
    rows = {"masks": torch.randn(7, generator=rng).requires_grad_(True)}
    parameters = {"field.grid": torch.randn(4, 2, generator=rng).requires_grad_(True)}
    return CompressState(rows, parameters)


def _step(state, rates):
    for table in (state.rows["masks"], state.parameters["field.grid"]):
        (table.square() * 3).sum().backward()
    step_learnables(state, rates)


def test_it_is_adam():
    state, other = _state(), _state()
    rates = {"masks": (other.rows["masks"], 0.1), "field": (other.parameters["field.grid"], 0.02)}
    adam = torch.optim.Adam([{"params": [table], "lr": rate} for table, rate in rates.values()], eps=1e-15)
    for _ in range(5):
        _step(state, {"masks": 0.1, "field": 0.02})
        adam.zero_grad()
        (other.rows["masks"].square().sum() * 3 + other.parameters["field.grid"].square().sum() * 3).backward()
        adam.step()
    torch.testing.assert_close(state.rows["masks"], other.rows["masks"])
    torch.testing.assert_close(state.parameters["field.grid"], other.parameters["field.grid"])
    assert state.rows["masks"].grad is None and state.scalars["steps.masks"] == 5


def test_without_a_rate_nothing_moves():
    state = _state()
    before = state.parameters["field.grid"].detach().clone()
    _step(state, {"masks": 0.1})
    assert torch.equal(state.parameters["field.grid"], before) and state.parameters["field.grid"].grad is None


def test_a_resumed_state_goes_on_alike():
    rates = {"masks": 0.1, "field": 0.02}
    state = _state()
    _step(state, rates)
    other = CompressState.of_tensors(state.tensors(), state.scalars)
    for each in (state, other):
        _step(each, rates)
        _step(each, rates)
    assert all(torch.equal(table, other.tensors()[name]) for name, table in state.tensors().items())
