"""The held-out views."""

from __future__ import annotations

import pytest
from scene_writer import write_capture

from splat.scene.open import open_scene
from splat.scene.options import SceneOptions
from splat.scene.split import split_views
from splat.scene.types import SceneError

NAMES = ["a/1.png", "a/2.png", "b/1.png", "c.png"]


def split(tmp_path, names=NAMES, stated=None, skipped=(), **options):
    return split_views(names, stated or [None] * len(names), frozenset(skipped), tmp_path, SceneOptions(**options))


@pytest.mark.parametrize(("every", "test"), [(8, (0,)), (2, (0, 2)), (3, (0, 3)), (0, ())])
def test_every_nth_by_name(tmp_path, every, test):
    result = split(tmp_path, test_every=every)
    assert result.test == test
    assert sorted((*result.train, *result.test)) == [0, 1, 2, 3]


def test_everything_held_out_is_an_error(tmp_path):
    with pytest.raises(SceneError, match=r"no view is left to train on .*test_every"):
        split(tmp_path, test_every=1)


def test_one_view_trains(tmp_path):
    result = split(tmp_path, names=["a.png"])
    assert result.train == (0,) and result.test == () and result.warnings


def test_the_captures_own_word(tmp_path):
    assert split(tmp_path, stated=["train", "test", None, "train"]).test == (1,)


def test_lists(tmp_path):
    listed = tmp_path / "mine.txt"
    listed.write_text("# held out\nc\n\na/2.png\n")
    assert split(tmp_path, test_list=listed).test == (1, 3)
    assert split(tmp_path, test_list=listed).train == (0, 2)
    assert split(tmp_path, train_list=listed).test == (0, 2)
    assert split(tmp_path, test_list="mine.txt").test == (1, 3), "named relative to the scene"
    (tmp_path / "test_list.txt").write_text("b/1.png\n")
    assert split(tmp_path).test == (2,), "found by its name"
    both = split(tmp_path, train_list=listed)
    assert both.train == (1, 3) and both.test == (2,)
    assert both.warnings == ("1 view in neither list, not used: a/1.png.",)
    (tmp_path / "test_list.txt").write_text("c.png\n")
    with pytest.raises(SceneError, match="1 name also in"):
        split(tmp_path, train_list=listed)


def test_names_that_are_not_there(tmp_path):
    listed = tmp_path / "mine.txt"
    listed.write_text("gone.png\nc.png\n")
    with pytest.raises(SceneError, match=r"mine.txt: line 1, 'gone.png' is no view of this capture"):
        split(tmp_path, test_list=listed)
    assert split(tmp_path, test_list=listed, skipped=["gone.png"]).test == (3,)
    listed.write_text("1\n")
    with pytest.raises(SceneError, match="fits 2 views; write the full name"):
        split(tmp_path, test_list=listed)
    with pytest.raises(SceneError, match=r"absent.txt: the list of views cannot be read"):
        split(tmp_path, test_list=tmp_path / "absent.txt")


def test_through_the_scene(tmp_path):
    root = write_capture(tmp_path, NAMES)
    (root / "train_list.txt").write_text("c.png\na/1.png")
    scene = open_scene(root)
    assert [camera.name for camera in scene.train_cameras] == ["a/1.png", "c.png"]
    assert scene.protocol["split"] == "lists train_list.txt"
