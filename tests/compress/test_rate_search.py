"""One price of bytes for every knob."""

from itertools import product

import pytest

from splat.compress.rate_search import Option, drop_of, loss_of, plan_for_loss, plan_for_size, share_loss

ROWS = 1000


def _knob(name, rates, losses, fixed=0.0):
    return [Option({name: i}, rate, fixed, loss) for i, (rate, loss) in enumerate(zip(rates, losses, strict=True))]


@pytest.fixture
def knobs():
    return {
        "a": _knob("a", (4, 3, 2, 1), (0.0, 0.01, 0.04, 0.16)),
        "b": _knob("b", (6, 5, 4, 3), (0.0, 0.002, 0.008, 0.032)),
    }


class TestPlans:
    @pytest.mark.parametrize("size", [9500, 8000, 7100, 6000, 5000, 4000])
    def test_size_is_kept_and_nothing_better_fits(self, knobs, size):
        plan = plan_for_size(knobs, {}, rows=ROWS, size=size)
        fitting = [sum(option.loss for option in options) for options in product(*knobs.values())
                   if sum(option.bytes(ROWS) for option in options) <= size]  # fmt: skip
        assert plan.bytes <= size and plan.share == 1
        assert plan.loss <= min(fitting) + 0.03  # only options on the convex hull are bought

    def test_splats_go_where_that_costs_least(self, knobs):
        cheap = plan_for_size(knobs, {0.5: 1e-4}, rows=ROWS, size=5000)
        dear = plan_for_size(knobs, {0.5: 5.0}, rows=ROWS, size=5000)
        assert cheap.share == pytest.approx(0.5, abs=0.011) and cheap.loss < 1e-3
        assert dear.share > 0.95

    def test_out_of_reach(self, knobs):
        assert plan_for_size(knobs, {}, rows=ROWS, size=3999) is None

    @pytest.mark.parametrize("drop", [0.02, 0.1, 0.4])
    def test_quality(self, knobs, drop):
        plan = plan_for_loss(knobs, {}, rows=ROWS, loss=loss_of(drop))
        assert drop_of(plan.loss) <= drop + 1e-9
        assert plan.bytes < plan_for_loss(knobs, {}, rows=ROWS, loss=loss_of(drop / 10)).bytes
        back = plan_for_size(knobs, {}, rows=ROWS, size=plan.bytes)
        assert back.loss <= plan.loss


class TestShares:
    def test_between_and_beyond(self):
        known = {0.8: 0.1, 0.5: 0.5}
        assert share_loss(known, 1.0) == 0 and share_loss(known, 0.8) == pytest.approx(0.1)
        losses = [share_loss(known, share / 100) for share in range(100, 3, -1)]
        assert losses == sorted(losses) and losses[-1] > 1
