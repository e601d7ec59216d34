import pytest
import torch

from splat.densify.protocol import RefineContext
from splat.geometry.rng import keyed_generator
from splat.model.splat_model import SplatModel
from splat.optim.adam import SplatAdam
from splat.render.types import SplatStats


class Run:
    """What the trainer does around a densifier, without pictures: made-up statistics, every edit applied to the
    model, the optimizer, the state and a table of row names; alignment checked after each."""

    def __init__(self, densifier, primitive, count, *, sh_degree=1, seed=0, **context):
        self.densifier, self.seed = densifier, seed
        self.context = RefineContext(**{"extent_world": 1.0, "seed": seed, **context})
        generator = keyed_generator(seed, "test.start", count)
        points = torch.rand(count, 3, generator=generator)
        colors = torch.rand(count, 3, generator=generator)
        rows = primitive.start(points, colors, sh_degree=sh_degree, generator=generator)
        # A spread of opacities (some dead) and of sizes around 0.01 extents.
        rows |= primitive.with_opacities(torch.rand(count, generator=generator) ** 3)
        sizes = 0.03 * torch.rand(count, generator=generator) ** 2 + 1e-4
        rows |= primitive.resized(rows, torch.arange(count), sizes / primitive.scales(rows).amax(dim=1))
        self.model = SplatModel(primitive, rows, sh_degree)
        self.names = torch.arange(count, dtype=torch.float32)
        self.name_field = next(name for name in ("sh0",) if name in rows)
        rows[self.name_field][:, 0] = self.names
        self.adam = SplatAdam(primitive.fields(sh_degree))
        self.adam.start(self.model)
        for name in rows:
            for moment in self.adam.moments(name):
                moment.fill_(1)
        self.state = densifier.start(self.model)
        self.edits = []

    def stats(self, step, *, level=3e-4, views=1):
        """Made-up gradients around ``level``, only under the names asked for."""
        generator = keyed_generator(self.seed, "test.stats", step)
        values = {}
        for name in sorted(self.densifier.needs(step)):
            maps = (4,) if name.startswith("weighted_") else ()
            drawn = torch.rand((views, *maps, self.model.count), generator=generator)
            values[name] = drawn < 0.8 if name == "visible" else drawn * 2 * level
        return SplatStats(**values)

    def observe(self, step, stats=None):
        stats = self.stats(step) if stats is None else stats
        self.densifier.observe(self.state, step, stats, width=640, height=480, view=step % 7, loss=step**-0.2)

    def refine(self, step):
        """The reasons of the edits of this step, all applied."""
        reasons = []
        edits = self.densifier.refine(self.state, step, self.model, self.context)
        while True:
            before = {name: (table, table.clone()) for name, table in self.model.rows.items()}
            edit = next(edits, None)
            for name, (table, copy) in before.items():
                assert self.model.rows[name] is table and torch.equal(table, copy), f"refine changed {name} itself"
            if edit is None:
                return reasons
            self.apply(edit)
            reasons.append(edit.reason)

    def apply(self, edit):
        self.model.apply(edit)
        self.adam.apply(edit)
        self.state.apply(edit)
        self.names = edit.apply_to(self.names)
        self.edits.append(edit)
        count = self.model.count
        assert torch.equal(self.model.rows[self.name_field][:, 0], self.names), "rows and their names came apart"
        for name, table in self.model.rows.items():
            assert len(table) == count and torch.isfinite(table).all(), name
            for moment in self.adam.moments(name):
                fresh = edit.fresh if edit.fresh is not None else torch.zeros(count, dtype=torch.bool)
                if edit.fresh_fields is None or name in edit.fresh_fields:
                    assert (moment[fresh] == 0).all(), name
                assert len(moment) == count
        for name, table in self.state.tables.items():
            assert len(table) == count, name
            if edit.fresh is not None and edit.fresh_fields is None:
                assert (table[edit.fresh] == 0).all(), f"statistics of new rows go on in {name}"

    def steps(self, steps):
        """Observe and refine at each step; reasons by step, only where something happened."""
        happened = {}
        for step in steps:
            self.observe(step)
            reasons = self.refine(step)
            if reasons:
                happened[step] = reasons
        return happened


@pytest.fixture
def new_run(oracle_ops):
    return Run
