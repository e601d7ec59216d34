import pytest

from splat.model.gaussian import GaussianPrimitive
from splat.optim.schedule import learning_rates

SPECS = GaussianPrimitive().fields(3)


def test_positions_decay_log_linearly_and_follow_the_extent():
    rates = [learning_rates(SPECS, step, 30_000, 4.0)["means"] for step in (0, 15_000, 30_000, 40_000)]
    assert rates == pytest.approx([4 * 1.6e-4, 4 * 1.6e-5, 4 * 1.6e-6, 4 * 1.6e-6])


def test_the_other_rates_are_constant():
    first, last = learning_rates(SPECS, 0, 100, 4.0), learning_rates(SPECS, 100, 100, 1.0)
    assert {n: r for n, r in first.items() if n != "means"} == {n: r for n, r in last.items() if n != "means"}
    assert first["logit_opacities"] == 0.025
    assert set(first) == {spec.name for spec in SPECS}


def test_progress_is_relative():
    assert learning_rates(SPECS, 30, 100, 1.0) == learning_rates(SPECS, 300, 1000, 1.0)
    assert learning_rates(SPECS, 0, 0, 1.0)["means"] == pytest.approx(1.6e-6)


def test_a_factor_moves_all_rates_but_those_of_opacities():
    plain, doubled = (learning_rates(SPECS, 3, 10, 2.0, scale) for scale in (1.0, 2.0))
    still = {name for name in plain if doubled[name] == plain[name]}
    assert still == {"logit_opacities"}
    assert {doubled[name] / plain[name] for name in plain if name not in still} == {2.0}
