"""What is drawn while training through steps is what the file decodes to."""

import pytest
import torch

from splat.compress.fake_quant import Steps, one_sign, opacity_steps, quats_attribute, rounded_quats
from splat.io.codecs import CODECS


def _values(*shape, seed=0, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class TestSteps:
    @pytest.mark.parametrize(
        ("steps", "error"),
        [(Steps(0.1), 0.05), (Steps(2.0**-9, "log"), 0.01), (opacity_steps(5), 0.5 / 31 + 0.004), (Steps(0.7), 0.35)],
    )
    def test_draws_what_decodes(self, steps, error):
        values = _values(300, 3, scale=2.0)
        attribute = steps.attribute(values, "zstd")
        decoded = torch.from_numpy(CODECS[attribute.codec].decode(attribute, {"a": (300, 3)})["a"])
        assert (decoded - steps.rounded(values)).abs().max() < 1e-4
        activated = (lambda x: x.sigmoid()) if steps.through == "sigmoid" else (lambda x: x)
        assert (activated(decoded) - activated(values)).abs().max() <= error * (1 + 1e-4)

    def test_steps_do_not_move_with_the_range(self):
        values = _values(50, 2)
        wider = torch.cat([values, torch.tensor([[-40.0, 90.0]])])
        assert torch.equal(Steps(0.1).rounded(values), Steps(0.1).rounded(wider)[:50])

    def test_what_was_rounded_stays(self):
        for steps in (Steps(0.13), Steps(0.01, "log"), opacity_steps(4)):
            once = steps.rounded(_values(100))
            assert (steps.rounded(once) - once).abs().max() < 1e-4

    def test_gradients_pass(self):
        values = _values(20).requires_grad_(True)
        Steps(0.5).rounded(values).square().sum().backward()
        assert torch.allclose(values.grad, 2 * Steps(0.5).rounded(values.detach()))

    def test_a_step_too_fine_for_16_bits_is_doubled(self):
        values = torch.tensor([[0.0], [1000.0], [333.3]])
        attribute = Steps(0.001).attribute(values, "zstd")
        assert attribute.numbers["bits"] == 16 and attribute.tolerance < 0.01


class TestQuats:
    @pytest.mark.parametrize("bits", [4, 6, 9])
    def test_draws_what_decodes(self, bits):
        quats = _values(200, 4)
        quats[3] = 0
        attribute = quats_attribute(quats, bits, "zstd")
        decoded = torch.from_numpy(CODECS["smallest3"].decode(attribute, {"q": (200, 4)})["q"])
        assert (decoded - rounded_quats(quats, bits)).abs().max() < 1e-6

    def test_gradients_are_those_of_the_turn(self):
        quats = (3 * _values(30, 4)).double().requires_grad_(True)
        weights = _values(30, 4, seed=1).double()
        (one_sign(quats) * weights).sum().backward()
        exact, quats.grad = quats.grad, None
        (rounded_quats(quats, 6) * weights).sum().backward()
        assert torch.allclose(quats.grad, exact)
