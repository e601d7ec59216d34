"""The grid while training and after it: when rows are sorted and pulled together, and what the file keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers_train import SETTINGS, Restless, fresh_state, make_trainer

from splat.compress.grid import CELL, GridCompressor
from splat.compress.grid_sort import grid_order, kept_rows, neighbour_distance, sort_features
from splat.io.packed_file import read_spack, unpacked, write_packed
from splat.model.gaussian import GaussianPrimitive
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel

EARLY = GridCompressor(sort_from=2, sort_every=2, smoothness=1.0, smoothness_ramp=2, round_from=5)


def _model(count: int, sh_degree: int = 1) -> SplatModel:
    random = torch.Generator().manual_seed(count)
    primitive = GaussianPrimitive()
    xyz = torch.randn(count, 3, generator=random)
    rows = primitive.start(xyz, torch.sigmoid(xyz), sh_degree=sh_degree, generator=random)
    noise = {name: 0.1 * torch.randn(table.shape, generator=random) for name, table in rows.items()}
    return SplatModel(primitive, {name: table + noise[name] for name, table in rows.items()}, sh_degree)


def _edited(compressor: GridCompressor, state, model: SplatModel, step: int) -> list[str]:
    reasons = []
    for edit in compressor.edits(state, step, model, seed=0):
        model.apply(edit)
        state.take(state.edited(edit))
        reasons.append(edit.reason)
    return reasons


def test_edits_come_when_due_and_fill_a_square():
    model = _model(107)
    before = sort_features(model.rows)[kept_rows(model.opacities)]
    lost = set(range(107)) - set(kept_rows(model.opacities).tolist())
    state = EARLY.start(model, seed=0)
    assert [_edited(EARLY, state, model, step) for step in (1, 3)] == [[], []]
    assert _edited(EARLY, state, model, 2) == ["prune", "sort"]
    assert model.count == 100 and len(lost) == 7
    assert torch.equal(state.rows[CELL], torch.arange(100))
    assert neighbour_distance(sort_features(model.rows), 10) < 0.7 * neighbour_distance(before, 10)
    assert _edited(EARLY, state, model, 4) == ["sort"]  # a square already


def test_sorting_moves_whole_rows_and_shows_the_same_splats():
    model = _model(64)
    whole = {name: table.clone() for name, table in model.rows.items()}
    order = grid_order(model.rows, seed=2)
    state = EARLY.start(model, seed=0)
    _edited(EARLY, state, model, 2)
    for name, table in model.rows.items():
        if name != "quats":
            assert torch.equal(table, whole[name][order]), name
    turned = model.primitive.covariance_product(model.rows, torch.ones(64, 3))
    plain = model.primitive.covariance_product({n: t[order] for n, t in whole.items()}, torch.ones(64, 3))
    assert torch.allclose(turned, plain, rtol=1e-4, atol=1e-8)


def test_smoothness_counts_only_on_a_sorted_full_grid():
    model = _model(40)
    state = EARLY.start(model, seed=0)
    assert EARLY.regularizer(state, 3, model) is None
    _edited(EARLY, state, model, 2)
    assert float(EARLY.regularizer(state, 2, model)) == 0
    half, full, later = (float(EARLY.regularizer(state, step, model)) for step in (3, 4, 9))
    assert 0 < half == pytest.approx(full / 2) and full == later
    assert replace(EARLY, smoothness=0.0).regularizer(state, 4, model) is None
    assert float(replace(EARLY, smoothness=0.5).regularizer(state, 4, model)) == pytest.approx(full / 2)
    edit = RowEdit.append(model.count, torch.tensor([3]), {}, reason="grow")
    model.apply(edit)
    state.take(state.edited(edit))
    assert EARLY.regularizer(state, 4, model) is None
    _edited(EARLY, state, model, 4)
    assert EARLY.regularizer(state, 5, model) is not None


def test_what_is_drawn_late_is_what_the_file_decodes_to():
    """Of rows that fill the square in the order of their cells."""
    model = _model(49)
    state = EARLY.start(model, seed=0)
    _edited(EARLY, state, model, 2)
    rows = {name: table.requires_grad_() for name, table in model.rows.items()}
    assert EARLY.drawn(state, 4, rows) is rows and GridCompressor().drawn(state, 30_000, rows) is rows
    drawn, shown = EARLY.drawn(state, 5, rows), EARLY.finished(state, 5, model)
    for name, table in drawn.items():
        spread = float(rows[name].detach().max() - rows[name].detach().min())
        assert torch.allclose(table.detach(), shown.rows[name], rtol=0, atol=1e-5 * spread + 1e-6), name
        assert not torch.allclose(table.detach(), rows[name].detach(), rtol=0, atol=1e-5 * spread), name
    sum((table * 3).sum() for table in drawn.values()).backward()
    assert all(torch.equal(table.grad, torch.full_like(table, 3.0)) for table in rows.values())


@pytest.mark.parametrize("count", [0, 1, 3, 17, 100])
def test_the_file_is_the_finished_model(tmp_path, count):
    model = _model(count)
    compressor = GridCompressor().afterwards(0)
    state = compressor.start(model, seed=4)
    shown, packed = compressor.finished(state, 0, model), compressor.pack(state, model)
    assert shown.count == packed.count == int(count**0.5) ** 2
    write_packed(packed, tmp_path / "a.spack")
    write_packed(compressor.pack(compressor.start(model, seed=4), model), tmp_path / "b.spack")
    assert (tmp_path / "a.spack").read_bytes() == (tmp_path / "b.spack").read_bytes()
    back, header = read_spack(tmp_path / "a.spack")
    assert header["compressor"] == "grid"
    assert all(torch.equal(back.rows[name], table) for name, table in shown.rows.items())


def test_steps_are_as_wide_as_the_bits_say():
    model = _model(100)
    state = EARLY.start(model, seed=0)
    kept = model.rows["log_scales"][kept_rows(model.opacities)]
    for bits in (3, 6):
        shown = replace(EARLY, bits_scales=bits).finished(state, 0, model).rows["log_scales"]
        assert [len(channel.unique()) <= 2**bits for channel in shown.unbind(1)] == [True] * 3
        spread = (kept.amax(0) - kept.amin(0)) / (2**bits - 1)
        # Rows come in another order; sorted channels differ by half a step at most.
        assert ((shown.sort(0).values - kept.sort(0).values).abs() <= 0.501 * spread).all()


def test_packing_what_was_unpacked_keeps_the_codes(tmp_path):
    model = _model(81)
    once = unpacked(EARLY.pack(EARLY.start(model, seed=0), model))
    state = EARLY.start(once, seed=0)
    again = EARLY.finished(state, 0, once)
    order = state.rows[CELL].argsort()
    for name, table in again.rows.items():
        if name != "quats":  # another cell may hold another of the eight that show one ellipsoid
            assert torch.allclose(table, once.rows[name][order], rtol=0, atol=1e-5), name


def test_rows_that_cannot_be_drawn_stay_out_and_growth_lies_beside_its_parents():
    model = _model(36)
    state = EARLY.start(model, seed=0)
    _edited(EARLY, state, model, 2)
    parents = torch.tensor([20] * 13)
    edit = RowEdit.append(36, parents, {}, reason="grow")
    model.apply(edit)
    state.take(state.edited(edit))
    shown = EARLY.finished(state, 3, model)
    assert shown.count == 49
    alike = (shown.rows["means"] - shown.rows["means"][20]).abs().amax(1) == 0
    assert alike.nonzero().squeeze(1).tolist() == list(range(20, 34))
    model.rows["sh0"][5] = torch.nan
    assert EARLY.finished(state, 3, model).count == 36


@pytest.mark.parametrize("factor", [1 / 30_000, 1 / 20, 1.0])
def test_schedules_stretch(factor):
    short = GridCompressor(round_from=20_000).rescaled(factor)
    assert 1 <= short.sort_from <= 15_000 * factor + 1 and short.sort_every >= 25
    assert short.round_from >= short.sort_from
    few = GridCompressor().afterwards(400)
    assert few.sort_from == 1 and few.sort_every == 100 and few.round_from == 0
    assert replace(few, round_from=1).afterwards(400).round_from == 200


def test_it_trains_beside_a_densifier_and_ends_on_a_square():
    compressor = replace(EARLY, sort_every=5)
    state = fresh_state(Restless())
    state.compress = compressor.start(state.model, seed=1)
    for _ in make_trainer(state, Restless(), compressor=compressor).run():
        pass
    assert state.step == SETTINGS.steps and state.compress.rows[CELL].shape == (state.model.count,)
    assert state.compress.scalars["sorted_rows"] > 0
