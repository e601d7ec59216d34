"""What every compressor promises, on every primitive it accepts."""

from dataclasses import is_dataclass

import pytest
import torch

from splat.compress.protocol import CompressState
from splat.compress.registry import COMPRESSORS
from splat.io.packed_file import read_spack, write_packed
from splat.model.primitives import PRIMITIVES
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel

PAIRS = [
    pytest.param(compressor, primitive, id=f"{compressor}-{primitive}")
    for compressor in COMPRESSORS
    for primitive in PRIMITIVES
    if COMPRESSORS[compressor]().blocked(PRIMITIVES[primitive]()) is None
]


def _model(kind, count=120, *, sh_degree=2):
    rng = torch.Generator().manual_seed(3)
    primitive = PRIMITIVES[kind]().fitted(50.0)
    xyz, rgb = torch.randn(count, 3, generator=rng), torch.rand(count, 3, generator=rng)
    rows = primitive.start(xyz, rgb, sh_degree=sh_degree, generator=rng)
    rows = {name: table + 0.05 * torch.randn(table.shape, generator=rng) for name, table in rows.items()}
    return SplatModel(primitive, rows, sh_degree).requires_grad_(True)


def _short(kind, steps=12):
    return COMPRESSORS[kind]().rescaled(steps / 30_000)


def _stepped(compressor, state, model, steps):
    """A training without pictures: whatever is drawn should shrink."""
    for step in steps:
        drawn = compressor.drawn(state, step, model.rows)
        assert {name: table.shape for name, table in drawn.items()} == {n: t.shape for n, t in model.rows.items()}
        loss = sum((table.square().mean() for table in drawn.values() if table.numel()), torch.zeros(()))
        own = compressor.regularizer(state, step, model)
        if model.count:
            (loss if own is None else loss + own).backward()
        for table in model.rows.values():
            if table.grad is not None:
                table.data.sub_(0.01 * table.grad)
                table.grad = None
        compressor.update(state, step)
        for edit in compressor.edits(state, step, model, seed=0):
            state.take(state.edited(edit))
            model.apply(edit)
    return state


@pytest.mark.parametrize(("compressor", "primitive"), PAIRS)
class TestEveryPair:
    @pytest.mark.parametrize("trained", [0, 12])
    def test_the_file_is_what_was_shown(self, tmp_path, compressor, primitive, trained):
        short, model = _short(compressor), _model(primitive)
        state = _stepped(short, short.start(model, seed=0), model, range(1, trained + 1))
        shown, packed = short.finished(state, trained, model), short.pack(state, model)
        if packed is None:
            assert shown is model
            return
        write_packed(packed, tmp_path / "a.spack")
        back, header = read_spack(tmp_path / "a.spack")
        assert header["compressor"] == compressor and back.primitive == model.primitive
        for name, table in shown.rows.items():
            assert not table.requires_grad
            within = max(
                [each.tolerance for key, each in packed.attributes.items() if name in key.split("+")], default=0
            )
            assert table.shape == back.rows[name].shape
            if table.numel():
                assert (back.rows[name] - table).abs().max() <= within + 1e-6, name

    def test_tables_follow_edits(self, compressor, primitive):
        short, model = _short(compressor), _model(primitive)
        state = _stepped(short, short.start(model, seed=0), model, range(1, 13))
        count = model.count
        parents = torch.tensor([0, 5, 5])
        for edit in (
            RowEdit.append(count, parents, {}, reason="clone"),
            RowEdit.keep(torch.arange(count + 3) % 3 > 0),
        ):
            before = {name: table.detach().clone() for name, table in state.rows.items()}
            state.take(state.edited(edit))
            model.apply(edit)
            for name, table in state.rows.items():
                assert torch.equal(table.detach(), before[name][edit.source]), name
                assert len(table) == model.count
        _stepped(short, state, model, range(13, 15))
        assert short.finished(state, 14, model).count <= model.count

    def test_a_resumed_state_goes_on_alike(self, compressor, primitive):
        short = _short(compressor)
        ends = []
        for resumed in (False, True):
            model = _model(primitive)
            state = _stepped(short, short.start(model, seed=0), model, range(1, 9))
            if resumed:
                state = CompressState.of_tensors(
                    {n: t.detach().clone() for n, t in state.tensors().items()}, state.scalars
                )
            _stepped(short, state, model, range(9, 13))
            ends.append((state.tensors(), state.scalars, model.rows))
        (first, numbers, rows), (second, again, others) = ends
        assert numbers == again and set(first) == set(second)
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert all(torch.equal(rows[name], others[name]) for name in rows)

    @pytest.mark.parametrize("count", [0, 1])
    def test_few_rows(self, compressor, primitive, count):
        short, model = _short(compressor), _model(primitive, 4)
        model.apply(RowEdit.keep(torch.arange(4) < count))
        state = _stepped(short, short.start(model, seed=0), model, range(1, 3))
        assert short.finished(state, 2, model).count <= count

    def test_plugs_in(self, compressor, primitive):
        cls = COMPRESSORS[compressor]
        assert is_dataclass(cls) and cls.__dataclass_params__.frozen and cls.kind == compressor and cls.purpose
        assert isinstance(cls().afterwards(0), cls) and isinstance(cls().rescaled(0.1), cls)
