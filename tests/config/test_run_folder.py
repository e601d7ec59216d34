import os

import pytest

from splat.config.run_folder import check_folder, claim_folder, find_run, fresh_folder, require_writable
from splat.errors import UserError


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_fresh_folders_never_meet():
    names = [str(fresh_folder("my scene/../x", "cpu")) for _ in range(3)]
    assert names == [f"runs/my_scene_.._x/cpu{tail}" for tail in ("", "-2", "-3")]


def test_a_folder_that_holds_a_run_is_refused_until_told_to_overwrite(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.toml").write_text("steps = 1")
    (run / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"--resume .*run.*--overwrite"):
        check_folder(run, overwrite=False)
    check_folder(run, overwrite=True)
    assert (run / "config.toml").exists()
    claim_folder(run)
    assert [path.name for path in run.iterdir()] == ["notes.txt"]


def test_checking_a_new_folder_leaves_nothing_behind(tmp_path):
    check_folder(tmp_path / "a" / "b", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        require_writable(tmp_path / "file" / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_line(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(UserError, match="cannot be written"):
        require_writable(tmp_path / "locked" / "run")


def test_the_newest_run_is_found(tmp_path):
    for number, (scene, name) in enumerate([("a", "cpu"), ("a", "cpu-2"), ("b", "cpu")]):
        folder = tmp_path / "runs" / scene / name
        folder.mkdir(parents=True)
        (folder / "config.toml").write_text("")
        for path in (folder / "config.toml", folder):
            os.utime(path, (1000 + number, 1000 + number))
    (tmp_path / "runs" / "b" / "dry-run" / "renders").mkdir(parents=True)
    assert str(find_run(None)) == "runs/b/cpu"
    assert str(find_run(None, tmp_path / "a")) == "runs/a/cpu-2"
    with pytest.raises(UserError, match="holds no run"):
        find_run(tmp_path)
    with pytest.raises(UserError, match="no run to resume"):
        find_run(None, tmp_path / "c")
