"""What the loop does for a primitive: its edits, its term of the loss, and the loss that looks at detail."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from helpers_train import Restless, all_bits, cameras, frame_of, make_trainer

from splat.densify.none import Frozen
from splat.geometry.rng import keyed_generator
from splat.losses.frequency import DetailWeights
from splat.model.ges import GesPrimitive
from splat.model.primitives import PRIMITIVES
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel
from splat.optim.adam import SplatAdam
from splat.render.registry import rasterizer
from splat.train import trainer as trainer_module
from splat.train.checkpoint import read_checkpoint, restore, write_checkpoint
from splat.train.events import Edited, Stepped, Warned
from splat.train.frames import FrameSource
from splat.train.state import TrainState
from splat.train.trainer import drive


@dataclass(frozen=True)
class Shaped(GesPrimitive):
    """GES whose shapes are drawn to ``target`` besides."""

    kind: ClassVar[str] = "shaped"

    lr_shapes: float = 0.1
    shape_reset_every: int = 4
    pull: float = 0.0
    target: float = -5.0

    def regularizer(self, rows):
        return self.pull * (rows["shapes"] - self.target).square().mean() if self.pull else None


class Seeing(Restless):
    """Notes the shapes it finds at its refinements."""

    def refine(self, state, step, model, ctx) -> Iterator[RowEdit]:
        if step % 4 == 0:
            state.scalars[f"shapes at {step}"] = float(model.rows["shapes"].detach().abs().max())
        yield from super().refine(state, step, model, ctx)


class Spy:
    """The native rasterizer that claims to step rows itself, and notes whether it was to."""

    name = "spy"

    def __init__(self) -> None:
        self.updates, self._inner = [], rasterizer("native")

    def supports(self, inputs, options, device):
        return None

    def can_update(self, inputs):
        return True

    def render(self, inputs, cameras, options, *, update=None):
        self.updates.append(update is not None)
        return self._inner.render(inputs, cameras, options)  # gradients stay, so the optimizer steps as ever


def state_of(primitive, densifier, count: int = 12) -> TrainState:
    generator = keyed_generator(0, "test", 0)
    xyz = torch.randn(count, 3, generator=generator) * 0.4
    rows = primitive.start(xyz, torch.rand(count, 3, generator=generator), sh_degree=1, generator=generator)
    model = SplatModel(primitive, rows, 1)
    adam = SplatAdam(primitive.fields(1))
    adam.start(model)
    return TrainState(model, adam, densifier.start(model))


def trainer_of(primitive, densifier=None, state=None, **changes):
    densifier = densifier or Restless()
    return make_trainer(state or state_of(primitive, densifier), densifier, **changes)


def test_edits_of_the_primitive_come_after_the_step_and_before_those_of_the_densifier():
    trainer = trainer_of(Shaped(), Seeing())
    seen, largest = [], {}
    for event in trainer.run():
        if isinstance(event, Edited):
            seen.append((event.step, event.reason))
            if event.reason == "reshape":
                assert (event.added, event.removed) == (0, 0)
        if isinstance(event, Stepped):
            largest[event.step] = float(event.state.model.rows["shapes"].detach().abs().max())
    assert seen == [(3, "clone"), (3, "prune"), (4, "reshape"), (6, "clone"), (6, "prune"), (8, "reshape"),
                    (9, "clone"), (9, "prune"), (12, "reshape"), (12, "clone"), (12, "prune")]  # fmt: skip
    assert largest[3] > 0.1 and largest[4] == 0 and largest[7] > 0.1 and largest[8] == 0
    assert [trainer.state.densify.scalars[f"shapes at {step}"] for step in (4, 8, 12)] == [0, 0, 0]
    first, second = trainer.state.adam.moments("shapes")
    assert not first.any() and not second.any()  # the last reset was at the last step


def test_a_reset_leaves_the_picture_as_it_is():
    trainer = trainer_of(Shaped(), Frozen(), steps=4)
    drive(trainer, [])
    kept = trainer_of(Shaped(shape_reset_every=0), Frozen(), steps=4)
    drive(kept, [])
    ours, theirs = (each.state.model.render_inputs() for each in (trainer, kept))
    assert kept.state.model.rows["shapes"].detach().abs().min() > 0 and not trainer.state.model.rows["shapes"].any()
    assert torch.equal(ours.log_scales, theirs.log_scales)


@pytest.mark.parametrize("stop", [3, 4, 7])
@pytest.mark.parametrize("detail", [0.0, 0.5])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path, stop, detail):
    """With resets, a term of the primitive's own, the detail loss, masks, and small pictures at first."""
    primitive, densifier = Shaped(pull=1e-3), Seeing()
    changes = {"detail_weight": detail, "detail_levels": 4}
    whole = trainer_of(primitive, densifier, **changes)
    drive(whole, [])
    for event in trainer_of(primitive, densifier, **changes).run():
        if isinstance(event, Stepped) and event.step == stop:
            path = write_checkpoint(tmp_path, event.state, "")
            break
    state = state_of(primitive, densifier)
    restore(state, read_checkpoint(path))
    assert state.step == stop
    drive(trainer_of(primitive, densifier, state, **changes), [])
    assert all_bits(state) == all_bits(whole.state)


