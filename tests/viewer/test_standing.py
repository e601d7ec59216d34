"""An opened file answers as a training does; the desk brings its snapshots and replies to the pages."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import serving
import torch

from splat.edit.bench import Bench
from splat.edit.ops import Delete, Select
from splat.edit.protection import Protection, Shield
from splat.edit.session import edit_command, redo_command, undo_command
from splat.edit.shapes import Everything, Sphere
from splat.errors import UserError
from splat.io.png import write_png
from splat.live.commands import Edit, Pause, Save
from splat.model.row_edit import RowEdit
from splat.render.registry import choose
from splat.scene.open import open_scene
from splat.scene.types import SceneError
from splat.viewer.picture.compare import scene_camera
from splat.viewer.serving.desk import Desk
from splat.viewer.serving.loop import join_all
from splat.viewer.serving.standing import StandingHost
from splat.viewer.serving.ticker import Ticker

PICK_AND_DELETE = (Select(Sphere((0.0, 0.0, 0.0), 0.8)), Delete())


@pytest.fixture
def host() -> Iterator[StandingHost]:
    with StandingHost(serving.ball(50)) as found:
        yield found


@pytest.fixture
def desk(host: StandingHost) -> Iterator[Desk]:
    rasterizer = choose("cpu")
    made = Desk(host.link, rasterizer=rasterizer, session=serving.new_session(rasterizer), standing=True)
    made.on_snapshot(lambda snapshot: None)  # as a page does
    yield made
    made.close()
    assert not made._loop.thread.is_alive()


def newest(desk: Desk, count: int):
    desk.refresh()
    return serving.wait_for(
        lambda: desk.snapshot if desk.snapshot is not None and desk.snapshot.model.count == count else None
    )


def test_an_edit_is_applied_and_seen_and_leaves_old_snapshots_alone(host, desk) -> None:
    before = newest(desk, 50)
    mask = torch.arange(50) < 20
    reply = desk.command(Edit(lambda rows: RowEdit.keep(mask, "delete")))
    assert reply.result(serving.PATIENCE_SECS) == 0
    after = newest(desk, 20)
    assert after.version > before.version and before.model.count == 50
    assert torch.equal(after.labels.ids, torch.arange(20)) and host.link.news.status.splats == 20


def test_a_refused_command_answers_and_the_host_goes_on(host, desk) -> None:
    def broken(rows) -> RowEdit:
        raise ValueError("not like this")

    with pytest.raises(ValueError, match="not like this"):
        desk.command(Edit(broken)).result(serving.PATIENCE_SECS)
    with pytest.raises(UserError, match="nothing trains here"):
        desk.command(Save()).result(serving.PATIENCE_SECS)
    assert desk.command(Pause()).result(serving.PATIENCE_SECS) == 0
    assert newest(desk, 50).version == host.snapshot().version


def test_operations_go_to_the_session_and_come_back(desk) -> None:
    desk.submit(Select(Sphere((0.0, 0.0, 0.0), 0.8))).result(serving.PATIENCE_SECS)
    inside = desk.session.status.selected
    assert 0 < inside < 50
    status = desk.submit(Delete()).result(serving.PATIENCE_SECS)
    assert len(status.undo) == 2
    newest(desk, 50 - inside)
    desk.undo().result(serving.PATIENCE_SECS)
    assert newest(desk, 50).labels.having(1).sum() == inside
    desk.redo().result(serving.PATIENCE_SECS)
    newest(desk, 50 - inside)
    desk.submit(Select(Everything())).result(serving.PATIENCE_SECS)
    with pytest.raises(UserError):
        desk.submit(Delete()).result(serving.PATIENCE_SECS)


def test_listeners_get_newer_snapshots_until_they_leave(desk, caplog) -> None:
    seen: list[int] = []
    leave = desk.on_snapshot(lambda snapshot: seen.append(snapshot.version))
    desk.on_snapshot(lambda snapshot: 1 / 0)
    desk.refresh()
    serving.wait_for(lambda: seen and "ZeroDivisionError" in caplog.text)
    leave()
    count = len(seen)
    desk.command(Edit(lambda rows: RowEdit.keep(torch.arange(50) < 49))).result(serving.PATIENCE_SECS)
    newest(desk, 49)
    assert len(seen) == count


def test_a_file_without_a_capture_has_no_photographs(desk) -> None:
    assert desk.photo(serving_camera()) is None
    assert not desk.is_training


def test_photographs_are_those_of_the_capture(tiny_scene) -> None:
    scene = open_scene(tiny_scene)
    with StandingHost(serving.ball(5)) as host:
        desk = Desk(host.link, scene=scene, rasterizer=None)
        try:
            camera = scene_camera(desk, "view_03.png")
            photo = desk.photo(camera)
            assert photo.shape == (camera.height, camera.width, 3) and photo.dtype == np.uint8
            (tiny_scene / "images" / "view_04.png").unlink()
            with pytest.raises(SceneError):
                desk.photo(scene_camera(desk, "view_04.png"))
        finally:
            desk.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("splat-images")]


def test_masks_are_those_of_the_capture(tiny_scene, monkeypatch) -> None:
    mask = np.zeros((24, 32), np.uint8)
    mask[:, 16:] = 255
    write_png(tiny_scene / "masks" / "view_03.png", mask)
    scene = open_scene(tiny_scene)
    host, photo = StandingHost(serving.ball(5)), np.ones((2, 3, 3), np.uint8)
    desk = Desk(host.link, scene=scene, rasterizer=None)
    own = Desk(host.link, scene=scene, rasterizer=None, photos=lambda camera: photo)
    try:
        assert np.array_equal(desk.mask(scene_camera(desk, "view_03.png")), mask)
        assert own.mask(scene_camera(own, "view_03.png")) is None and desk.mask(serving_camera()) is None
        plain = scene_camera(desk, "view_01.png")
        assert desk.mask(plain) is None
        monkeypatch.setattr(desk._store, "frame", lambda index: pytest.fail("decoded again"))
        assert desk.mask(plain) is None  # known
    finally:
        desk.close()
        own.close()


def test_snapshots_of_an_opened_run_tell_what_its_training_left_out() -> None:
    session = serving.new_session(choose("cpu"))
    protection = Protection({number: Shield({0: np.zeros(9, np.uint8)}) for number in (1, 2)})
    assert StandingHost(serving.ball(5)).snapshot().protection is None
    with StandingHost(serving.ball(50), protection=protection) as host:
        for op in PICK_AND_DELETE:  # the second is ours, and has the number of one of the training's
            host.link.commands.put(edit_command(session, op)).result(serving.PATIENCE_SECS)
        host.link.commands.put(undo_command(session)).result(serving.PATIENCE_SECS)
        assert host.snapshot().protection is protection


def test_taking_back_an_edit_of_the_training_makes_its_pixels_count_again() -> None:
    session, trained = serving.new_session(choose("cpu")), Bench(serving.ball(50))
    for op in PICK_AND_DELETE:
        trained.apply(session.do(trained, op))
    protection = Protection({2: Shield({0: np.zeros(9, np.uint8)})})
    with StandingHost(trained.model, labels=trained.labels, protection=protection) as host:
        before = host.snapshot()
        assert before.protection is protection and before.model.count < 50
        for back in (undo_command, redo_command, undo_command):
            host.link.commands.put(back(session)).result(serving.PATIENCE_SECS)
            assert host.snapshot().protection is None and host.snapshot().version > before.version
        assert host.snapshot().model.count == 50


def test_a_ticker_goes_on_after_a_failure_and_ends() -> None:
    failures, beats = [], []
    ticker = Ticker(failures.append)
    stop = ticker.every(0.01, lambda: beats.append(1))
    ticker.every(0.01, lambda: 1 / 0)
    ticker.loop.start()
    serving.wait_for(lambda: len(beats) > 3 and len(failures) > 3)
    stop()
    past = len(failures)
    serving.wait_for(lambda: len(failures) > past + 1)  # a beat that was under way is over
    count = len(beats)
    serving.wait_for(lambda: len(failures) > past + 8)
    ticker.loop.close()
    join_all([ticker.loop.thread], 5.0)
    assert len(beats) == count and not ticker.loop.thread.is_alive()


def serving_camera():
    from splat.viewer.picture.space import Space

    return Space().camera(wxyz=np.array([1.0, 0, 0, 0]), position=np.zeros(3), fov=1.0, width=8, height=8)
