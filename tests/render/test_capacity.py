"""Camera numbers on the host, and how many slots a view of the CUDA backend gets."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from splat.geometry.camera import Camera
from splat.render.capacity import FIRST_SLOTS_PER_SPLAT, CapacityBook
from splat.render.native_cuda import LEAST_SLOTS, MOST_SLOTS, roomy
from splat.render.types import CameraBatch


def camera(x: float = 0.0, width: int = 32) -> Camera:
    pose = np.eye(4)
    pose[0, 3] = x
    return Camera("a", pose, np.array([[20.0, 0, 16], [0, 20.0, 12], [0, 0, 1]]), width, 24)


def view(cameras: CameraBatch, count: int, *, is_cuda: bool = True) -> SimpleNamespace:
    return SimpleNamespace(
        cameras=cameras, index=0, width=cameras.width, height=cameras.height, inputs=SimpleNamespace(count=count),
        backend=SimpleNamespace(is_cuda=is_cuda),
    )  # fmt: skip


def test_the_host_keeps_what_it_sent_to_a_device() -> None:
    batch = CameraBatch.of(camera(0.1), device="meta")  # a device nothing can be read from
    poses, K = batch.on_host()
    assert poses.device.type == K.device.type == "cpu"
    assert poses[0, 0, 3] == np.float32(0.1)


def test_changed_poses_are_not_taken_from_the_host() -> None:
    batch = CameraBatch.of(camera())
    moved = replace(batch, camera_from_world=batch.camera_from_world + 1)
    assert moved.on_host()[0][0, 0, 3] == 1
    there = CameraBatch.of(camera())
    there = replace(there, made_from=(tuple(t.clone() for t in there.made_from[0]), there.made_from[1]))
    there.camera_from_world[0, 0, 3] = 5  # in place: the copy on the host is older
    assert there.on_host()[0][0, 0, 3] == 5


@pytest.mark.parametrize("slots", [0, 1, 1000, 123_456, 10**7, 1.9e9, 1e12])
def test_room_is_a_quarter_more_in_few_sizes(slots: float) -> None:
    given = roomy(slots)
    assert min(1.25 * slots, MOST_SLOTS) - 1 <= given <= max(1.5 * slots, 2 * LEAST_SLOTS)
    assert LEAST_SLOTS <= given < MOST_SLOTS
    sizes = {roomy(slots * (1 + step / 1000)) for step in range(100)}
    assert len(sizes) <= 3


def test_a_view_gets_what_its_last_visit_took_scaled_to_the_splats_there_are() -> None:
    book, here, there = CapacityBook(), CameraBatch.of(camera()), CameraBatch.of(camera(1.0))
    assert book.hint(view(here, 1000)) == roomy(FIRST_SLOTS_PER_SPLAT * 1000)
    book.learn(view(here, 1000), 50_000)
    assert book.hint(view(here, 1000)) == roomy(50_000)
    assert book.hint(view(here, 2000)) == roomy(100_000)
    assert book.hint(view(there, 1000)) == roomy(50_000), "another view starts from the largest of its size"
    book.learn(view(there, 1000), 8000)
    assert book.hint(view(there, 1000)) == roomy(8000)
    assert book.hint(view(CameraBatch.of(camera(0.0, width=64)), 1000)) == roomy(FIRST_SLOTS_PER_SPLAT * 1000)


def test_the_cpu_takes_the_largest_of_a_size() -> None:
    book, batch = CapacityBook(), CameraBatch.of(camera())
    assert book.hint(view(batch, 10, is_cuda=False)) == 1044
    book.learn(view(batch, 10, is_cuda=False), 5000)
    assert book.hint(view(batch, 10, is_cuda=False)) == 5000
