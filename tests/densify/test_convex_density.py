import pytest
import torch

from splat.densify.convex import SPLIT_GRAD, ConvexDensity
from splat.model.convex import ConvexPrimitive
from splat.model.gaussian import GaussianPrimitive
from splat.render.types import SplatStats

SIGMA = 1e-3


@pytest.fixture
def run_with(new_run):
    """A run whose splats have sharpness ``SIGMA``, good opacities and small sizes."""

    def make(count, *, settings=None, primitive=None, **context):
        run = new_run(
            ConvexDensity(**(settings or {})), primitive or ConvexPrimitive(), count,
            **{"extent_world": 5.0, **context},
        )  # fmt: skip
        rows = run.model.rows
        rows["log_sigmas"] = torch.full((count,), SIGMA).log()
        rows |= run.model.primitive.with_opacities(torch.full((count,), 0.5))
        return run

    return make


def _seen(gradients, visible=True):
    """Statistics with dL/dsigma ``gradients`` of one view."""
    gradients = torch.tensor(gradients)[None]
    visible = torch.full(gradients.shape, visible) if isinstance(visible, bool) else torch.tensor(visible)[None]
    return SplatStats(visible=visible, shape_grad=gradients * SIGMA)


def test_splits_what_wants_to_be_softer(run_with):
    """The signed mean counts, of the activated sharpness: gradients that cancel, or want it harder, do nothing."""
    run = run_with(4)
    run.observe(590, _seen([3e-5, -9e-5, 9e-5, 2e-5]))
    run.observe(591, _seen([3e-5, -9e-5, -9e-5, 2e-5]))
    assert run.refine(600) == ["split"]
    assert run.names.tolist() == [1, 2, 3, *[0] * 6]
    assert run.model.opacities.tolist() == pytest.approx([0.5] * 3 + [0.25] * 6, rel=1e-4)
    assert not run.state.tables["grad_sum"].any(), "statistics start again"


def test_views_that_do_not_see_a_splat_do_not_count(run_with):
    run = run_with(2)
    run.observe(590, _seen([3e-5, 3e-5], [True, True]))
    run.observe(591, _seen([-1.0, 2e-5], [False, True]))
    run.observe(592, _seen([-1.0, 1e-5], [False, True]))
    run.refine(600)
    assert (run.names == 0).sum() == 6 and (run.names == 1).sum() == 1


def test_a_batch_counts_as_its_views(run_with):
    """Of two views of one step each has half the weight in the loss."""
    run = run_with(1)
    stats = _seen([1.5e-5])
    batch = SplatStats(visible=stats.visible.repeat(2, 1), shape_grad=stats.shape_grad.repeat(2, 1))
    run.observe(590, batch)
    assert run.refine(600) == ["split"]


def test_threshold_follows_the_unit_of_the_world(run_with):
    """Twice the world: half the sharpness, twice its gradient, the same splits."""
    for extent, gradient, splits in ((5.0, 2.6e-5, True), (10.0, 2.6e-5, False), (10.0, 5.2e-5, True)):
        run = run_with(1, extent_world=extent)
        run.observe(590, _seen([gradient]))
        assert (run.refine(600) == ["split"]) == splits


@pytest.mark.parametrize(("capture", "splits"), [("light", False), ("indoor", True), ("outdoor", True)])
def test_published_thresholds(run_with, capture, splits):
    run = run_with(1, settings={"capture": capture})
    run.observe(590, _seen([8e-6]))
    assert (run.refine(600) == ["split"]) == splits
    assert ConvexDensity(capture=capture).threshold() == SPLIT_GRAD[capture]
    assert ConvexDensity(capture=capture, split_grad=0.5).threshold() == 0.5


def test_steepest_first_under_a_cap(run_with):
    run = run_with(4, max_splats=14)
    run.observe(590, _seen([4e-5, 6e-5, 5e-5, 3e-5]))
    run.refine(600)
    assert sorted(run.names.tolist()) == [0, *[1] * 6, *[2] * 6, 3]


def test_growth_is_limited(run_with):
    run = run_with(100)
    run.observe(590, _seen([1.0] * 100))
    run.refine(600)
    assert 290 <= run.model.count <= 306


def test_prunes_the_faint_the_masked_and_later_the_large(run_with):
    run = run_with(4)
    run.model.rows |= run.model.primitive.with_opacities(torch.tensor([0.029, 0.5, 0.5, 0.5]))
    run.model.rows["masks"][1] = -6.0
    run.model.rows["vertices"][2] *= 1.6 / run.model.scales[2].max()
    run.observe(590, _seen([0.0] * 4))
    assert run.refine(600) == ["prune"] and run.names.tolist() == [2, 3]
    assert run.refine(3000) == ["reset"]
    assert run.refine(3200) == ["prune"] and run.names.tolist() == [3]


def test_schedule_is_the_published_one(run_with):
    run = run_with(2, settings={"prune_scale": 1e9})
    refined, pruned, resets = [], [], []
    faint = run.model.primitive.with_opacities(torch.tensor([0.5, 0.01]))
    for step in range(1, 30_001):
        run.model.rows |= {name: value.clone() for name, value in faint.items()}
        reasons = [edit.reason for edit in run.densifier.refine(run.state, step, run.model, run.context)]
        (refined if step < 9000 else pruned).extend([step] * reasons.count("prune"))
        resets += [step] * reasons.count("reset")
    assert refined == list(range(600, 9000, 200))
    assert pruned == list(range(9000, 30_001, 1000))
    assert resets == [3000, 6000]


def test_reset_lowers_opacities_to_a_fifth(run_with):
    run = run_with(3)
    run.model.rows |= run.model.primitive.with_opacities(torch.tensor([0.9, 0.2, 0.1]))
    run.refine(3000)
    assert run.model.opacities.tolist() == pytest.approx([0.2, 0.2, 0.1], abs=1e-5)


def test_asks_for_its_statistics_while_it_refines():
    assert ConvexDensity().needs(8999) == {"visible", "shape_grad"} and ConvexDensity().needs(9000) == frozenset()
    shorter = ConvexDensity().rescaled(0.1)
    assert (shorter.refine_start, shorter.refine_stop, shorter.refine_every, shorter.reset_every) == (50, 900, 50, 500)


def test_says_when_statistics_are_missing(run_with):
    run = run_with(1)
    with pytest.raises(ValueError, match="shape_grad"):
        run.observe(590, SplatStats(visible=torch.ones(1, 1, dtype=torch.bool)))


def test_gaussians_have_no_border_to_soften():
    assert "sharpness" in ConvexDensity().blocked(GaussianPrimitive())
    assert ConvexDensity().blocked(ConvexPrimitive()) is None
