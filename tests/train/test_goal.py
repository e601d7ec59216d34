from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers_train import Restless, all_bits, fresh_state, make_trainer

from splat.metrics.pixels import psnr
from splat.train import goal
from splat.train.checkpoint import CheckpointSink, read_checkpoint, restore
from splat.train.events import Evaluated, Finished, Stepped
from splat.train.goal import TargetWatch, masked_mse
from splat.train.progress import ProgressSink
from splat.train.trainer import drive


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch):
    monkeypatch.setattr(goal, "CHECK_EVERY", 1)


def shot_of(index, pixels, *, full_size=True, mask=None):
    return SimpleNamespace(view=SimpleNamespace(index=index, pixels=pixels[None], mask=mask), full_size=full_size)


@pytest.mark.parametrize("masked", [False, True])
def test_the_error_is_that_of_the_metric(masked):
    generator = torch.Generator().manual_seed(0)
    color = torch.rand(20, 30, 3, generator=generator) * 1.2 - 0.1
    pixels = (torch.rand(20, 30, 3, generator=generator) * 255).byte()
    mask = (torch.rand(1, 20, 30, generator=generator) * 255).byte() if masked else None
    mse = float(masked_mse(color, pixels, mask))
    expected = psnr(color.clamp(0, 1), pixels, None if mask is None else mask[0])
    assert -10 * np.log10(mse) == pytest.approx(expected, abs=1e-4)


def test_the_error_is_the_same_in_any_order():
    color, pixels = torch.rand(400, 500, 3), torch.zeros(400, 500, 3, dtype=torch.uint8)
    shuffled = color.reshape(-1)[torch.randperm(color.numel())].reshape(color.shape)
    assert float(masked_mse(color, pixels, None)) == float(masked_mse(shuffled, pixels, None))


def test_a_mask_of_nothing_gives_no_error():
    empty = torch.zeros(1, 2, 2, dtype=torch.uint8)
    assert masked_mse(torch.rand(2, 2, 3), torch.zeros(2, 2, 3, dtype=torch.uint8), empty).isnan()


def test_reached_once_every_view_was_seen_at_full_size():
    state = fresh_state(Restless())
    watch, black = TargetWatch(state, 20.0, 2), torch.zeros(4, 4, 3, dtype=torch.uint8)
    state.step = 1

    def visit(index, error, **more):
        watch.note(state, shot_of(index, black, **more), torch.full((1, 4, 4, 3), error))
        return watch.reached(state)

    assert not visit(0, 0.01)  # 40 dB, but the other was never seen
    assert not visit(1, 0.01, full_size=False)
    assert visit(1, 0.9)  # 40 and 0.9 dB: their mean
    assert not visit(0, 0.2)  # the last visit counts
    assert visit(0, 0.001) and not visit(0, 0.001, full_size=False)


def test_without_a_target_nothing_is_measured():
    trainer = make_trainer()
    list(trainer.run())
    assert trainer.state.view_mse is None


def test_a_run_ends_cleanly_at_its_target(capsys):
    trainer = make_trainer(steps=12, target_psnr=1.0, evaluate=lambda state: state.step)
    events = list(trainer.run())
    # Full size from step 5 on: by the end of the second epoch of five views, each was seen at that size.
    assert events[-1].reason == "target" and events[-1].step == trainer.state.step == 10
    assert [e.step for e in events if isinstance(e, Evaluated)] == [10]
    assert len([e for e in events if isinstance(e, Stepped)]) == 10
    stream = SimpleNamespace(isatty=lambda: False, write=lambda text: print(text, end=""), flush=lambda: None)
    ProgressSink(stream)(events[-1])
    assert "target PSNR reached" in capsys.readouterr().out


def test_a_target_that_is_never_reached_changes_no_bits():
    plain, aiming = make_trainer(), make_trainer(target_psnr=99.0)
    for trainer in (plain, aiming):
        assert [e.reason for e in trainer.run() if isinstance(e, Finished)] == ["done"]
    assert all_bits(plain.state) == all_bits(aiming.state) and not aiming.state.view_mse.isnan().any()


@pytest.mark.parametrize("step", [3, 8])
def test_what_was_seen_survives_a_resume(tmp_path, step):
    whole = make_trainer(steps=10, target_psnr=99.0)
    drive(whole, [CheckpointSink(tmp_path, "", every=0, keep_steps=[step])])
    state = fresh_state(Restless())
    restore(state, read_checkpoint(tmp_path / "checkpoints" / f"step_{step}.safetensors"))
    known = int((~state.view_mse.isnan()).sum())
    assert known == (0 if step == 3 else 4)
    again = make_trainer(state, steps=10, target_psnr=99.0)
    drive(again, [])
    assert again.state.view_mse.tolist() == whole.state.view_mse.tolist()
    # Resumed without the target, what is known grows old: it is let go.
    restore(state, read_checkpoint(tmp_path / "checkpoints" / "step_10.safetensors"))
    assert make_trainer(state, steps=10).state.view_mse is None


def test_a_view_of_which_nothing_counts_has_no_part_in_the_mean():
    state = fresh_state(Restless())
    watch, black = TargetWatch(state, 20.0, 3), torch.zeros(4, 4, 3, dtype=torch.uint8)
    state.step, nothing = 1, torch.zeros(1, 4, 4, dtype=torch.uint8)

    def visit(index, error, **more):
        watch.note(state, shot_of(index, black, **more), torch.full((1, 4, 4, 3), error))
        return watch.reached(state)

    assert not visit(0, 0.9, mask=nothing) and not visit(1, 0.01)
    assert visit(2, 0.01)  # 40 and 40 dB
    assert visit(0, 0.9)  # its pixels count again: 0.9, 40 and 40 dB
    assert not visit(1, 0.9)
    for index in range(3):
        assert not visit(index, 0.01, mask=nothing) or index < 2
    assert not watch.reached(state), "nothing at all says nothing"
