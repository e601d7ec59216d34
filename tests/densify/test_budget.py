import pytest
import torch

from splat.densify.budget import BudgetDensity
from splat.densify.protocol import Look
from splat.geometry.rng import keyed_generator
from splat.model.gaussian import GaussianPrimitive
from splat.render.types import SplatStats

FROM_THE_START = {"refine_start": 0, "refine_stop": 1001, "texture_floor": -1.0, "prune_opacity": 0.0}


@pytest.fixture
def run_with(new_run):
    def make(count=20, *, settings=None, **context):
        run = new_run(BudgetDensity(**(FROM_THE_START | (settings or {}))), GaussianPrimitive(), count, **context)
        run.model.rows |= run.model.primitive.with_opacities(torch.full((count,), 0.5))
        run.model.rows |= run.model.primitive.with_scales(torch.full((count, 3), 0.1))
        return run

    return make


def _stats(gradients, *, name="abs_grad2d_l2", visible=None, blend=None, texture=None):
    gradients = torch.tensor(gradients)
    stats = SplatStats(visible=torch.ones_like(gradients, dtype=torch.bool) if visible is None else visible)
    stats.blend_sum = torch.ones_like(gradients) if blend is None else torch.tensor(blend)
    setattr(stats, name, gradients)
    if texture is not None:
        stats.weighted_blend = torch.tensor(texture)[:, None]
    return stats


# -- scores


@pytest.mark.parametrize(("gradient", "name", "expected"), [
    ("peak", "abs_grad2d_l2", [2, 4, 1, 0]), ("mean", "abs_grad2d", [1.5, 3, 1, 0]),
])  # fmt: skip
def test_scores_over_views(run_with, gradient, name, expected):
    run = run_with(4, settings={"gradient": gradient})
    run.observe(1, _stats([[1.0, 2, 1, 9]], name=name, visible=torch.tensor([[True, True, True, False]])))
    run.observe(2, _stats([[2.0, 4, 9, 9]], name=name, visible=torch.tensor([[True, True, False, False]])))
    gradients, scores = run.densifier._scores(run.state, None)
    assert gradients.tolist() == scores.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("settings", [{}, {"gradient": "mean"}, {"texture_floor": 0.2}])
def test_views_of_one_batch_count_as_steps_of_their_own(run_with, settings):
    """The loss of a batch of C is the mean: each view's gradient arrives divided by C."""
    together, apart = run_with(30, settings=settings), run_with(30, settings=settings)
    name = "abs_grad2d" if settings.get("gradient") == "mean" else "abs_grad2d_l2"
    gradients, blends, shares = torch.rand(3, 4, 30, generator=keyed_generator(0, "budget", 0))
    textures = blends * shares
    together.observe(1, _stats((gradients / 4).tolist(), name=name, blend=blends.tolist(), texture=textures.tolist()))
    for view in range(4):
        one = slice(view, view + 1)
        apart.observe(1 + view, _stats(
            gradients[one].tolist(), name=name, blend=blends[one].tolist(), texture=textures[one].tolist()
        ))  # fmt: skip
    for key, table in together.state.tables.items():
        assert torch.equal(table, apart.state.tables[key]), key


def test_texture_under_the_splat_weighs_its_score(run_with):
    run = run_with(3, settings={"texture_floor": 0.25})
    run.observe(1, _stats([[4.0, 4, 4]], blend=[[2.0, 2, 0]], texture=[[2.0, 1, 0]]))
    assert run.densifier._scores(run.state, None)[1].tolist() == pytest.approx([5, 3, 1])
    assert run.densifier.plan(1).maps and "weighted_blend" in run.densifier.needs(1)
    assert run.densifier.maps(torch.zeros(4, 5, 3, dtype=torch.uint8)).shape == (1, 4, 5)


def test_without_texture_no_maps_are_asked_for():
    plain = BudgetDensity(texture_floor=-1.0)
    assert not plain.plan(1).maps and plain.maps(torch.zeros(4, 5, 3)) is None
    assert plain.needs(1) == {"visible", "blend_sum", "abs_grad2d_l2"}
    assert BudgetDensity(texture_floor=-1.0, gradient="mean").needs(1) == {"visible", "blend_sum", "abs_grad2d"}


def test_statistics_that_did_not_come_are_an_error(run_with):
    run = run_with(3, settings={"texture_floor": 0.2})
    with pytest.raises(ValueError, match="weighted_blend"):
        run.observe(1, _stats([[1.0, 1, 1]]))


# -- growth


def test_number_follows_the_curve_to_the_cap(run_with):
    run = run_with(100, max_splats=300)
    counts = []
    for step in range(100, 1001, 100):
        run.observe(step, _stats([[1.0] * run.model.count]))
        run.refine(step)
        counts.append(run.model.count)
    assert counts == [100 + int(200 * (share / 10) ** 0.5 + 1e-9) for share in range(1, 11)]
    assert run.refine(1100) == []


