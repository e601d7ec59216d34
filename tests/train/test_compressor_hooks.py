"""What the loop does for a compressor: rows drawn through it, its term of the loss, its step, its edits, its state."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from helpers_compress import Veil, compress_bits
from helpers_train import Restless, all_bits, fresh_state, make_trainer

from splat.compress.none import NoCompression
from splat.compress.protocol import CompressState
from splat.densify.none import Frozen
from splat.live.mailbox import Mailbox
from splat.model.row_edit import RowEdit
from splat.render.registry import rasterizer
from splat.train.checkpoint import read_checkpoint, restore, write_checkpoint
from splat.train.events import Edited, Stepped, Warned
from splat.train.sinks import MailboxSink
from splat.train.trainer import drive


@dataclass(frozen=True)
class Watching(Veil):
    """Notes, in the state it owns, what it was asked and when."""

    kind: ClassVar[str] = "watching"

    def update(self, state, step):
        state.scalars[f"update {step}"] = float(state.parameters["gain"].grad is not None)
        super().update(state, step)


class Recording:
    """The native rasterizer that notes what it drew and whether it was to step rows itself."""

    name = "recording"

    def __init__(self):
        self.inputs, self.updates, self._inner = [], [], rasterizer("native")

    def supports(self, inputs, options, device):
        return None

    def can_update(self, inputs):
        return True

    def render(self, inputs, cameras, options, *, update=None):
        self.inputs.append(inputs)
        self.updates.append(update is not None)
        return self._inner.render(inputs, cameras, options)  # gradients stay, so the optimizer steps as ever


def veiled_state(compressor, densifier, count=12):
    state = fresh_state(densifier, count)
    state.compress = compressor.start(state.model, seed=3)
    return state


def trainer_of(compressor=None, densifier=None, state=None, **changes):
    compressor, densifier = compressor or Veil(), densifier or Restless()
    state = state or veiled_state(compressor, densifier)
    return make_trainer(state, densifier, compressor=compressor, **changes)


def bits(state):
    return all_bits(state) | {f"c.{name}": value for name, value in compress_bits(state.compress).items()}


def test_a_compressor_that_does_nothing_changes_no_bit_and_keeps_updates_in_place():
    plain, through = make_trainer(), trainer_of(NoCompression())
    for trainer in (plain, through):
        drive(trainer, [])
    assert all_bits(plain.state) == all_bits(through.state)
    drawer = Recording()
    drive(trainer_of(NoCompression(), Frozen(), rasterizer=drawer, steps=3), [])
    assert drawer.updates == [True] * 3


def test_rows_are_drawn_through_it_and_stepped_in_place_only_where_they_are_not():
    drawer, compressor = Recording(), Veil(begin=3, prune_every=100)
    trainer = trainer_of(compressor, Frozen(), rasterizer=drawer, steps=4)
    rows = trainer.state.model.rows
    drive(trainer, [])
    assert drawer.updates == [True, True, False, False]
    drawn = [inputs.logit_opacities is rows["logit_opacities"] for inputs in drawer.inputs]
    assert drawn == [True, True, False, False]
    hidden = drawer.inputs[2].logit_opacities < rows["logit_opacities"] - 4
    assert 0 < int(hidden.sum()) < 12


def test_its_learnables_get_the_gradient_of_the_picture_and_of_its_term():
    for pull, moves in ((0.0, False), (1e3, True)):
        state = veiled_state(Veil(begin=1), Frozen())
        before = state.compress.rows["veil"].detach().clone(), state.compress.parameters["gain"].detach().clone()
        drive(trainer_of(Veil(begin=1, pull=pull, prune_every=100), Frozen(), state, steps=1), [])
        assert not torch.equal(before[1], state.compress.parameters["gain"])  # from the picture
        assert bool((state.compress.rows["veil"] < before[0]).all()) == moves  # from the term
        assert state.compress.rows["veil"].grad is None and state.compress.scalars["updates"] == 1


def test_it_steps_when_the_optimizer_does_on_the_mean_over_views():
    densifier = Restless(accumulate=2)
    state = veiled_state(Watching(), densifier)
    drive(trainer_of(Watching(begin=1), densifier, state, steps=4), [])
    assert [name for name in state.compress.scalars if name.startswith("update ")] == ["update 2", "update 4"]
    assert state.compress.scalars["update 2"] == 1
    gains = []
    for views in (1, 2):  # the same view twice must count as once
        state = veiled_state(Veil(), Restless(views=views))
        compressor = replace(Veil(begin=1, pull=0.0), prune_every=100)
        trainer = trainer_of(compressor, Restless(views=views), state, steps=1)
        trainer._feed._order.view = lambda taken: 0
        drive(trainer, [])
        gains.append(state.compress.moments["first.gain"].clone())
    assert torch.allclose(*gains, rtol=1e-5) and bool(gains[0].abs() > 0)


def test_its_edits_come_last_and_its_tables_obey_everybodys():
    trainer = trainer_of()
    seen = []
    for event in trainer.run():
        if isinstance(event, Edited):
            seen.append((event.step, event.reason))
        state = event.state
        assert state.compress.rows["veil"].shape == (state.model.count,)
        assert state.compress.moments["first.veil"].shape == (state.model.count,)
    assert [entry for entry in seen if entry[0] == 12] == [(12, "clone"), (12, "prune"), (12, "veil"), (12, "turn")]
    assert (4, "veil") in seen and (3, "clone") in seen


def test_children_copy_their_parents_values_and_start_with_fresh_moments():
    state = veiled_state(Veil(), Restless())
    state.compress.moments["first.veil"] += 1
    state.compress.moments["first.gain"] += 1
    state.compress.rows["veil"].grad = torch.arange(12.0)
    parents = torch.tensor([5, 7])
    means = state.model.rows["means"].detach()[parents]
    state.apply(RowEdit.append(12, parents, {"means": means}, reason="clone"))
    veil = state.compress.rows["veil"]
    assert veil.is_leaf and veil.requires_grad and torch.equal(veil[12:], veil[parents])
    assert state.compress.moments["first.veil"].tolist() == [1.0] * 12 + [0.0] * 2
    assert state.compress.moments["first.gain"].tolist() == [1.0]
    assert veil.grad.tolist() == [*map(float, range(12)), 0.0, 0.0]
    state.apply(RowEdit.reorder(torch.arange(13, -1, -1)))
    assert state.compress.rows["veil"].grad.tolist()[:3] == [0.0, 0.0, 11.0]


def test_out_of_memory_in_an_edit_leaves_every_table_as_it_was(monkeypatch):
    state = veiled_state(Veil(), Restless())
    before = bits(state)
    monkeypatch.setattr(CompressState, "edited", lambda self, edit: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        state.apply(RowEdit.keep(torch.arange(12) > 3))
    assert bits(state) == before
    monkeypatch.undo()
    monkeypatch.setattr(type(state.model), "apply", lambda self, edit: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        state.apply(RowEdit.keep(torch.arange(12) > 3))
    assert bits(state) == before


VARIANTS = {
    "plain": (Restless(), {}),
    "several views": (Restless(views=2), {}),
    "accumulation": (Restless(accumulate=2), {}),
    "filter3d": (Restless(), {"filter3d_every": 5}),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stop", [1, 4, 7, 12])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path, variant, stop):
    densifier, changes = VARIANTS[variant]
    whole = trainer_of(Veil(), densifier, **changes)
    drive(whole, [])
    for event in trainer_of(Veil(), densifier, **changes).run():
        if isinstance(event, Stepped) and event.step == stop:
            path = write_checkpoint(tmp_path, event.state, "")
            break
    state = fresh_state(densifier)
    restore(state, read_checkpoint(path))
    drive(trainer_of(Veil(), densifier, state, **changes), [])
    assert state.compress.scalars["updates"] == whole.state.compress.scalars["updates"] > 0
    assert bits(state) == bits(whole.state)


def test_what_does_not_learn_stays_so_through_a_checkpoint(tmp_path):
    state = veiled_state(Veil(), Restless())
    state.compress.parameters["fixed"] = torch.arange(3.0)
    state.compress.rows["cell"] = torch.arange(12)
    again = fresh_state(Restless())
    restore(again, read_checkpoint(write_checkpoint(tmp_path, state, "")))
    assert compress_bits(again.compress) == compress_bits(state.compress)
    learning = {name for name, table in again.compress.tensors().items() if table.requires_grad}
    assert learning == {"rows.veil", "parameters.gain"}
    assert again.compress.rows["cell"].dtype == torch.int64


def test_files_from_before_compressors_open_without_any(tmp_path):
    from splat.io.tensors import load_tensors, save_tensors

    path = write_checkpoint(tmp_path, fresh_state(Restless()), "")
    tensors, header = load_tensors(path)
    for name in ("compress_scalars", "learnable"):
        del header[name]
    save_tensors(path, tensors, header)
    state = fresh_state(Restless())
    restore(state, read_checkpoint(path))
    assert compress_bits(state.compress) == {}


def test_looks_at_other_views_see_what_is_drawn():
    colors = {}

    class Looking(Frozen):
        def refine(self, state, step, model, ctx):
            colors[step] = ctx.probe.look(0, stats=frozenset()).color
            ctx.probe.look_gradient(0, stats=frozenset({"sensitivity"}))
            yield from ()

    compressor = Veil(begin=2, prune_every=100)
    state = veiled_state(compressor, Looking())
    trainer = trainer_of(compressor, Looking(), state, steps=2, eval_at=frozenset())
    drive(trainer, [])
    assert all(table.grad is None for table in state.learnables())
    options = trainer._feed.probe(state, 2, Looking().plan(2), rasterizer("native"))
    assert not torch.equal(options.look(0, stats=frozenset()).color, colors[2])  # the rows themselves
    through = trainer._feed.probe(state, 2, Looking().plan(2), rasterizer("native"), lambda: trainer._drawn(2))
    assert torch.equal(through.look(0, stats=frozenset()).color, colors[2])


def test_when_memory_runs_out_its_half_made_gradients_go_too():
    class Exhausted(Recording):
        def render(self, *arguments, **more):
            if len(self.inputs) == 2:
                self.inputs.append(None)
                for table in hurt.learnables():  # the backward pass came half way
                    table.grad = torch.ones_like(table)
                raise MemoryError
            return super().render(*arguments, **more)

    compressor = Veil(begin=1)
    whole, hurt = (veiled_state(compressor, Frozen()) for _ in range(2))
    drive(trainer_of(compressor, Frozen(), whole, rasterizer=Recording(), steps=6), [])
    warned = [event for event in trainer_of(compressor, Frozen(), hurt, rasterizer=Exhausted(), steps=6).run()
              if isinstance(event, Warned)]  # fmt: skip
    assert len(warned) == 1 and bits(whole) == bits(hurt)


def test_nobody_else_sorts_the_rows_of_a_compressor_that_does(monkeypatch):
    sorted_at = []
    for sorts in (False, True):
        compressor = type("Sorting", (Veil,), {"sorts": sorts})()
        trainer = trainer_of(compressor)
        trainer.state.model.__class__ = type("OnGpu", (type(trainer.state.model),), {})
        monkeypatch.setattr(type(trainer.state.model), "device", type("Device", (), {"type": "cuda"})(), raising=False)
        trainer._sort_rows = lambda sorts=sorts: sorted_at.append(sorts)
        trainer._edits_due = lambda step, plan: iter([RowEdit.keep(torch.arange(12) >= 0)])
        trainer._refine(1, Restless().plan(1))
    assert sorted_at == [False]


def test_the_viewer_sees_what_the_file_holds():
    mailbox = Mailbox()
    compressor = Veil()
    trainer = trainer_of(compressor)
    sink = MailboxSink(mailbox, lambda state: compressor.finished(state.compress, state.step, state.model))
    counts = []
    for event in trainer.run():
        if isinstance(event, Stepped):
            mailbox.request()
            sink(event)
            open_rows = int((event.state.compress.rows["veil"] > 0).sum())
            counts.append((mailbox.take().model.count, open_rows, event.state.model.count))
    assert counts[0][0] == counts[0][2] > counts[0][1]  # not begun yet
    assert all(shown == open_rows for shown, open_rows, _ in counts[1:])
