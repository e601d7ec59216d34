import pytest
import torch

from splat.densify.adaptive import AdaptiveDensity
from splat.model.gaussian import GaussianPrimitive
from splat.render.types import SplatStats

SMALL, LARGE, HUGE = 0.005, 0.05, 0.2  # sizes in extents: below 0.01, above it, above 0.1


@pytest.fixture
def run_with(new_run):
    """A run whose rows have given opacities and sizes; ``gradients`` are observed once, seen everywhere."""

    def make(gradients, *, sizes, opacities=None, settings=None, extent_world=2.0, **context):
        densifier = AdaptiveDensity(**(settings or {}))
        count = len(gradients)
        run = new_run(densifier, GaussianPrimitive(), count, extent_world=extent_world, **context)
        sizes = torch.tensor(sizes) * extent_world
        run.model.rows |= run.model.primitive.with_scales(sizes[:, None].repeat(1, 3))
        run.model.rows |= run.model.primitive.with_opacities(torch.tensor(opacities or [0.5] * count))
        run.observe(1, _seen(densifier, gradients))
        return run

    return make


def _seen(densifier, gradients):
    norms = torch.tensor([gradients])
    name = "grad2d" if densifier.gradient == "mean" else "abs_grad2d"
    return SplatStats(visible=torch.ones_like(norms, dtype=torch.bool), **{name: norms})


def _origins(run):
    return [int(name) for name in run.names]


def test_small_are_cloned_and_large_split(run_with):
    run = run_with([3e-4, 3e-4, 1e-4, 2e-4], sizes=[SMALL, LARGE, LARGE, SMALL])
    assert run.refine(600) == ["clone", "split"]
    assert _origins(run) == [0, 2, 3, 0, 3, 1, 1]
    assert [edit.added for edit in run.edits] == [2, 1]
    assert torch.equal(run.model.rows["means"][0], run.model.rows["means"][3]), "a clone lies where its parent does"
    assert not torch.equal(run.model.rows["means"][5], run.model.rows["means"][6])
    assert run.model.scales[5:].flatten().tolist() == pytest.approx([LARGE * 2.0 / 1.6] * 6)
    assert torch.allclose(run.model.opacities, torch.tensor(0.5))


def test_clones_are_not_split_in_the_same_round(run_with):
    """Sizes at the border: a clone of a small splat has padded gradients, whatever its parent had."""
    run = run_with([1.0, 1.0], sizes=[SMALL, SMALL])
    assert run.refine(600) == ["clone"]
    assert run.model.count == 4


def test_gradient_is_the_mean_over_views_that_saw_the_splat(run_with):
    run = run_with([2.5e-4, 2.5e-4], sizes=[SMALL, SMALL])
    blind = SplatStats(visible=torch.tensor([[True, False]]), grad2d=torch.tensor([[1e-4, 99.0]]))
    run.observe(2, blind)
    assert run.state.tables["views"].tolist() == [2, 1]
    assert run.refine(600) == ["clone"]
    assert _origins(run) == [0, 1, 1], "row 0 averages to 1.75e-4, row 1 was seen once with 2.5e-4"


def test_batch_of_views_equals_single_views(run_with):
    """A mean-of-batch loss halves each view's gradient: the statistics must not notice, to the last bit."""
    singles, batch = (run_with([0.0, 0.0], sizes=[SMALL, SMALL]) for _ in range(2))
    visible = torch.tensor([[True, True], [False, True]])
    norms = torch.tensor([[3e-4, 1e-4], [7e-4, 2.3e-4]])
    for view in range(2):
        singles.observe(5, SplatStats(visible=visible[view : view + 1], grad2d=norms[view : view + 1]))
    batch.observe(5, SplatStats(visible=visible, grad2d=norms / 2))
    for name in ("grad_sum", "views"):
        assert torch.equal(singles.state.tables[name], batch.state.tables[name])


def test_statistics_restart_after_each_round(run_with):
    run = run_with([3e-4], sizes=[SMALL])
    run.refine(600)
    assert all((table == 0).all() for table in run.state.tables.values())
    assert run.refine(700) == []


def test_faint_and_broken_splats_are_pruned(run_with):
    run = run_with([0.0] * 4, sizes=[SMALL] * 4, opacities=[0.5, 0.004, 0.006, 0.5])
    run.model.rows["means"][3, 1] = torch.nan
    edits = run.densifier.refine(run.state, 600, run.model, run.context)
    (edit,) = edits
    assert edit.reason == "prune" and edit.source.tolist() == [0, 2]


