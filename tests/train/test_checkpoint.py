import json
import os

import pytest
import torch
from helpers_train import Restless, all_bits, fresh_state, make_trainer

from splat.errors import UserError
from splat.train import checkpoint as checkpoints
from splat.train.checkpoint import CheckpointSink, checkpoint_paths, latest, read_checkpoint, restore, write_checkpoint
from splat.train.events import Finished
from splat.train.trainer import drive


def resumed(path, densifier, **changes):
    state = fresh_state(densifier)
    restore(state, read_checkpoint(path))
    return make_trainer(state, densifier=densifier, **changes)


VARIANTS = {
    "plain": (Restless(), {}),
    "filter3d": (Restless(), {"filter3d_every": 5}),
    "several views": (Restless(views=2), {}),
    "accumulation": (Restless(accumulate=2), {}),
    "random background": (Restless(), {"background": None}),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("step", [1, 3, 7, 11, 12])
def test_resuming_anywhere_gives_the_bits_of_a_run_that_never_stopped(tmp_path, variant, step):
    densifier, changes = VARIANTS[variant]
    whole = make_trainer(densifier=densifier, **changes)
    sink = CheckpointSink(tmp_path, "", every=0, keep_steps=[step])
    drive(whole, [sink])
    again = resumed(tmp_path / "checkpoints" / f"step_{step}.safetensors", densifier, **changes)
    assert again.state.step == step
    drive(again, [])
    assert all_bits(again.state) == all_bits(whole.state)


def test_checkpoints_change_no_bits(tmp_path):
    plain, saving = make_trainer(), make_trainer()
    drive(plain, [])
    drive(saving, [CheckpointSink(tmp_path, "", every=1)])
    assert all_bits(plain.state) == all_bits(saving.state)


def test_the_newest_two_and_those_asked_for_stay(tmp_path):
    drive(make_trainer(), [CheckpointSink(tmp_path, "", every=2, keep_last=2, keep_steps=[3, 4])])
    assert [path.name for path in checkpoint_paths(tmp_path)] == [f"step_{n}.safetensors" for n in (3, 4, 10, 12)]


def test_an_interrupted_run_leaves_a_checkpoint_of_its_last_step(tmp_path):
    sink = CheckpointSink(tmp_path, "", every=0)
    state = make_trainer(steps=5).state
    state.step = 5
    sink(Finished(state, "interrupted"))
    assert sink.last == tmp_path / "checkpoints" / "step_5.safetensors" and sink.last.exists()


def test_latest_falls_back_to_the_one_before_a_damaged_one(tmp_path):
    state = fresh_state(Restless())
    for state.step in (2, 10, 9):
        write_checkpoint(tmp_path, state, "steps = 1")
    newest = tmp_path / "checkpoints" / "step_10.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    (tmp_path / "checkpoints" / ".step_11.123-0.partial.safetensors").write_bytes(b"half")
    warnings = []
    found = latest(tmp_path, warnings.append)
    assert (found.step, found.config_toml) == (9, "steps = 1")
    assert len(warnings) == 1 and "step_10" in warnings[0]


def test_without_any_good_checkpoint_the_error_says_so(tmp_path):
    with pytest.raises(UserError, match="no checkpoint to resume from"):
        latest(tmp_path, print)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step_1.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="none of its 1 checkpoints"):
        latest(tmp_path, lambda _: None)


def test_foreign_and_newer_files_are_refused(tmp_path):
    path = write_checkpoint(tmp_path, fresh_state(Restless()), "")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"splat-checkpoint", b"other-checkpoint"))
    with pytest.raises(UserError, match="not a checkpoint"):
        read_checkpoint(path)
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    header = json.loads(table["__metadata__"]["splat"])
    assert header["version"] == checkpoints.VERSION
    path.write_bytes(data.replace(b'\\"version\\": 2', b'\\"version\\": 9'))
    with pytest.raises(UserError, match="newer splat"):
        read_checkpoint(path)


def test_fields_that_do_not_match_are_named(tmp_path):
    state = fresh_state(Restless())
    path = write_checkpoint(tmp_path, state, "")
    other = fresh_state(Restless())
    other.model.rows["glow"] = torch.zeros(12)
    with pytest.raises(UserError, match="glow"):
        restore(other, read_checkpoint(path))


def test_a_full_disk_is_one_line_and_keeps_the_previous_file(tmp_path, monkeypatch):
    state = fresh_state(Restless())
    path = write_checkpoint(tmp_path, state, "")
    before = path.read_bytes()

    def no_space(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(UserError, match="no space left"):
        write_checkpoint(tmp_path, state, "changed")
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