def test_pruned_splats_are_spent_again(run_with):
    run = run_with(10, settings={"prune_opacity": 0.01}, max_splats=10)
    run.model.rows |= run.model.primitive.with_opacities(torch.tensor([0.001] * 4 + [0.5] * 6))
    run.observe(1, _stats([[1.0] * 10]))
    assert run.refine(100) == ["prune", "split"]
    assert run.model.count == 10 and (run.names >= 4).all()


def test_highest_scores_grow_at_temperature_zero(run_with):
    run = run_with(6, settings={"temperature": 0.0, "curve": "linear"}, max_splats=26)
    run.observe(1, _stats([[0.1, 5, 0.2, 7, 0.3, 0.0]]))
    run.refine(100)
    assert sorted(run.names.tolist()) == [0, 1, 1, 2, 3, 3, 4, 5]


def test_draws_prefer_high_scores(run_with):
    run = run_with(400, settings={"curve": "linear"}, max_splats=1400)
    run.observe(1, _stats([[0.1] * 200 + [1.0] * 200]))
    run.refine(100)
    grown = torch.bincount(run.names.long(), minlength=400) == 2
    assert grown.sum() == 100 and grown[:200].sum() < 25 and grown[:200].any()


def test_a_splat_becomes_two_halves(run_with):
    run = run_with(2, settings={"temperature": 0.0}, max_splats=3)
    run.model.rows |= run.model.primitive.with_scales(torch.tensor([[0.1, 0.1, 0.1], [0.1, 0.4, 0.2]]))
    run.observe(1, _stats([[1.0, 2.0]]))
    assert run.refine(1000) == ["split"]
    assert run.names.tolist() == [0, 1, 1]
    assert run.model.opacities[1:].tolist() == pytest.approx([0.38745] * 2, abs=1e-5)
    assert run.model.scales[1, 1].item() == pytest.approx(0.4 * 0.5**0.5, rel=1e-5)


def test_threshold_rises_and_leaves_the_budget_unspent(run_with):
    settings = {"grow_grad": 1.0, "grow_grad_start": 0.3, "curve": "linear", "temperature": 0.0}
    run = run_with(4, settings=settings, max_splats=1000)
    run.observe(1, _stats([[0.2, 0.4, 0.9, 2.0]]))
    run.refine(100)  # 0.3 + 0.7 / 10
    assert run.model.count == 7
    run.observe(901, _stats([[0.2] * 3 + [0.9] * 3 + [2.0]]))
    run.refine(1000)
    assert run.model.count == 8


def test_needles_do_not_grow(run_with):
    run = run_with(2, settings={"elongation": 0.1}, max_splats=9)
    run.model.rows |= run.model.primitive.with_scales(torch.tensor([[1.0, 0.05, 0.01], [1.0, 0.5, 0.01]]))
    run.observe(1, _stats([[9.0, 1.0]]))
    run.refine(1000)
    assert run.names.tolist() == [0, 1, 1]


class _Looks:
    """A probe of three views: row 0 lies on wrong pixels in all, row 1 in one, row 2 on too few, row 3 in two."""

    count = 3
    counts = torch.tensor([[9.0, 9, 2, 3], [9.0, 0, 2, 3], [9.0, 0, 2, 0]])

    def __init__(self):
        self.asked = []

    def look(self, view, *, stats, maps=None, background=None):
        self.asked.append(view)
        assert maps(torch.zeros(4, 5, 3), torch.ones(4, 5, 3)).shape == (1, 4, 5)
        return Look(SplatStats(weighted_count=self.counts[None, view : view + 1]), *[torch.zeros(0)] * 4, 5, 4)

    def look_gradient(self, view, *, stats, loss="sum"):
        self.asked.append(view)
        if loss == "ssim":
            gradients = torch.tensor([[0.0, 1, 0, 2], [0.0, 4, 0, 1], [3.0, 0, 0, 1]])
            return Look(SplatStats(abs_grad2d_l2=gradients[view : view + 1]), *[torch.zeros(0)] * 4, 5, 4)
        weights = torch.tensor([[4.0, 3, 1, 2], [1.0, 0, 1, 0.5], [0.0, 1, 0, 0]])
        return Look(SplatStats(sensitivity=weights[view : view + 1]), *[torch.zeros(0)] * 4, 5, 4)


def test_only_what_is_wrong_in_two_views_grows(run_with):
    probe = _Looks()
    run = run_with(4, settings={"probe_views": 8}, max_splats=40, probe=probe)
    run.observe(1, _stats([[1.0] * 4]))
    run.refine(1000)
    assert sorted(run.names.tolist()) == [0, 0, 1, 2, 3, 3] and probe.asked == [0, 1, 2]


