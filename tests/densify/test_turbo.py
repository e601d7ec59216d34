from dataclasses import replace

import pytest
import torch

from splat.densify.protocol import Look
from splat.densify.turbo import TurboDensity, well_visited
from splat.model.gaussian import GaussianPrimitive
from splat.render.types import SplatStats

SMALL, LARGE, HUGE = 0.005, 0.05, 0.2  # sizes in extents: below 0.01, above it, above 0.1
PLAIN = {"opacity_decay": 0.0, "color_share": 0.0}


@pytest.fixture
def run_with(new_run):
    """A run whose rows have given sizes and opacities; ``gradients`` are observed in two views, seen everywhere."""

    def make(gradients, *, sizes=None, colors=None, opacities=None, settings=None, **context):
        count = len(gradients)
        run = new_run(
            TurboDensity(**{**PLAIN, **(settings or {})}), GaussianPrimitive(), count,
            **{"extent_world": 2.0, "max_splats": 10_000, **context},
        )  # fmt: skip
        sizes = 2.0 * torch.tensor(sizes or [SMALL] * count)
        run.model.rows |= run.model.primitive.with_scales(sizes[:, None].repeat(1, 3))
        run.model.rows |= run.model.primitive.with_opacities(torch.tensor(opacities or [0.5] * count))
        for view in (3, 7):
            _look(run, 400, view, gradients, colors=colors)
        return run

    return make


def _stats(gradients, colors=None, visible=None):
    gradients = torch.tensor(gradients)[None]
    colors = torch.zeros_like(gradients) if colors is None else torch.tensor(colors)[None]
    visible = torch.ones_like(gradients, dtype=torch.bool) if visible is None else torch.tensor(visible)[None]
    return SplatStats(visible=visible, grad2d=gradients, color_grad=colors)


def _look(run, step, view, gradients, *, colors=None, visible=None, loss=0.0):
    run.densifier.observe(
        run.state, step, _stats(gradients, colors, visible), width=64, height=48, view=view, loss=loss
    )


def _names(run):
    return [int(name) for name in run.names]


class TestWhoGrows:
    def test_small_are_cloned_and_large_halved(self, run_with):
        run = run_with([3e-4, 3e-4, 1e-4, 2e-4], sizes=[SMALL, LARGE, LARGE, SMALL], settings={"split": "halve"})
        assert run.refine(700) == ["clone", "split"]
        assert _names(run) == [0, 2, 3, 0, 3, 1, 1]
        scales = run.model.scales[5:].amax(dim=1) / (2.0 * LARGE)
        assert scales.tolist() == pytest.approx([0.893] * 2, rel=1e-4), "0.55 along the axis that was longest"
        assert run.model.opacities[5:].tolist() == pytest.approx([0.3, 0.3])

    def test_random_split_is_the_papers(self, run_with):
        run = run_with([3e-4], sizes=[LARGE])
        assert run.refine(700) == ["split"]
        assert run.model.scales.flatten().tolist() == pytest.approx([2 * LARGE / 1.6] * 6)

    def test_mean_over_the_views_that_saw_it(self, run_with):
        run = run_with([2.5e-4, 2.5e-4])
        _look(run, 401, 8, [5e-5, 99.0], visible=[True, False])
        assert run.refine(700) == ["clone"] and _names(run) == [0, 1, 1]

    def test_batch_of_views_equals_single_views(self, run_with):
        """A mean-of-batch loss halves each view's gradient: the statistics must not notice, to the last bit."""
        singles, batch = run_with([0.0, 0.0]), run_with([0.0, 0.0])
        singles.state.restart(), batch.state.restart()
        seen = [[True, True], [False, True]]
        norms, colors = [[3e-4, 1e-4], [7e-4, 2.3e-4]], [[1e-6, 3e-6], [2e-6, 7e-6]]
        for c in range(2):
            _look(singles, 5, 20 + c, norms[c], colors=colors[c], visible=seen[c])
        both = SplatStats(
            visible=torch.tensor(seen), grad2d=torch.tensor(norms) / 2, color_grad=torch.tensor(colors) / 2
        )
        batch.densifier.observe(batch.state, 5, both, width=64, height=48, view=20)
        for name, table in singles.state.tables.items():
            assert torch.equal(table, batch.state.tables[name]), name

    def test_colour_counts_at_some_refinements(self, run_with):
        """Threshold 2e-6; at a fifth of the refinements, the same ones for one seed."""
        grown = {}
        for share, seed in ((0.0, 0), (0.2, 0), (0.2, 5), (1.0, 0)):
            grown[share, seed] = []
            for step in range(1000, 7000, 100):
                run = run_with([1e-4] * 2, colors=[2.1e-6, 1.9e-6], settings={"color_share": share}, seed=seed)
                if run.refine(step):
                    assert _names(run) == [0, 1, 0]
                    grown[share, seed].append(step)
        assert not grown[0.0, 0] and len(grown[1.0, 0]) == 60
        assert 5 <= len(grown[0.2, 0]) <= 20
        assert grown[0.2, 5] != grown[0.2, 0]

    def test_seen_in_one_view_only_stays(self, run_with):
        run = run_with([0.0, 0.0, 0.0])
        run.state.restart()
        for view, seen in ((4, [True, True, False]), (4, [True, True, True]), (9, [False, True, True])):
            _look(run, 401, view, [1.0] * 3, visible=seen)
        assert run.state.tables["seen_in"].tolist() == [5, -1, -1]
        assert run.refine(700) == ["clone"] and _names(run) == [0, 1, 2, 1, 2]

    def test_seldom_seen_stay(self):
        views = torch.tensor([0.0, 1, 2, 3, 4, 5])
        several = torch.full((6,), -1, dtype=torch.int32)
        assert well_visited(views, several, 0.5).tolist() == [False, False, False, True, True, True]
        assert well_visited(views, several, 0.0).tolist() == [False, True, True, True, True, True]
        assert well_visited(views, several, 1.0).tolist() == [False] * 5 + [True]
        several[4] = 3
        assert well_visited(views, several, 0.5).tolist() == [False, False, False, True, False, True]
        assert not well_visited(views * 0, several, 0.5).any()

    def test_unseen_and_broken_gradients_do_not_grow(self, run_with):
        run = run_with([float("nan"), 3e-4, float("inf")])
        assert run.refine(700) == ["clone"] and _names(run) == [0, 1, 2, 1]


