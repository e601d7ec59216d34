import pytest
import torch

from splat.model.activations import logit, sigmoid


def test_equal_to_torch_to_rounding():
    raw = torch.linspace(-60, 60, 4001)
    assert torch.allclose(sigmoid(raw), torch.sigmoid(raw), rtol=1e-6)
    values = torch.linspace(1e-6, 1 - 1e-6, 4001)
    assert torch.allclose(logit(values), torch.logit(values), rtol=1e-5, atol=1e-6)


def test_gradient_is_finite_everywhere():
    raw = torch.tensor([-1e4, -100.0, -2.0, 0.0, 3.0, 100.0, 1e4], requires_grad=True)
    sigmoid(raw).sum().backward()
    activated = torch.sigmoid(raw.detach())
    assert torch.allclose(raw.grad, activated * (1 - activated), atol=1e-7)


@pytest.mark.parametrize("function", [sigmoid, lambda raw: logit(raw.abs() / 40), torch.exp])
def test_same_bits_on_any_number_of_threads(function):
    raw = torch.randn(100_003, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            results.append(function(raw))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], other) for other in results[1:])
