from math import exp

import pytest
import torch
from test_compressor_contract import _model, _stepped

from splat.compress.masks import MASKS
from splat.compress.rvq import RvqCompressor
from splat.io.packed_file import unpacked


def _after(model, **settings):
    compressor = RvqCompressor(**settings).afterwards(0)
    state = compressor.start(model, seed=0)
    return compressor, state


class TestAfterTheFact:
    @pytest.mark.parametrize(
        ("settings", "attributes"),
        [
            ({}, {"log_scales": "residual", "quats": "residual", "sh_rest": "palette"}),
            ({"shapes": "plain", "color": "sh"}, {"log_scales": "uniform", "quats": "smallest3", "sh_rest": "uniform"}),
            ({"color": "field", "field_start_steps": 20}, {"means+sh_rest": "field", "sh0": "uniform"}),
            ({"color": "field", "field_bands": "all", "field_start_steps": 20}, {"means+sh0+sh_rest": "field"}),
        ],
    )
    def test_every_way(self, settings, attributes):
        model = _model("gaussian", 300)
        compressor, state = _after(model, **settings)
        packed = compressor.pack(state, model)
        found = {name: each.codec for name, each in packed.attributes.items()}
        assert attributes.items() <= found.items()
        assert {part for name in found for part in name.split("+")} == set(model.rows)
        decoded = unpacked(packed)
        assert decoded.count == 300 and MASKS not in state.rows
        errors = {name: each.tolerance for name, each in packed.attributes.items()}
        assert errors.get("log_scales", 0) < 0.1 and errors.get("quats", 0) < 0.1

    def test_more_stages_less_error(self):
        model = _model("gaussian", 400)
        tolerances = []
        for stages in (2, 6):
            compressor, state = _after(model, stages=stages)
            tolerances.append(compressor.pack(state, model).attributes["log_scales"].tolerance)
        assert tolerances[1] < 0.3 * tolerances[0]

    def test_without_view_dependence_there_is_no_palette(self):
        model = _model("gaussian", 30, sh_degree=0)
        for color in ("palette", "field"):
            compressor, state = _after(model, color=color)
            assert compressor.finished(state, 0, model).rows["sh_rest"].shape == (30, 0, 3)


class TestTraining:
    def test_masked_splats_go_and_the_rest_stays(self):
        model = _model("gaussian", 50)
        compressor = RvqCompressor(mask_every=4)
        state = compressor.start(model, seed=0)
        with torch.no_grad():
            state.rows[MASKS][10:30] = -6.0
        means = model.rows["means"].detach().clone()
        assert compressor.finished(state, 0, model).count == 30
        edits = list(compressor.edits(state, 3, model, seed=0))
        assert edits == []
        (edit,) = compressor.edits(state, 4, model, seed=0)
        assert edit.source.tolist() == [*range(10), *range(30, 50)] and edit.reason == "mask"
        model.apply(edit)
        assert torch.equal(model.rows["means"].detach(), means[edit.source])

    def test_worthless_splats_lose_their_masks(self):
        model = _model("gaussian", 20)
        compressor = RvqCompressor()
        state = compressor.start(model, seed=0)
        for step in range(1, 30):
            drawn = compressor.drawn(state, step, model.rows)
            loss = -(drawn["logit_opacities"][:10]).sum() * 1e-3 + compressor.regularizer(state, step, model)
            loss.backward()
            compressor.update(state, step)
        masks = state.rows[MASKS].detach()
        assert (masks[:10] > 1).all() and (masks[10:] < 0.8).all()

    def test_what_is_drawn_late_is_what_the_file_holds(self):
        model = _model("gaussian", 400)
        compressor = RvqCompressor(masks=False, stages=3, book_start=5, color_start=5)
        state = _stepped(compressor, compressor.start(model, seed=0), model, range(1, 6))
        drawn = compressor.drawn(state, 6, model.rows)
        shown = compressor.finished(state, 6, model)
        order = torch.cdist(shown.rows["means"], model.rows["means"].detach()).argmin(1)
        for name in ("log_scales", "quats", "sh_rest"):
            assert (drawn[name].detach()[order] - shown.rows[name]).abs().max() < 0.01, name
            assert (drawn[name].detach() - model.rows[name].detach()).abs().max() > 1e-4, "nothing was quantised"
        assert torch.equal(drawn["means"], model.rows["means"])

    def test_books_palette_and_masks_learn(self):
        model = _model("gaussian", 80)
        compressor = RvqCompressor(book_start=1, color_start=1, commitment=0.1)
        state = _stepped(compressor, compressor.start(model, seed=0), model, range(1, 2))
        before = {name: table.detach().clone() for name, table in (state.parameters | state.rows).items()}
        _stepped(compressor, state, model, range(2, 5))
        after = state.parameters | state.rows
        changed = {name for name, table in before.items() if not torch.equal(table, after[name].detach())}
        assert changed == {"log_scales", "quats", "palette", MASKS}

    def test_a_shorter_run_learns_its_masks_in_time(self):
        short = RvqCompressor().rescaled(1 / 30)
        assert short.book_start == 967 and short.lr_masks == pytest.approx(0.02, rel=1e-3)
        assert RvqCompressor().rescaled(0.5).lr_masks == 0.01
        twice = RvqCompressor().rescaled(0.1).rescaled(0.2)  # a preset's, then a shorter run's
        assert twice.lr_masks == pytest.approx(RvqCompressor().rescaled(0.02).lr_masks)
        assert twice.lr_masks == pytest.approx(1 / 30, rel=1e-2)
        weights = [RvqCompressor().rescaled(factor).mask_weight for factor in (2.0, 1.0, 0.5, 0.05, 0.01)]
        assert weights == pytest.approx([5e-4, 5e-4, 2e-3, 0.2, 0.2])
        assert RvqCompressor(mask_weight=0.5).rescaled(0.1).mask_weight == 0.5
        assert RvqCompressor().afterwards(300).mask_weight == 5e-4

    def test_what_a_splat_must_be_worth_does_not_depend_on_how_few_there_are(self):
        compressor = RvqCompressor(mask_weight=8.0)
        worth = []
        for count in (10, 40):
            model = _model("gaussian", count)
            state = compressor.start(model, seed=0)
            compressor.regularizer(state, 1, model).backward()
            worth.append(float(state.rows[MASKS].grad[0]))
        slope = 1 / (1 + exp(-1)) * (1 - 1 / (1 + exp(-1)))
        assert worth == pytest.approx([8.0 * slope / 80_000] * 2)

    def test_settings_out_of_range(self):
        with pytest.raises(ValueError, match="stages"):
            RvqCompressor(stages=0)
        with pytest.raises(ValueError, match="entries"):
            RvqCompressor(entries=300)
