"""Pages that come, misbehave and go at any moment: nothing of them stays, nobody else hears of it."""

from __future__ import annotations

import gc
import logging
import math
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import serving
import torch
from pageless import HEIGHT, WIDTH, Pageless, newcomer, visited

from splat.live.commands import Edit
from splat.live.link import Link
from splat.live.snapshot import Snapshot
from splat.model.labels import Labels
from splat.model.row_edit import RowEdit
from splat.viewer.picture.draw import draw
from splat.viewer.serving import app, worker
from splat.viewer.serving.desk import Desk
from splat.viewer.serving.jobs import Jobs
from splat.viewer.serving.loop import Loop, join_all
from splat.viewer.serving.sight import MOST_PIXELS, MOST_SIDE_PX, canvas_size

NAN, INF = math.nan, math.inf


@pytest.fixture(scope="module")
def served() -> Iterator[serving.Served]:
    with serving.serve(serving.ball(60)) as found:
        yield found


def drawn(client: Pageless, ours: Any) -> int:
    """Its pictures so far, once there is a sharp one."""
    serving.wait_for(lambda: client.pictures and ours.last is not None and ours.last.why != "moving", why="a picture")
    return client.pictures


# what a page says ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "view",
    [
        {"position": (NAN, 0.0, 0.0)}, {"position": (0.0, INF, 0.0)}, {"position": (0.0, 0.0, 1e30)},
        {"wxyz": (NAN, 0.0, 0.0, 0.0)}, {"wxyz": (0.0, 0.0, 0.0, 0.0)}, {"fov": NAN}, {"position": (1.0, 2.0)},
        {"wxyz": (1.0, 0.0, 0.0)},
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*does not match annotation")  # viser says so and goes on
def test_a_view_that_is_none_is_refused_and_the_next_one_drawn(served, visit, view: dict[str, Any], caplog) -> None:
    client, ours = visit
    drawn(client, ours)
    client.camera(**view)
    serving.wait_for(lambda: any("is no view" in note for note in client.notes), why="the refusal")
    client.camera(position=(0.0, 0.0, -5.0))
    serving.wait_for(lambda: abs(ours.last.camera.center_world[2] * served.desk.space.scale + 5) < 1e-6, why="a view")
    assert not caplog.records


@pytest.mark.parametrize("fov", [0.0, -1.0, math.pi, 1e9])
def test_any_field_of_view_gives_a_picture(visit, fov: float, caplog) -> None:
    client, ours = visit
    before = drawn(client, ours)
    client.camera(fov=fov)
    serving.wait_for(lambda: client.pictures > before, why="a picture")
    assert torch.isfinite(torch.from_numpy(ours.last.camera.K)).all() and not client.notes and not caplog.records


@pytest.mark.parametrize(
    ("window", "picture"),
    [
        ((0, 0), (1, 1)), ((-5, 300), (1, 300)), ((800, 600), (800, 600)), ((7680, 4320), (2108, 1186)),
        ((10**9, 1), (MOST_SIDE_PX, 1)), ((1, 10**200), (1, MOST_SIDE_PX)), ((10**9, 10**9), (1581, 1581)),
    ],
)  # fmt: skip
def test_a_picture_has_bounds_whatever_the_window(window: tuple[int, int], picture: tuple[int, int]) -> None:
    assert canvas_size(*window) == picture
    assert picture[0] * picture[1] <= MOST_PIXELS * 1.001


def test_windows_without_a_size_and_without_an_end_are_drawn(visit) -> None:
    client, ours = visit
    drawn(client, ours)
    for width, height in ((0, 0), (2**31, 1)):
        client.camera(image_width=width, image_height=height)
        wanted = canvas_size(width, height)
        serving.wait_for(lambda wanted=wanted: (ours.last.width, ours.last.height) == wanted, why="a picture")
    assert ours.fov_around(ours.camera()) > 0 and not client.notes


def test_the_same_view_told_again_is_not_drawn_again(visit) -> None:
    """A browser tells a movement first with the place that it comes from."""
    client, ours = visit
    drawn(client, ours)
    serving.wait_for(lambda: ours.look.sh_degree is not None, why="the panels to know the model")  # draws once more
    event, events = ours._worker.event, []
    ours._worker.event = lambda: (events.append(1), event())
    client.camera()
    client.camera(near=0.5)
    heard(ours)
    assert not events
    client.camera(fov=0.8)
    serving.wait_for(lambda: ours.last.camera.focal_px[1] == pytest.approx(HEIGHT / 2 / math.tan(0.4)))
    client.camera(fov=0.8)
    heard(ours)
    assert len(events) == 1
    client.camera(fov=0.8, image_width=2 * WIDTH)
    serving.wait_for(lambda: ours.last.width == 2 * WIDTH, why="a picture of the new size")
    assert len(events) == 2


def heard(ours: Any) -> None:
    """Until all that the page said before has been taken in."""
    ours.client.local_storage.get_item("test", timeout=serving.PATIENCE_SECS)


@pytest.mark.parametrize("garbage", [b"", b"\x00", b"\xc1garbage", b"\x81\xa4type\xa7NoSuch1", "text"])
def test_garbage_ends_one_connection_alone(served, visit, garbage: bytes | str) -> None:
    client, ours = visit
    bad = Pageless(served)
    bad.socket.send(garbage)
    bad._thread.join(serving.PATIENCE_SECS)
    assert not bad._thread.is_alive(), "the server hung up"
    before = drawn(client, ours)
    ours.redraw()
    serving.wait_for(lambda: client.pictures > before, why="a picture of the other page")


def test_a_callback_that_fails_on_the_servers_own_thread_is_told_on_the_page(visit, caplog) -> None:
    client, ours = visit
    drawn(client, ours)

    async def broken(camera: Any) -> None:
        raise RuntimeError("the drag fell down")

    ours.client.camera.on_update(broken)
    client.camera(fov=0.7)
    serving.wait_for(lambda: any("the drag fell down" in note for note in client.notes), why="words on the page")
    assert "the drag fell down" in caplog.text
    serving.wait_for(lambda: ours.last.camera.focal_px[1] == pytest.approx(HEIGHT / 2 / math.tan(0.35)))


def test_the_last_words_arrive_however_busy_the_server_is() -> None:
    with serving.serve(serving.ball(5)) as served, visited(served) as (client, ours):
        serving.resting(ours)
        served.viewer.server.viser._event_loop.call_soon_threadsafe(time.sleep, 0.7)
        served.viewer.close()
        serving.wait_for(lambda: any("has ended" in note for note in client.notes), 5.0, why="the words")


# leaving -------------------------------------------------------------------------------------------------------------


def test_nothing_of_a_page_that_left_stays(served) -> None:
    with visited(served) as (client, ours):
        drawn(client, ours)
        known = weakref.ref(ours)
        snapshot = weakref.ref(served.desk.snapshot)
        threads = ours.threads
        assert len(threads) >= 2
        del ours
    join_all(threads, serving.PATIENCE_SECS)
    del threads

    def gone() -> bool:
        gc.collect()
        return known() is None and snapshot() is None

    serving.wait_for(gone, why="the page and its snapshot to be freed")
    assert not served.desk._listeners and served.desk.snapshot is None


def test_a_page_that_leaves_while_it_is_drawn_leaves_in_silence(served, monkeypatch, caplog, recwarn) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(*args: Any, **options: Any) -> Any:
        begun.set()
        go_on.wait(serving.PATIENCE_SECS)
        return draw(*args, **options)

    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(worker, "draw", slow)
    with visited(served) as (_, ours):
        assert begun.wait(serving.PATIENCE_SECS)
        threads = ours.threads
    go_on.set()
    join_all(threads, serving.PATIENCE_SECS)
    assert not any(thread.is_alive() for thread in threads)
    ours.failed(RuntimeError("the client left"))
    assert not caplog.records and not recwarn.list


def test_a_page_that_leaves_stops_its_job_and_can_start_none(served) -> None:
    heard: list[str] = []

    def endless(job: Any) -> None:
        while True:
            job.progress(0.5)

    with visited(served) as (_, ours):
        jobs = Jobs(ours)
        jobs.start("writing", endless, lambda share, text: None, lambda: heard.append("done"))
        threads = ours.threads
        assert any(thread.name == "splat-viewer-job" for thread in threads)
    join_all(threads, serving.PATIENCE_SECS)
    assert not jobs.is_running and not heard
    jobs.start("writing", lambda job: heard.append("worked"), lambda share, text: None)
    assert not jobs.is_running and not heard


def test_a_page_that_leaves_while_it_sends_a_file_leaves_no_part_of_it(served) -> None:
    with visited(served) as (client, ours):
        button = ours.client.gui.add_upload_button("Load it")
        client.send("FileTransferStartUpload", source_component_uuid=button._impl.uuid, transfer_uuid="one",
                    filename="a.json", mime_type="x", part_count=2, size_bytes=8)  # fmt: skip
        client.send("FileTransferPart", source_component_uuid=button._impl.uuid, transfer_uuid="one", part_index=0,
                    content=b"1234")  # fmt: skip
        states = ours.client.gui._current_file_upload_states
        serving.wait_for(lambda: "one" in states and states["one"]["parts"], why="the first part")
    assert not states


def test_a_page_that_leaves_while_it_is_built_is_closed(served, monkeypatch) -> None:
    building, go_on = threading.Event(), threading.Event()
    pages: list[Any] = []

    def slowly(page: Any) -> None:
        pages.append(page)
        building.set()
        go_on.wait(serving.PATIENCE_SECS)

    monkeypatch.setattr(app, "build", slowly)
    client = Pageless(served)
    client.camera()
    assert building.wait(serving.PATIENCE_SECS)
    client.close()
    serving.wait_for(lambda: pages[0].is_closed, why="the page to be closed")
    go_on.set()
    serving.wait_for(lambda: not pages[0].threads and not served.desk._listeners)
    assert pages[0] not in served.viewer.pages.values()


def test_a_page_that_comes_while_the_viewer_ends_is_closed(monkeypatch) -> None:
    building, go_on = threading.Event(), threading.Event()
    pages: list[Any] = []

    def slowly(page: Any) -> None:
        pages.append(page)
        building.set()
        go_on.wait(serving.PATIENCE_SECS)

    monkeypatch.setattr(app, "build", slowly)
    with serving.serve(serving.ball(5)) as served:
        client = Pageless(served)
        client.camera()
        assert building.wait(serving.PATIENCE_SECS)
    go_on.set()
    client.close()
    serving.wait_for(lambda: pages[0].is_closed and not pages[0].threads and not served.viewer.pages)


def test_a_page_that_cannot_be_made_is_told_so(served, monkeypatch, caplog) -> None:
    def broken(page: Any) -> None:
        raise RuntimeError("no panels today")

    monkeypatch.setattr(app, "build", broken)
    client = Pageless(served)
    try:
        client.camera()
        serving.wait_for(lambda: any("no panels today" in note for note in client.notes), why="words on the page")
    finally:
        client.close()
    serving.wait_for(lambda: not served.viewer.pages)


# pages that do not answer --------------------------------------------------------------------------------------------


def test_a_page_that_answers_nothing_keeps_no_old_model(served, monkeypatch) -> None:
    """It waits for a round trip; the snapshots it showed go all the same."""
    monkeypatch.setattr(worker, "ACKNOWLEDGED_IN_SECS", 20.0)
    known = set(served.viewer.pages)
    client = Pageless(served)
    client._hear = lambda message: None
    try:
        client.camera()
        ours = serving.wait_for(newcomer(served, known), why="a page")
        serving.wait_for(lambda: ours.last is not None, why="its picture")
        first = weakref.ref(served.desk.snapshot)
        mask = torch.ones(served.host.bench.model.count, dtype=torch.bool)
        served.desk.command(Edit(lambda rows: RowEdit.keep(mask)))
        serving.wait_for(lambda: (gc.collect(), first() is None)[1], why="the first snapshot to be freed")
        assert ours.last.number == 1, "it waits still"
    finally:
        client.close()
    serving.wait_for(lambda: set(served.viewer.pages) <= known)


def test_a_page_that_answers_nothing_disturbs_no_other(served, visit, monkeypatch) -> None:
    monkeypatch.setattr(worker, "ACKNOWLEDGED_IN_SECS", 20.0)
    client, ours = visit
    mute = Pageless(served)
    mute._hear = lambda message: None
    mute.camera()
    try:
        serving.wait_for(lambda: len(served.viewer.pages) == 2 and all(page.last for page in served.pages()))
        for _ in range(3):
            before = drawn(client, ours)
            ours.redraw()
            serving.wait_for(lambda before=before: client.pictures > before, why="a picture of the other page")
    finally:
        mute.close()
        serving.wait_for(lambda: len(served.viewer.pages) == 1)


# what all pages stand on ---------------------------------------------------------------------------------------------


def test_no_snapshot_is_missed_between_the_desk_and_its_link() -> None:
    """Asked for and put at every moment of the desk's turn; the last one has to arrive all the same."""
    link, model = Link(), serving.ball(1)
    labels = Labels.start(1)
    desk = Desk(link, rasterizer=None)
    seen: list[int] = []
    desk.on_snapshot(lambda snapshot: seen.append(snapshot.version))
    try:
        for version in range(300):
            desk.refresh()
            link.snapshots.put(Snapshot(model, labels, version, version))
            if version % 20 == 0:
                serving.wait_for(lambda version=version: seen and seen[-1] == version, why="the newest")
        serving.wait_for(lambda: seen[-1] == 299, why="the last")
        assert seen == sorted(seen)
    finally:
        desk.close()


def test_the_last_model_of_a_training_that_is_over_is_kept_for_the_next_page() -> None:
    link = Link()
    desk = Desk(link, rasterizer=None)
    try:
        leave = desk.on_snapshot(lambda snapshot: None)
        link.snapshots.put(Snapshot(serving.ball(1), Labels.start(1), 5, 5))
        serving.wait_for(lambda: desk.snapshot is not None)
        link.news.update(ended="done")
        leave()
        assert desk.snapshot.step == 5
        link.news.update(ended=None)
        desk.on_snapshot(lambda snapshot: None)()
        assert desk.snapshot is None
    finally:
        desk.close()


def test_a_desk_ends_while_nobody_asks_it_anything() -> None:
    desk = Desk(Link(), rasterizer=None)
    desk.close()
    assert not desk._loop.thread.is_alive()


def test_a_loop_rests_after_a_failure_and_goes_on_until_it_is_closed() -> None:
    failures: list[str] = []

    def turn() -> None:
        raise ValueError("again")

    loop = Loop("splat-viewer-test", turn, lambda error: failures.append(str(error)))
    loop.start()
    serving.wait_for(lambda: len(failures) >= 2)
    loop.close()
    join_all([loop.thread], 5.0)
    assert not loop.thread.is_alive() and set(failures) == {"again"}


def test_a_loop_that_was_closed_does_not_start() -> None:
    loop = Loop("splat-viewer-test", lambda: None, lambda error: None)
    loop.close()
    loop.start()
    join_all([loop.thread], 1.0)
    assert loop.thread.ident is None


def test_the_camera_of_a_first_visit_is_that_of_the_page(visit) -> None:
    client, ours = visit
    drawn(client, ours)
    assert (ours.last.width, ours.last.height) == (WIDTH, HEIGHT)