class TestBudget:
    def test_highest_scores_first(self, run_with):
        run = run_with([3e-4, 9e-4, 5e-4, 4e-4], sizes=[SMALL, LARGE, SMALL, SMALL], max_splats=7)
        run.refine(14_900)
        assert _names(run) == [0, 2, 3, 2, 1, 1], "just before the end there is room for two of seven, rounded down"

    def test_scores_are_parts_over_their_maxima(self, run_with):
        run = run_with([4e-4, 2e-4, 1e-4], colors=[0.0, 3e-6, 6e-6])
        wanted, scores = run.densifier.scores(run.state, by_color=True)
        assert wanted.tolist() == [True] * 3 and scores.tolist() == pytest.approx([1.0, 1.0, 1.25])
        wanted, scores = run.densifier.scores(run.state, by_color=False)
        assert wanted.tolist() == [True, True, False] and scores.tolist() == pytest.approx([1.0, 0.5, 0.25])

    def test_follows_the_curve_of_its_time(self, run_with):
        """Everybody wants to grow, always: after each refinement there are as many as the budget says."""
        run = run_with([1.0] * 100, max_splats=500)
        counts = []
        for step in range(600, 15_000, 100):
            for view in range(2):
                _look(run, step, view, [1.0] * run.model.count)
            run.refine(step)
            counts.append(run.model.count)
        assert counts == sorted(counts) and counts[-1] >= 495
        share = (counts[42] - 100) / 400  # step 4800, 30.4 percent
        assert share == pytest.approx((30.36**-1 - 1) / (100**-1 - 1), abs=0.01)

    def test_own_cap_without_a_limit(self, run_with):
        run = run_with([1.0] * 10, settings={"cap": 13}, max_splats=None)
        for step in (14_800, 14_900):
            _look(run, step, 1, [1.0] * run.model.count)
            _look(run, step, 2, [1.0] * run.model.count)
            run.refine(step)
        assert 12 <= run.model.count <= 13

    def test_a_stalling_loss_slows_growth(self, run_with):
        counts = []
        for slope in (-0.5, 0.0):
            run = run_with([1.0] * 1000)
            run.densifier = replace(run.densifier, fit_window=200)
            for step in range(1000, 2000):
                loss = step**-0.5 if step < 1500 else 1500**-0.5 * (step / 1500) ** slope
                _look(run, step, step % 7, [1.0] * 1000, loss=loss)
            counts.append(run.densifier.budget(run.state, 2000, 1000, run.context))
        assert counts[1] < counts[0] - 100

    def test_losses_of_the_first_steps_do_not_count(self, run_with):
        run = run_with([0.0])
        assert not run.state.scalars
        _look(run, 300, 0, [0.0], loss=5.0)
        assert not run.state.scalars
        _look(run, 301, 0, [0.0], loss=torch.tensor(5.0))
        assert run.state.scalars["history_n"] == 1.0
        assert all(type(value) is float for value in run.state.scalars.values())


