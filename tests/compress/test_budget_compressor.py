"""``budget``: a file that is as large as was asked, from what training draws."""

from dataclasses import replace
from math import log10

import pytest
import torch

from splat.compress.budget import GATE, BudgetCompressor, span_of
from splat.compress.protocol import CompressState, Goal
from splat.compress.rest_palette import entries_of
from splat.compress.stored_size import stored_bytes
from splat.errors import UserError
from splat.io.packed_file import read_spack, unpacked, write_packed
from splat.model.primitives import PRIMITIVES
from splat.model.splat_model import SplatModel

HEADER = {"world_from_input": [[1 / 3] * 4] * 4, "up_axis": [0.1 / 3] * 3,
          "provenance": {"scene": "a scene with a name of some length", "step": 30_000}}  # fmt: skip


def _model(kind="gaussian", count=1200, *, sh_degree=2):
    rng = torch.Generator().manual_seed(3)
    primitive = PRIMITIVES[kind]().fitted(50.0)
    xyz, rgb = 2 * torch.randn(count, 3, generator=rng), torch.rand(count, 3, generator=rng)
    rows = primitive.start(xyz, rgb, sh_degree=sh_degree, generator=rng)
    rows = {name: table + 0.2 * torch.randn(table.shape, generator=rng) for name, table in rows.items()}
    return SplatModel(primitive, rows, sh_degree)


def _measure(reference, floor=20.0):
    """A picture without a renderer: histograms of places, weighted by each field and by opacity."""

    def drawn(model):
        rows = model.rows
        cells = ((rows["means"] + 4) / 2).floor().clamp(0, 3).long() @ torch.tensor([16, 4, 1])
        opacity = rows["logit_opacities"].sigmoid()
        colors = torch.cat([rows["sh0"], rows["log_scales"], rows["sh_rest"].flatten(1), rows["means"]], 1)
        return torch.zeros(64, colors.shape[1]).index_add_(0, cells, opacity[:, None] * colors)

    truth = drawn(reference)

    def measure(model):
        if model.sh_degree != reference.sh_degree:
            from splat.io.selection import with_sh_degree

            model = with_sh_degree(model, reference.sh_degree)
        return -10 * log10(float((drawn(model) - truth).square().mean()) + floor)

    return measure


def _written(packed, path):
    write_packed(packed, path, HEADER)
    return path.stat().st_size


class TestSize:
    @pytest.mark.parametrize("size", [14_000, 8_000])
    def test_the_goal_is_met_from_below(self, tmp_path, size):
        model = _model()
        tuned = BudgetCompressor().afterwards(0).tuned(model, Goal(size_bytes=size), _measure(model))
        packed = tuned.pack(tuned.start(model, seed=0), model)
        assert 0.9 * size < _written(packed, tmp_path / "a.spack") <= size

    @pytest.mark.parametrize("limit", [0.012, 0.005])
    def test_a_size_binds_whatever_the_settings(self, tmp_path, limit):
        model = _model()
        compressor = BudgetCompressor(target_mb=limit).afterwards(0)
        size = _written(compressor.pack(compressor.start(model, seed=0), model), tmp_path / "a.spack")
        assert size <= limit * 1e6 and size > limit * 1e6 - 700  # its head is guessed at

    def test_more_bytes_a_better_picture(self):
        model = _model()
        measure, drops = _measure(model), []
        for size in (7_000, 14_000):
            tuned = BudgetCompressor().afterwards(0).tuned(model, Goal(size_bytes=size), measure)
            drops.append(measure(model) - measure(tuned.finished(tuned.start(model, seed=0), 0, model)))
        assert drops[0] > 1.2 * drops[1]

    def test_out_of_reach_names_the_smallest(self):
        model = _model(count=50)
        with pytest.raises(UserError, match=r"smallest file of this model has 0\.00\d+ MB"):
            BudgetCompressor().afterwards(0).tuned(model, Goal(size_bytes=900), _measure(model))
        compressor = BudgetCompressor(target_mb=0.0009).afterwards(0)
        with pytest.raises(UserError, match="one splat takes"):
            compressor.pack(compressor.start(model, seed=0), model)

    def test_beside_the_model_itself_all_knobs_are_turned(self):
        model = _model(count=500)
        tuned = BudgetCompressor().afterwards(0).tuned(model, Goal(size_bytes=7_000), _measure(model, floor=1e-10))
        assert tuned.keep > 0.4 and tuned.bits_means < 14 and tuned.step_sh0 > 0.03

    def test_aims_while_training(self):
        assert BudgetCompressor().aimed(Goal(size_bytes=8_000_000)).target_mb == 8
        with pytest.raises(UserError, match="quality goal"):
            BudgetCompressor().aimed(Goal(psnr_drop=0.1))

    def test_guesses_of_the_size(self, tmp_path):
        for count in (1, 100, 1000):
            model = _model(count=count)
            compressor = BudgetCompressor().afterwards(0)
            packed = compressor.pack(compressor.start(model, seed=0), model)
            assert 0 <= stored_bytes(packed) - _written(packed, tmp_path / "a.spack") < 900


