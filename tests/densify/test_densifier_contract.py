"""What every densifier promises, on every primitive it accepts."""

from dataclasses import fields, is_dataclass

import pytest
import torch

from splat.densify.registry import DENSIFIERS
from splat.geometry.rng import keyed_generator
from splat.model.primitives import PRIMITIVES

PAIRS = [
    pytest.param(densifier, primitive, id=f"{densifier}-{primitive}")
    for densifier in DENSIFIERS
    for primitive in PRIMITIVES
    if DENSIFIERS[densifier]().blocked(PRIMITIVES[primitive]()) is None
]
WITHOUT_CHANCE = {("convex", "convex")}
"""One child per vertex: nothing is drawn."""
STEPS = range(580, 1210, 20)
EARLIER = {"turbo": {"refine_stop": 1300}}
"""Settings with which the whole budget is spent within the steps tried."""


def _quick(kind):
    """Its schedule at a tenth of the length, so that a short run sees starts, stops and resets."""
    return DENSIFIERS[kind]().rescaled(0.1)


@pytest.mark.parametrize(("densifier", "primitive"), PAIRS)
class TestEveryPair:
    def test_rows_stay_aligned_and_below_the_cap(self, new_run, densifier, primitive):
        settings = EARLIER.get(densifier, {})
        run = new_run(DENSIFIERS[densifier](**settings), PRIMITIVES[primitive](), 300, max_splats=420)
        largest = 0
        for step in (*STEPS, *range(1300, 15_000, 1100)):  # some grow slowly
            run.observe(step)
            run.refine(step)
            largest = max(largest, run.model.count)
            assert run.model.count <= 420
        if densifier != "none":
            assert largest > 400, "the cap was never neared, so it was not tested"

    def test_never_above_the_cap_even_between_edits(self, new_run, densifier, primitive):
        run = new_run(DENSIFIERS[densifier](), PRIMITIVES[primitive](), 300, max_splats=310)
        run.steps(STEPS)
        assert all(edit.count_after <= 310 for edit in run.edits)

    def test_start_above_the_cap_comes_down(self, new_run, densifier, primitive):
        run = new_run(DENSIFIERS[densifier](), PRIMITIVES[primitive](), 300, max_splats=200)
        run.steps(range(590, 711, 10))
        if densifier != "none":
            assert run.model.count <= 200

    def test_same_seed_same_rows(self, new_run, densifier, primitive):
        first, second, other = (
            new_run(DENSIFIERS[densifier](), PRIMITIVES[primitive](), 200, max_splats=900) for _ in range(3)
        )
        other.context = type(other.context)(extent_world=1.0, max_splats=900, seed=1)
        for run in (first, second, other):
            torch.rand(3)  # the ambient generator must not matter
            run.steps(STEPS)
        assert all(torch.equal(first.model.rows[name], second.model.rows[name]) for name in first.model.rows)
        if densifier != "none" and (densifier, primitive) not in WITHOUT_CHANCE:
            same_shape = first.model.count == other.model.count
            assert not same_shape or not torch.equal(first.model.rows["means"], other.model.rows["means"])

    @pytest.mark.parametrize("count", [0, 1, 2])
    def test_few_rows(self, new_run, densifier, primitive, count):
        run = new_run(DENSIFIERS[densifier](), PRIMITIVES[primitive](), count, max_splats=5)
        run.steps(range(500, 3101, 100))
        assert run.model.count <= 5
        generator = keyed_generator(0, "noise", 1)
        noise = run.densifier.perturb(run.state, 1, run.model, lr_means=1e-4, generator=generator)
        assert noise is None or noise.shape == run.model.rows["means"].shape
        assert run.densifier.regularizer(run.model) is None or run.model.count > 0

    def test_nothing_happens_off_the_schedule(self, new_run, densifier, primitive):
        quick = _quick(densifier)
        run = new_run(quick, PRIMITIVES[primitive](), 50, max_splats=200)
        happened = run.steps(range(1, 3001))
        if densifier == "none":
            assert happened == {}
            return
        assert happened
        for step, reasons in happened.items():
            due = quick.refine_start < step < quick.refine_stop and step % quick.refine_every == 0
            assert due or (reasons == ["reset"] and step % quick.reset_every == 0)

    def test_refine_that_is_not_read_changes_nothing(self, new_run, densifier, primitive):
        run = new_run(DENSIFIERS[densifier](), PRIMITIVES[primitive](), 50)
        run.observe(590)
        tables = {name: table.clone() for name, table in run.state.tables.items()}
        run.densifier.refine(run.state, 600, run.model, run.context)
        assert all(torch.equal(run.state.tables[name], tables[name]) for name in tables)

    def test_state_fits_a_checkpoint(self, new_run, densifier, primitive):
        run = new_run(DENSIFIERS[densifier](), PRIMITIVES[primitive](), 20)
        assert all(isinstance(table, torch.Tensor) and len(table) == 20 for table in run.state.tables.values())
        assert all(isinstance(value, float) for value in run.state.scalars.values())

    def test_observe_leaves_statistics_alone(self, new_run, densifier, primitive):
        run = new_run(DENSIFIERS[densifier](), PRIMITIVES[primitive](), 20)
        stats = run.stats(5)
        before = {name: value.clone() for name, value in vars(stats).items() if value is not None}
        run.observe(5, stats)
        assert all(torch.equal(getattr(stats, name), value) for name, value in before.items())

    def test_start_settings_exist(self, new_run, densifier, primitive):
        names = {spec.name for spec in fields(PRIMITIVES[primitive])}
        tuned = set(DENSIFIERS[densifier].start_settings)
        assert tuned <= names or primitive == "convex", "relatives of the Gaussian start as it does"


def test_more_children_than_a_convex_has_vertices():
    convex = PRIMITIVES["convex"](points=4)
    assert DENSIFIERS["adaptive"](children=4).blocked(convex) is None
    assert "'convex' splats make 4 at most" in DENSIFIERS["adaptive"](children=5).blocked(convex)
    assert DENSIFIERS["adaptive"](children=50).blocked(PRIMITIVES["ges"]()) is None


@pytest.mark.parametrize("kind", DENSIFIERS)
def test_table_and_settings(kind):
    cls = DENSIFIERS[kind]
    assert cls.kind == kind and is_dataclass(cls) and cls.__dataclass_params__.frozen
    assert cls() == cls()
    assert cls().rescaled(1.0) == cls()
    assert cls().plan(1).views == 1


def test_blocked_names_both_parts_and_the_reason():
    class Blob:
        kind = "blob"
        can = frozenset({"opacities"})

    assert DENSIFIERS["none"]().blocked(Blob()) is None
    for kind in ("adaptive", "mcmc", "convex"):
        sentence = DENSIFIERS[kind]().blocked(Blob())
        assert kind in sentence and "blob" in sentence and "scales" in sentence and "\n" not in sentence
