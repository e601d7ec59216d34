import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from splat.cli.signals import GracefulStop
from splat.live.commands import CommandQueue, Stop
from splat.train.checkpoint import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECS = 240.0
"""For a process to come up, or to end, on a machine that does ten things at once."""


def train(folder: Path, *flags: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "splat.cli.main", "train", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for_lines(path: Path, count: int) -> None:
    end = time.monotonic() + PATIENCE_SECS
    while not path.exists() or path.read_text().count("\n") < count:
        assert time.monotonic() < end, "the training wrote nothing"
        time.sleep(0.02)


def test_a_signal_ends_with_a_checkpoint_its_own_exit_code_and_the_way_on(tiny_scene, tmp_path):
    runs = {signal.SIGTERM: tmp_path / "terminated", signal.SIGINT: tmp_path / "interrupted"}
    flags = [str(tiny_scene), "--preset", "cpu", "--steps", "100000", "--max-splats", "100"]
    processes = {number: train(tmp_path, *flags, "-o", run.name) for number, run in runs.items()}
    for number, process in processes.items():
        run = runs[number]
        wait_for_lines(run / "metrics.jsonl", 3)
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE_SECS)
        assert process.returncode == 128 + number
        finish = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        assert (finish["kind"], finish["reason"]) == ("finish", "stopped") and finish["step"] > 0
        (checkpoint,) = (run / "checkpoints").glob(f"step_{finish['step']}.safetensors")
        assert read_checkpoint(checkpoint).step == finish["step"]
        assert f"checkpoint: {run.name}/checkpoints/{checkpoint.name}" in err
        assert f"splat train --resume {run.name}" in err


def test_first_signal_asks_second_interrupt_aborts_and_handlers_come_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    commands = CommandQueue()
    with GracefulStop(commands) as stop:
        assert stop.exit_code is None
        os.kill(os.getpid(), signal.SIGINT)
        command = commands.pop()
        assert isinstance(command, Stop) and command.how == "interrupt" and stop.exit_code == 130
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


BUSY = """
import sys, threading
import torch
from splat.cli.main import entry

busy = threading.Event()

def draw():
    table = torch.rand(400, 400, requires_grad=True)
    while True:
        (table @ table).sum().backward()
        busy.set()

threading.Thread(target=draw, name="splat-busy", daemon=True).start()
busy.wait()
sys.argv = ["splat", "--version"]
entry()
"""


def test_a_thread_of_the_viewer_at_its_last_work_does_not_abort_the_process():
    ended = subprocess.run(
        [sys.executable, "-c", BUSY], cwd=ROOT, text=True, capture_output=True, timeout=PATIENCE_SECS, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("splat ")