class TestWhoLeaves:
    def test_faint_and_later_large_ones(self, run_with):
        run = run_with([0.0] * 3, sizes=[SMALL, SMALL, HUGE], opacities=[0.004, 0.5, 0.5])
        assert run.refine(3000) == ["prune"] and _names(run) == [1, 2]
        assert run.refine(3100) == ["prune"] and _names(run) == [1]

    def test_opacities_decay_and_moments_stay(self, run_with):
        run = run_with([0.0] * 2, opacities=[0.5, 0.006], settings={"opacity_decay": 0.004})
        assert run.refine(700) == ["decay"]
        assert run.model.opacities.tolist() == pytest.approx([0.496, 0.002], abs=1e-6)
        assert all((moment == 1).all() for name in run.model.rows for moment in run.adam.moments(name))
        assert run.refine(800) == ["prune", "decay"] and _names(run) == [0]

    @pytest.mark.parametrize("share", [0.0, 0.6])
    def test_least_sensitive_once_at_the_end(self, run_with, share):
        """The sum over all views counts; ties keep the lower row."""
        run = run_with([0.0] * 5, settings={"prune_sensitivity": share})
        run.context = replace(run.context, probe=_Sensitive([[9.0, 0, 5, 0, 2], [0.0, 8, 5, 0, 2]]))
        reasons = {step: run.refine(step) for step in (14_900, 15_000, 15_100)}
        assert reasons == {14_900: [], 15_000: ["prune"] if share else [], 15_100: []}
        assert _names(run) == ([0, 2] if share else list(range(5)))

    def test_without_a_look_at_the_views_nobody_is_judged(self, run_with):
        run = run_with([0.0] * 5, settings={"prune_sensitivity": 0.6})
        assert run.refine(15_000) == []


class _Sensitive:
    def __init__(self, tables):
        self.tables, self.count = tables, len(tables)

    def look_gradient(self, view, *, stats):
        assert stats == {"sensitivity"}
        blank = torch.zeros(1, 1)
        sensitivity = torch.tensor(self.tables[view])[None]
        return Look(SplatStats(sensitivity=sensitivity), blank, blank, blank, blank, 1, 1)


class TestPlan:
    def test_final_batches(self):
        plans = [TurboDensity().plan(step) for step in range(22_400, 30_001)]
        steps = [22_400 + i for i, plan in enumerate(plans) if plan.optimize]
        assert steps == [*range(22_400, 22_501), *range(22_504, 30_001, 4)]
        assert all(plan.views == 1 and plan.stride == 1 for plan in plans)

    def test_no_batches_while_rows_move(self):
        longer = TurboDensity(batch_from=100, refine_stop=900, prune_sensitivity=0.6)
        assert all(longer.plan(step).optimize for step in range(1, 901))
        assert not longer.plan(901).optimize
        assert all(TurboDensity(batch_views=1).plan(step).optimize for step in range(22_000, 23_000))

    def test_dilation_always_or_from_a_step_on(self):
        assert {TurboDensity(dilation=2).plan(step).stride for step in (1, 29_999)} == {2}
        later = TurboDensity(dilation=2, dilation_from=1000)
        assert (later.plan(1000).stride, later.plan(1001).stride) == (1, 2)

    def test_every_schedule_stretches(self):
        third = TurboDensity(dilation_from=600).rescaled(1 / 3)
        assert (third.refine_start, third.refine_stop, third.refine_every) == (167, 5000, 33)
        assert (third.fit_from, third.fit_window, third.prune_scale_from) == (100, 500, 1000)
        assert (third.dilation_from, third.batch_from) == (200, 7500)
        short = TurboDensity().rescaled(0.01)
        assert (short.refine_every, short.fit_window) == (20, 100)
        assert (third.opacity_decay, short.opacity_decay) == pytest.approx((0.00066, 0.0004))
        assert TurboDensity().rescaled(2.0).opacity_decay == 0.002
        assert TurboDensity(dilation_from=0).rescaled(0.1).dilation_from == 0

    def test_asks_for_statistics_while_it_grows(self, run_with):
        assert TurboDensity().needs(14_999) == {"visible", "grad2d", "color_grad"}
        assert TurboDensity().needs(15_000) == frozenset()
        run = run_with([0.0])
        run.densifier.observe(run.state, 15_000, SplatStats(), width=1, height=1)
        with pytest.raises(ValueError, match="color_grad"):
            run.densifier.observe(run.state, 1, SplatStats(visible=torch.ones(1, 1)), width=1, height=1)


def test_start_is_made_denser(oracle_ops):
    xyz = torch.arange(12.0)[:, None] * torch.tensor([1.0, 0.0, 0.0])
    more, colors = TurboDensity(neighbours=2).prepared(xyz, torch.ones(12, 3) / 2)
    assert {i / 2 for i in range(23)} <= set(more[:, 0].tolist())
    assert torch.equal(more[:12], xyz) and (colors == 0.5).all()
    same, _ = TurboDensity(neighbour_rounds=0).prepared(xyz, xyz)
    assert same is xyz


def test_resumes_to_the_same_bits(run_with):
    """What the state holds is all there is: growth goes on as if never interrupted."""
    whole, first = run_with([3e-4] * 50, max_splats=400), run_with([3e-4] * 50, max_splats=400)
    for run in (whole, first):
        for step in range(500, 1400):
            if run is first and step == 1000:
                state = type(run.state)(
                    {name: table.clone() for name, table in run.state.tables.items()}, dict(run.state.scalars)
                )
                run.state = state
            _look(run, step, step % 5, [3e-4] * run.model.count, loss=step**-0.3)
            run.refine(step)
    assert whole.state.scalars == first.state.scalars
    assert all(torch.equal(table, first.model.rows[name]) for name, table in whole.model.rows.items())