def test_the_gradient_of_ssim_alone_is_looked_up_when_splats_grow(run_with):
    """The largest of the looks counts (3, 4, 0, 2), not what the steps observed; without a probe the steps do."""
    settings = {"gradient": "ssim", "temperature": 0.0}
    for probe, grown in ((_Looks(), [0, 1, 1, 2, 3]), (None, [0, 1, 2, 2, 3])):
        run = run_with(4, settings=settings, max_splats=5, probe=probe)
        run.observe(1, _stats([[1.0, 1, 9, 1]]))
        run.refine(1000)
        assert sorted(run.names.tolist()) == grown
    few = _Looks()
    run = run_with(4, settings=settings | {"ssim_views": 2}, max_splats=5, probe=few)
    run.refine(1000)
    assert len(few.asked) == 2


def test_size_and_opacity_are_penalised_as_in_mcmc(run_with):
    run = run_with(4, settings={"opacity_reg": 2.0, "scale_reg": 3.0})
    assert float(run.densifier.regularizer(run.model)) == pytest.approx(2 * 0.5 + 3 * 0.1)
    assert BudgetDensity(opacity_reg=0.0, scale_reg=0.0).regularizer(run.model) is None


def test_without_a_probe_there_is_no_gate(run_with):
    run = run_with(4, settings={"probe_views": 8}, max_splats=8)
    run.observe(1, _stats([[1.0] * 4]))
    run.refine(1000)
    assert run.model.count == 8


# -- removal


def test_what_never_drew_a_pixel_goes(run_with):
    """Seen without weight: gone. Not seen: stays."""
    run = run_with(3, max_splats=3)
    visible = torch.tensor([[True, True, False]])
    run.observe(1, _stats([[0.0, 0, 0]], visible=visible, blend=[[1.0, 0, 0]]))
    assert run.refine(100) == ["prune"]
    assert run.names.tolist() == [0, 2]


def test_trim_takes_the_least_in_its_best_view(run_with):
    run = run_with(5, settings={"trim": 0.4}, max_splats=5)
    run.observe(1, _stats([[0.0] * 5], blend=[[5.0, 0.2, 0.1, 0.7, 0.6]]))
    run.observe(2, _stats([[0.0] * 5], blend=[[0.1, 0.2, 3, 0.1, 0.6]]))
    run.refine(100)
    assert run.names.tolist() == [0, 2, 3]


def test_the_insensitive_go_at_the_last_refinement(run_with):
    probe = _Looks()
    run = run_with(4, settings={"sensitivity_prune": 0.5}, max_splats=4, probe=probe)
    assert run.refine(900) == [] and probe.asked == []
    assert run.refine(1000) == ["prune"]
    assert run.names.tolist() == [0, 1] and probe.asked == [0, 1, 2]
    alone = run_with(4, settings={"sensitivity_prune": 0.5}, max_splats=4)
    assert alone.refine(1000) == []


def test_decay_lowers_opacities_and_keeps_moments(run_with):
    run = run_with(3, settings={"decay": 0.004, "decay_factor": 0.5}, max_splats=3)
    assert run.refine(100) == ["decay"]
    assert run.model.opacities.tolist() == pytest.approx([0.246] * 3, abs=1e-6)
    assert run.edits[0].fresh is None


def test_decayed_but_needed_splats_survive_an_epoch(run_with):
    """Support must not collapse: a decay of Brush's size takes 100 refinements to remove what nothing holds up."""
    run = run_with(50, settings={"decay": 0.004, "prune_opacity": 0.005}, max_splats=50)
    for step in range(100, 1001, 100):
        run.refine(step)
    assert run.model.count == 50


# -- schedule


def test_batching_begins_after_growth():
    densifier = BudgetDensity(batch=5, batch_late=20)
    assert all(densifier.plan(step).optimize for step in range(1, 15_000))
    assert sum(densifier.plan(step).optimize for step in range(15_000, 22_500)) == 1500
    assert sum(densifier.plan(step).optimize for step in range(22_501, 30_001)) == 375
    assert all(BudgetDensity().plan(step).optimize for step in (1, 15_001, 29_999))


def test_shortened_schedule():
    short = BudgetDensity().rescaled(0.1)
    assert (short.refine_start, short.refine_stop, short.refine_every) == (50, 1500, 25)
    assert short.batch_late_start == 2250
    assert short.progress(50) == 0 and short.progress(1475) == 1
    assert BudgetDensity().progress(14_900) == 1
    assert BudgetDensity(growth_end=0.5).progress(7700) == 1
    assert BudgetDensity(refine_start=100, refine_stop=101).progress(100) == 1


def test_nothing_is_watched_after_growth(run_with):
    run = run_with(3)
    assert run.densifier.needs(1001) == frozenset() and not run.densifier.plan(1001).maps
    run.densifier.observe(run.state, 1001, SplatStats(), width=4, height=4)