def test_world_size_prune_waits_for_the_first_reset(run_with):
    settings = {"grow_grad": 1.0}
    run = run_with([0.0, 0.0], sizes=[HUGE, LARGE], settings=settings)
    assert run.refine(2900) == []
    assert run.refine(3000) == ["reset"]
    run.model.rows |= run.model.primitive.with_opacities(torch.full((2,), 0.5))
    assert run.refine(3100) == ["prune"]
    assert _origins(run) == [1]


def test_order_of_a_full_round(run_with):
    run = run_with([3e-4, 3e-4, 0.0], sizes=[SMALL, LARGE, SMALL], opacities=[0.5, 0.5, 0.001])
    assert run.refine(3000) == ["clone", "split", "prune", "reset"]
    assert (run.model.opacities <= 0.01 + 1e-6).all()


def test_resets_of_a_whole_run(run_with):
    run = run_with([0.0], sizes=[SMALL])
    resets = [step for step in range(1, 30_001) if run.refine(step) == ["reset"]]
    assert resets == [3000, 6000, 9000, 12_000]


def test_white_background_resets_at_the_start(run_with):
    white = run_with([0.0], sizes=[SMALL], background_is_white=True)
    black = run_with([0.0], sizes=[SMALL])
    assert (white.refine(500), black.refine(500)) == (["reset"], [])


def test_pause_after_reset(run_with):
    run = run_with([1.0], sizes=[SMALL], settings={"pause_after_reset": 250})
    assert run.refine(3000) == ["clone", "reset"]
    grown = {}
    for step in range(3001, 3501):
        run.observe(step, _seen(run.densifier, [1.0] * run.model.count))
        if reasons := run.refine(step):
            grown[step] = reasons
    assert list(grown) == [3300, 3400, 3500]


def test_no_pause_before_the_first_reset(run_with):
    assert run_with([1.0], sizes=[SMALL], settings={"pause_after_reset": 1000}).refine(600) == ["clone"]


@pytest.mark.parametrize(
    ("room", "cloned", "split"), [(0, [], []), (1, [], [3]), (2, [1], [3]), (3, [1, 0], [3]), (4, [0, 1], [3, 2])]
)
def test_cap_takes_the_steepest_first(run_with, room, cloned, split):
    gradients = [3e-4, 7e-4, 2.5e-4, 9e-4]
    run = run_with(gradients, sizes=[SMALL, SMALL, LARGE, LARGE], max_splats=4 + room)
    run.refine(600)
    assert run.model.count == 4 + room
    added = sorted(_origins(run))
    for row in (0, 1):
        assert added.count(row) == (2 if row in cloned else 1)
    for row in (2, 3):
        assert added.count(row) == (2 if row in split else 1)


def test_absolute_gradients_have_their_own_name_and_threshold(run_with):
    run = run_with([5e-4, 7e-4], sizes=[SMALL, SMALL], settings={"gradient": "abs"})
    assert run.densifier.needs(1) == {"visible", "abs_grad2d"}
    run.refine(600)
    assert _origins(run) == [0, 1, 1]
    assert AdaptiveDensity().needs(1) == {"visible", "grad2d"}
    assert AdaptiveDensity().needs(15_000) == frozenset()
    assert AdaptiveDensity(grow_grad=0.5).threshold() == 0.5


@pytest.mark.parametrize(
    ("mode", "clone", "split"), [("off", 0.5, 0.5), ("split", 0.5, 0.29289), ("split-and-clone", 0.29289, 0.29289)]
)
def test_revised_opacity(run_with, mode, clone, split):
    run = run_with([1.0, 1.0], sizes=[SMALL, LARGE], settings={"revised_opacity": mode})
    run.refine(600)
    assert _origins(run) == [0, 0, 1, 1]
    assert run.model.opacities.tolist() == pytest.approx([clone, clone, split, split], abs=1e-5)


def test_statistics_not_delivered_are_an_error(run_with):
    run = run_with([0.0], sizes=[SMALL])
    with pytest.raises(ValueError, match="grad2d"):
        run.observe(2, SplatStats(visible=torch.ones(1, 1, dtype=torch.bool)))


def test_short_runs_keep_time_between_refines_and_resets():
    short = AdaptiveDensity().rescaled(0.1)
    assert (short.refine_start, short.refine_stop, short.refine_every, short.reset_every) == (50, 1500, 25, 500)
    long = AdaptiveDensity().rescaled(2.0)
    assert (long.refine_start, long.refine_stop, long.refine_every, long.reset_every) == (1000, 30_000, 200, 6000)
    assert AdaptiveDensity(reset_every=0).rescaled(0.5).reset_every == 0
