"""What moves a page's camera is not disturbed by what the browser says meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import serving
from pageless import HEIGHT, WIDTH, Pageless

from splat.viewer.panels.framing import reset


@pytest.fixture(scope="module")
def served() -> Iterator[serving.Served]:
    with serving.serve(serving.ball(20)) as found:
        yield found


def told(client: Pageless, ours: Any, move: Callable[[], None], monkeypatch: Any, **said: Any) -> dict[str, np.ndarray]:
    """What the browser is told to do by ``move``, by viser's names, while it says with each setting where it was."""
    found: dict[str, np.ndarray] = {}
    connection = ours.client._websock_connection
    send = connection.queue_message

    def queue_message(message: Any) -> None:
        send(message)
        name = type(message).__name__
        if not name.startswith("SetCamera") or message.initial:
            return
        value = getattr(message, "look_at", None) or getattr(message, "position", None) or message.fov
        found[name] = np.array(value)
        before = ours.client.camera._state
        client.camera(**said)
        serving.wait_for(lambda: ours.client.camera._state is not before, why="the browser's word")

    monkeypatch.setattr(connection, "queue_message", queue_message)
    move()
    return found


def elsewhere(ours: Any) -> Any:
    here = ours.camera()
    pose = np.array([[0, 0, 1, 0.5], [0, 1, 0, -0.2], [-1, 0, 0, 2.5], [0, 0, 0, 1]], float)
    return here.posed(pose)


def test_a_flight_ends_there_and_looks_that_way_whatever_the_browser_says_meanwhile(visit, monkeypatch) -> None:
    client, ours = visit
    there = elsewhere(ours)
    found = told(client, ours, lambda: ours.fly_to(there), monkeypatch, image_width=2 * WIDTH)
    position, look_at = found["SetCameraPositionMessage"], found["SetCameraLookAtMessage"]
    np.testing.assert_allclose(position, ours.desk.space.page(there.center_world), atol=1e-9)
    ahead = (look_at - position) / np.linalg.norm(look_at - position)
    np.testing.assert_allclose(ahead, there.world_from_camera[:3, 2], atol=1e-9)
    now = ours.camera()
    np.testing.assert_allclose(now.camera_from_world, there.camera_from_world, atol=1e-6)
    assert (now.width, now.height) == (2 * WIDTH, HEIGHT), "a window that grew meanwhile has grown"


def test_what_is_looked_at_is_as_far_as_it_was_asked_for_whatever_the_browser_says(visit, monkeypatch) -> None:
    client, ours = visit
    point = np.array([0.3, -0.1, 0.2])
    found = told(client, ours, lambda: ours.look_at(point, distance=1.5), monkeypatch)
    look_at = found["SetCameraLookAtMessage"]
    np.testing.assert_allclose(look_at, ours.desk.space.page(point), atol=1e-9)
    distance = np.linalg.norm(found["SetCameraPositionMessage"] - look_at)
    assert distance == pytest.approx(1.5 * ours.desk.space.scale)


def test_the_way_back_leads_to_the_first_view_whatever_the_browser_says(served, visit, monkeypatch) -> None:
    client, ours = visit
    start = served.viewer.server.viser.initial_camera
    found = told(client, ours, lambda: reset(ours), monkeypatch)
    np.testing.assert_allclose(found["SetCameraPositionMessage"], start.position, atol=1e-9)
    np.testing.assert_allclose(found["SetCameraLookAtMessage"], start.look_at, atol=1e-9)


def test_two_flights_at_once_do_not_mix(visit) -> None:
    _, ours = visit
    ours.fly_to(elsewhere(ours))
    inside: list[int] = []
    overlap: list[int] = []

    def slowly(camera: Any) -> None:
        inside.append(1)
        overlap.append(len(inside))
        camera.fov = camera.fov * 0.99
        threading.Event().wait(0.02)
        inside.pop()

    threads = [threading.Thread(target=ours.move_camera, args=(slowly,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlap == [1, 1, 1]