class TestQuality:
    @pytest.mark.parametrize("drop", [0.05, 0.4])
    def test_the_drop_is_used_up_and_not_passed(self, drop):
        model = _model()
        measure = _measure(model)
        tuned = BudgetCompressor().afterwards(0).tuned(model, Goal(psnr_drop=drop), measure)
        lost = measure(model) - measure(tuned.finished(tuned.start(model, seed=0), 0, model))
        assert 0.4 * drop < lost <= drop

    def test_few_measurements(self):
        model, count = _model(count=500), []
        measure = _measure(model)

        def counted(each):
            count.append(1)
            return measure(each)

        BudgetCompressor().afterwards(0).tuned(model, Goal(psnr_drop=0.1), counted)
        assert len(count) <= 45


class TestTraining:
    def _through(self, steps, **settings):
        """A model pulled towards another, through the steps: (compressor, state, model, mean error while drawn)."""
        model, target = _model(count=400).requires_grad_(True), _model(count=400)
        compressor = replace(BudgetCompressor().afterwards(steps), **settings)
        state = compressor.start(model, seed=0)
        errors = []
        for step in range(1, steps + 1):
            rows = compressor.drawn(state, step, model.rows)
            goals = {name: table[: model.count] for name, table in target.rows.items()}
            loss = sum((rows[name] - goals[name]).square().mean() for name in ("sh0", "sh_rest"))
            loss = loss + (rows["logit_opacities"].sigmoid() * torch.arange(model.count)).mean()
            loss.backward()
            errors.append(float(loss.detach()))
            for table in model.rows.values():
                if table.grad is not None:
                    table.data.sub_(5.0 * table.grad if table.ndim == 2 else 0.0)
                    table.grad = None
            compressor.update(state, step)
            for edit in compressor.edits(state, step, model, seed=0):
                state.take(state.edited(edit))
                model.apply(edit)
        return compressor, state, model, errors

    def test_the_file_holds_what_was_drawn(self):
        compressor, state, model, _ = self._through(20, keep=0.5)
        drawn = compressor.drawn(state, 20, model.rows)
        decoded = unpacked(compressor.pack(state, model)).rows
        order = decoded["means"].double() @ torch.tensor([1.0, 10.0, 100.0]).double()
        ours = drawn["means"].detach().double() @ torch.tensor([1.0, 10.0, 100.0]).double()
        assert model.count == 200 and len(order) == 200
        for name, table in decoded.items():
            there = drawn[name].detach()[ours.argsort(stable=True)]
            assert (there - table[order.argsort(stable=True)]).abs().max() < 2e-4, name

    def test_the_palette_learns(self):
        compressor, state, _, _ = self._through(20, prune_until=1)
        before = self._through(1, prune_until=1)[1].parameters["palette"].detach()
        assert (state.parameters["palette"].detach() - before).abs().max() > 5 * compressor.lr_palette

    def test_what_matters_to_the_picture_stays(self):
        _, state, model, _ = self._through(20, keep=0.25)
        # The loss above asks most of the opacities of the last rows.
        assert model.count == 100 and GATE in state.rows
        first = {tuple(row) for row in _model(count=400).rows["means"][:150].tolist()}
        kept = {tuple(row) for row in model.rows["means"].detach().tolist()}
        assert len(first & kept) < 15

    def test_nothing_happens_before_its_time(self):
        model = _model(count=30)
        compressor = BudgetCompressor().rescaled(0.01)
        state = compressor.start(model, seed=0)
        assert compressor.drawn(state, 5, model.rows) is model.rows and not state.rows
        assert list(compressor.edits(state, 5, model, seed=0)) == []

    def test_a_training_ends_at_its_size(self, tmp_path):
        compressor, state, model, _ = self._through(20, target_mb=0.006)
        assert model.count < 400
        size = _written(compressor.pack(state, model), tmp_path / "a.spack")
        assert 0.85 * 6000 < size <= 6000

    def test_a_state_survives_its_checkpoint(self):
        compressor, state, model, _ = self._through(12, keep=0.5)
        again = CompressState.of_tensors(state.tensors(), state.scalars)
        first, second = (unpacked(compressor.pack(each, model)).rows for each in (state, again))
        assert all(torch.equal(first[name], second[name]) for name in first)


class TestParts:
    def test_entries(self):
        assert [entries_of(0.05, n) for n in (0, 10, 100, 20_000, 10_000_000)] == [0, 1, 4, 1024, 65_536]
        assert entries_of(0.0, 1000) == 0

    def test_what_was_rounded_has_the_same_span(self):
        model = _model(count=200)
        compressor = BudgetCompressor(bits_means=10).afterwards(0)
        decoded = compressor.finished(compressor.start(model, seed=0), 0, model)
        assert span_of(decoded) == span_of(model)

    def test_again_is_as_small(self, tmp_path):
        model = _model(count=500)
        compressor = BudgetCompressor().afterwards(0)
        sizes = []
        for name in ("a", "b"):
            sizes.append(_written(compressor.pack(compressor.start(model, seed=0), model), tmp_path / name))
            model = read_spack(tmp_path / name)[0]
        assert abs(sizes[1] / sizes[0] - 1) < 0.02

    def test_settings_that_do_not_fit(self):
        with pytest.raises(ValueError, match="bits_quats"):
            BudgetCompressor(bits_quats=1)
