"""A file is replaced whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from splat.errors import UserError
from splat.io import atomic
from splat.io.atomic import atomic_path, write_bytes, write_text


def test_success_replaces_the_file_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "new" / "model.safetensors"
    write_bytes(target, b"one")
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent and temporary.suffix == target.suffix
        temporary.write_bytes(b"two")
        assert target.read_bytes() == b"one"
    assert target.read_bytes() == b"two"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), OSError(errno.EINTR, "x")])
def test_a_failure_keeps_the_old_file_and_the_exception(tmp_path, error):
    target = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(type(error)), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "no space left"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission"),
    ],
)
def test_disk_trouble_is_one_clear_line(tmp_path, number, words):
    target = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(UserError) as caught, atomic_path(target) as temporary:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))
    message = str(caught.value)
    assert words in message and str(target) in message and "\n" not in message
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_disk_that_fills_up_at_sync_loses_nothing(tmp_path, monkeypatch):
    target = write_text(tmp_path / "a.txt", "old")

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic, "sync_file", full)
    with pytest.raises(UserError, match="no space left"):
        write_text(target, "new")
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_real_full_device_is_recognised():
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is absent")
    with pytest.raises(OSError) as caught, open("/dev/full", "wb", buffering=0) as stream:
        stream.write(b"x")
    assert "no space left" in str(atomic.write_error(caught.value, Path("/x/model.ply")))


def test_a_file_where_a_folder_should_be(tmp_path):
    write_text(tmp_path / "taken", "x")
    with pytest.raises(UserError, match="cannot be written"):
        write_text(tmp_path / "taken" / "a.txt", "y")


def test_a_read_only_folder(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(UserError, match="permission denied"):
            write_text(tmp_path / "a.txt", "x")
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_leftovers_of_killed_processes_go_with_the_next_write_and_those_of_living_ones_stay(tmp_path):
    target = tmp_path / "step_10.safetensors"
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    dead = tmp_path / f".step_10.{finished.pid}-0.partial.safetensors"
    alive = tmp_path / f".step_10.{os.getppid()}-0.partial.safetensors"
    other = tmp_path / f".step_11.{finished.pid}-0.partial.safetensors"
    for path in (dead, alive, other):
        path.write_bytes(b"half")
    write_bytes(target, b"whole")
    assert sorted(tmp_path.iterdir()) == sorted([target, alive, other])
