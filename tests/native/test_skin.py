"""Points carried by nodes, against the readable reference; the same bits however it is run."""

from dataclasses import replace

import pytest
import torch

from splat.edit.drag.graph import binding
from splat.edit.drag.reference import skin_reference
from splat.geometry.rotations import matrix_from_quat, normalized_quats
from splat.native.ops import info, set_isa, set_threads
from splat.native.skin import Skin, skin


def _case(count=700, nodes=60, seed=0, size=1.0):
    generator = torch.Generator().manual_seed(seed)
    rest = torch.rand(nodes, 3, generator=generator).double()
    points = torch.rand(count, 3, generator=generator)
    bound = binding(points, rest, torch.ones(nodes, nodes, dtype=torch.bool))
    softness = torch.rand(count, generator=generator).clamp(0.2, 0.8).sub(0.2) / 0.6
    slopes = torch.randn(count, 3, generator=generator) * (softness > 0)[:, None]
    quats = normalized_quats(torch.randn(nodes, 4, generator=generator).double() + torch.tensor([2.0, 0, 0, 0]))
    shifts = size * torch.randn(nodes, 3, generator=generator).double()
    linear = matrix_from_quat(quats) - torch.eye(3).double()
    return Skin(points, *bound, softness, slopes, rest).checked(), shifts, linear, quats


@pytest.mark.parametrize("size", [0.0, 1.0])
def test_is_the_reference(size):
    case = _case(size=size)
    means, turns, gradients = skin(*case, gradients=True)
    expected = skin_reference(*case)
    assert torch.allclose(means.double(), expected[0], atol=1e-6 * (1 + size))
    same = turns.double() * torch.sign((turns * expected[1]).sum(dim=1, keepdim=True))  # q and -q are one turn
    assert torch.allclose(same, expected[1], atol=1e-6)
    # Weights change by up to 1 over a hundredth of a unit here.
    assert torch.allclose(gradients.double(), expected[2], atol=1e-5 * float(expected[2].abs().max()))
    assert skin(*case)[2] is None


def test_gradients_are_those_of_the_map():
    """By differences of the reference, with weights that follow the point."""
    bound, shifts, linear, turns = _case(count=300)
    still = replace(bound, softness=torch.ones(300), softness_gradients=torch.zeros(300, 3))
    rings, step = torch.ones(60, 60, dtype=torch.bool), 1e-4
    found = skin(still, shifts, linear, turns, gradients=True)[2]
    columns = []
    for axis in torch.eye(3):
        ends = []
        for sign in (1, -1):
            points = still.points.double() + sign * step * axis
            tables = binding(points, still.rest.double(), rings)
            ends.append(skin_reference(Skin(points, *tables, still.softness, still.softness_gradients,
                                            still.rest), shifts, linear, turns)[0])  # fmt: skip
        columns.append((ends[0] - ends[1]) / (2 * step))
    wanted = torch.stack(columns, dim=2)
    error = (found - wanted).abs().amax(dim=(1, 2)) / wanted.abs().amax(dim=(1, 2))
    assert error.median() < 2e-3 and (error < 0.05).float().mean() > 0.97  # but for points about to change nodes


def test_what_has_no_softness_stays_to_the_bit():
    bound, shifts, linear, turns = _case()
    means, turned, gradients = skin(bound, shifts, linear, turns, gradients=True)
    stays = bound.softness == 0
    assert stays.sum() > 20 and torch.equal(means[stays], bound.points[stays])
    assert (turned[stays] == torch.tensor([1.0, 0, 0, 0])).all() and (gradients[stays] == torch.eye(3)).all()


def test_no_motion_changes_no_bit():
    bound, shifts, linear, _ = _case()
    still = torch.tensor([1.0, 0, 0, 0]).expand(60, 4)
    means, turned, gradients = skin(bound, 0 * shifts, 0 * linear, still, gradients=True)
    assert torch.equal(means, bound.points) and (turned == still[0]).all() and (gradients == torch.eye(3)).all()


def test_the_same_bits_on_any_number_of_threads_and_instruction_set():
    case, best = _case(count=9001), info()["isa"]
    expected = skin(*case, gradients=True)
    try:
        for isa in info()["isas"].split():
            for threads in (1, 3):
                set_isa(isa)
                set_threads(threads)
                assert all(torch.equal(a, b) for a, b in zip(skin(*case, gradients=True), expected, strict=True))
    finally:
        set_threads(0)
        set_isa(best)


def test_refuses_what_does_not_fit():
    bound, shifts, linear, turns = _case(count=5)
    with pytest.raises(ValueError, match="linear"):
        skin(bound, shifts, linear[:3], turns)
    with pytest.raises(ValueError, match="weights"):
        replace(bound, weights=bound.weights[:, :3]).checked()
    with pytest.raises(RuntimeError, match="skin"):
        skin(replace(bound, nodes=bound.nodes + 60), shifts, linear, turns)
    assert skin(*_case(count=0))[0].shape == (0, 3)
