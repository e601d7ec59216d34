import itertools
import math
import random

import pytest

from splat.densify.powerlaw import (
    next_budget,
    power_law_budget,
    record_loss,
    refit_exponent,
)

CURVES = {  # exponent -> splats (in thousands) at 5, 10, 25, 50 and 75 percent, from 100 to 1000
    -0.5: (0.65, 0.78, 0.90, 0.96, 0.99),
    -0.2: (0.51, 0.65, 0.81, 0.91, 0.97),
    0.0: (0.42, 0.55, 0.73, 0.87, 0.94),
    1.0: (0.14, 0.18, 0.32, 0.55, 0.77),
}


def _follow(scalars, losses, *, window=500, first=100):
    for step, loss in enumerate(losses, start=first):
        record_loss(scalars, step, loss, window=window)


@pytest.mark.parametrize("exponent", CURVES)
def test_published_curves(exponent):
    budgets = [power_law_budget(t, exponent, first=100_000, most=1_000_000) / 1e6 for t in (5, 10, 25, 50, 75)]
    assert budgets == pytest.approx(CURVES[exponent], abs=0.0056)  # the table is rounded up here and there


@pytest.mark.parametrize("exponent", [-2.0, -0.3, -1e-12, 0.0, 1e-6, 0.4, 1.0, 3.0])
def test_from_the_first_number_to_the_last_and_never_down(exponent):
    budgets = [power_law_budget(1 + i * 99 / 500, exponent, first=300, most=70_000) for i in range(501)]
    assert budgets[0] == pytest.approx(300, rel=1e-12) and budgets[-1] == pytest.approx(70_000, rel=1e-12)
    assert all(now < then for now, then in itertools.pairwise(budgets))
    assert power_law_budget(0.0, exponent, first=300, most=70_000) == budgets[0]
    assert power_law_budget(120.0, exponent, first=300, most=70_000) == budgets[-1]


def test_limit_of_exponent_zero_is_met_from_both_sides():
    limit = power_law_budget(7.0, 0.0, first=0, most=1)
    assert limit == pytest.approx(math.log(7) / math.log(100), rel=1e-15)
    for size in (1e-3, 1e-5, 1e-8, 2e-9, 1e-11, 1e-300):
        below, above = (power_law_budget(7.0, sign * size, first=0, most=1) for sign in (-1, 1))
        assert [below, above] == pytest.approx([limit] * 2, abs=2 * size + 1e-15)
        assert below >= limit >= above and (size < 1e-8 or below > limit > above)


def test_more_negative_exponents_grow_earlier():
    budgets = [power_law_budget(20.0, a / 10, first=0, most=1) for a in range(-20, 21)]
    assert budgets == sorted(budgets, reverse=True)


@pytest.mark.parametrize("slope", [-0.7, -0.15])
def test_exponent_of_a_power_law_is_its_slope(slope):
    """Far from the start the smoothing, a hundred steps late, hardly bends the line."""
    scalars = {}
    _follow(scalars, [0.3 * step**slope for step in range(3000, 9000)], first=3000)
    assert refit_exponent(scalars, base=-9.0) == pytest.approx(slope, abs=0.05)


def test_slower_than_expected_raises_the_exponent_and_lowers_the_budget():
    steady, stalled = {}, {}
    falling = [step**-0.5 for step in range(100, 3000)]
    _follow(steady, [*falling, *(step**-0.5 for step in range(3000, 5000))])
    _follow(stalled, [*falling, *(3000**-0.5 for _ in range(3000, 5000))])
    steady_exponent, stalled_exponent = refit_exponent(steady, base=0.0), refit_exponent(stalled, base=0.0)
    assert stalled_exponent > steady_exponent + 0.1
    assert next_budget(stalled, 30.0, stalled_exponent, count=100, most=10_000) < next_budget(
        steady, 30.0, steady_exponent, count=100, most=10_000
    )


def test_exponent_moves_at_most_half_from_the_mean_of_the_history():
    scalars = {}
    _follow(scalars, [step**-0.2 for step in range(100, 2000)])
    _follow(scalars, [1e-9 * (2000 / step) ** 40 for step in range(2000, 2600)], first=2000)
    first = refit_exponent(scalars, base=0.0)
    base = scalars["exponent_sum"] / scalars["exponent_fits"]
    assert base - 0.5 <= first < base - 0.49
    scalars["exponent_sum"] += 7.0
    scalars["exponent_fits"] += 1.0
    assert refit_exponent(scalars, base=0.0) > first, "the base is the mean over all refits"


def test_a_recent_slope_within_its_noise_says_nothing():
    """Losses of views that differ by half: over 200 steps at step 5000, the raw slope would be off by far more."""
    noise = random.Random(3)
    scalars = {}
    offs = []
    for step in range(100, 5000):
        record_loss(scalars, step, step**-0.3 * math.exp(noise.gauss(0, 0.5)), window=200)
        if step > 3000 and step % 100 == 0:
            exponent = refit_exponent(scalars, base=0.0)
            offs.append(abs(exponent - scalars["exponent_sum"] / scalars["exponent_fits"]))
    assert sorted(offs)[len(offs) // 2] < 0.02


@pytest.mark.parametrize("losses", [[], [0.1] * 30, [0.0, math.nan, math.inf, -1.0] * 100])
def test_base_while_there_is_nothing_to_fit(losses):
    scalars = {}
    _follow(scalars, losses)
    assert refit_exponent(scalars, base=-0.37) == -0.37


def test_budget_never_falls_and_never_passes_the_cap():
    scalars = {}
    noise = random.Random(0)
    budgets = [
        next_budget(scalars, percent, noise.uniform(-1, 1), count=100 + percent, most=5000) for percent in range(1, 101)
    ]
    assert budgets == sorted(budgets) and budgets[0] == 101 and budgets[-1] == 5000
    assert next_budget(scalars, 100.0, -0.2, count=5, most=400) == 400, "a cap that fell since is kept"
    assert next_budget({}, 75.0, 1.0, count=0, most=10) == 7, "of 7.47 splats seven exist"
    assert next_budget({}, 50.0, -0.2, count=900, most=400) == 400, "a start above the cap"


def test_recent_losses_fade_over_the_window():
    scalars = {}
    _follow(scalars, [0.1] * 3000, window=250)
    assert scalars["history_n"] == 3000 and scalars["recent_n"] == pytest.approx(250, abs=0.01)


def test_history_is_a_fixed_number_of_floats_and_resumes_exactly():
    whole, first = {}, {}
    losses = [0.2 * step**-0.25 * (1 + 0.1 * math.sin(step)) for step in range(100, 2100)]
    _follow(whole, losses)
    _follow(first, losses[:700])
    size = len(first)
    resumed = {name: float(repr(value)) for name, value in first.items()}  # as through the JSON of a checkpoint
    _follow(resumed, losses[700:], first=800)
    assert resumed == whole and len(whole) == size < 20
    assert all(type(value) is float for value in whole.values())