def test_the_term_of_the_primitive_is_added_to_that_of_the_densifier():
    """Adam's first step is its rate times the sign of the gradient: both terms must come through."""
    strong = replace(Shaped(), pull=1e3)
    trainer = trainer_of(strong, Restless(), steps=1)
    drive(trainer, [])
    assert torch.allclose(trainer.state.model.rows["shapes"].detach(), torch.full((12,), -0.1), rtol=1e-3)
    plain = trainer_of(Shaped(), Restless(), steps=1)
    drive(plain, [])
    assert torch.equal(plain.state.model.rows["sh0"], trainer.state.model.rows["sh0"])
    first = {name: each.state.adam.moments("logit_opacities")[0] for name, each in (("both", trainer), ("one", plain))}
    assert torch.equal(first["both"], first["one"])  # the densifier's term is there in both
    none = trainer_of(Shaped(), Frozen(), steps=1)
    drive(none, [])
    assert not torch.equal(first["one"], none.state.adam.moments("logit_opacities")[0])


def test_a_term_of_the_primitive_keeps_the_optimizer_step_out_of_the_backward_pass(monkeypatch):
    """Rows drawn as they are may be stepped by the rasterizer, but only where nothing else adds to their gradients."""
    plain = GesPrimitive.render_inputs
    monkeypatch.setattr(Shaped, "render_inputs", lambda self, rows, **more: _with_rows(plain(self, rows, **more), rows))
    for pull, taken in ((0.0, [True, True]), (1.0, [False, False])):
        spy = Spy()
        drive(trainer_of(Shaped(pull=pull), Frozen(), steps=2, rasterizer=spy), [])
        assert spy.updates == taken


@pytest.mark.parametrize("kind", PRIMITIVES)
def test_only_rows_that_are_drawn_as_they_are_are_stepped_there(kind):
    """Folded sizes and tables of a footprint's own are not."""
    spy = Spy()
    drive(trainer_of(PRIMITIVES[kind](), Frozen(), steps=2, rasterizer=spy), [])
    assert spy.updates == [kind == "gaussian"] * 2


def _with_rows(inputs, rows):
    """Claims that every row field is drawn as it is."""
    inputs = replace(inputs, log_scales=rows["log_scales"])
    object.__setattr__(inputs, "shapes", rows["shapes"])
    return inputs


# --- the loss that looks at detail -----------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """What every loss was asked with."""
    calls, inner = [], trainer_module.photometric_loss

    def spied(color, target, mask, *, l1_weights, ssim_weight):
        calls.append((target, mask, l1_weights))
        return inner(color, target, mask, l1_weights=l1_weights, ssim_weight=ssim_weight)

    monkeypatch.setattr(trainer_module, "photometric_loss", spied)
    return calls


def test_the_detail_loss_is_off_unless_asked_for(asked):
    drive(trainer_of(Shaped(), steps=2), [])
    assert [weights for *_, weights in asked] == [None, None]


def test_factors_follow_view_size_and_progress(asked):
    drive(trainer_of(Shaped(), detail_weight=0.5, detail_levels=4), [])
    assert len(asked) == 12 and any(mask is not None for _, mask, _ in asked)
    assert [target.shape[2] for target, *_ in asked] == [6] * 4 + [12] * 8
    for step, (target, _, weights) in enumerate(asked, start=1):
        expected = DetailWeights(0.5, 0.2, 4).factors(0, target, step / 12)
        assert torch.equal(weights, expected) and set(weights.unique().tolist()) <= {0.375, 1.0}


def test_masks_are_let_go_when_memory_runs_out(asked):
    class Exhausted(Spy):
        def render(self, *arguments, **more):
            if len(self.updates) == 2:
                self.updates.append(False)
                raise MemoryError
            return super().render(*arguments, **more)

    frames = FrameSource(cameras(), frame_of)
    trainer = trainer_of(Shaped(), Frozen(), rasterizer=Exhausted(), frames=frames, detail_weight=0.5, steps=6)
    warned = [event for event in trainer.run() if isinstance(event, Warned)]
    assert len(warned) == 1 and trainer.state.step == 6
    assert trainer._feed._detail.limit_bytes == 0 and len(trainer._feed._detail._masks) == 1
