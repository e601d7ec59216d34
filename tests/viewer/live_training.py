"""A real training that runs in a thread of the test, with a viewer on its link."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import serving
from helpers import make_tiny_scene

from splat.config.assemble import gather, prepare
from splat.config.build import build_config, nested
from splat.config.presets import read_preset
from splat.live.commands import Pause, Resume, Stop
from splat.live.link import Link
from splat.render.registry import choose
from splat.train.trainer import drive

SETTINGS = {
    "steps": 100_000, "steps_per_view": None, "max_splats": 400, "output.report": False, "output.first_render": False,
    "render.device": "cpu", "scene.test_every": 6,
}  # fmt: skip


@contextmanager
def live_training(folder: Path, *, paused: bool = False, **settings: Any) -> Iterator[serving.Served]:
    """``host`` of what is yielded is the ``Run``; its training ends with the context, however far it got. ``paused``:
    it waits for ``Resume`` before its first step."""
    from splat.viewer.serving.app import Viewer

    scene = settings.pop("capture", None) or make_tiny_scene(folder / "scene", width=64, height=48)
    told = nested({**SETTINGS, **settings, "capture": str(scene)})
    config = build_config([("preset cpu", read_preset("cpu")), ("test", told)])
    parts = gather(config, lambda _: None)
    run_dir = folder / "run"
    run_dir.mkdir()
    link = Link()
    if paused:
        link.commands.put(Pause())
    run = prepare(parts, run_dir, stream=io.StringIO(), say=lambda _: None, version="test", link=link)
    ended: list[Any] = []
    thread = threading.Thread(target=lambda: ended.append(drive(run.trainer, run.sinks)), daemon=True)
    rasterizer = choose("cpu")
    viewer = Viewer(
        link, scene=parts.scene, rasterizer=rasterizer, session=serving.new_session(rasterizer), run_dir=run_dir,
        port=0, token=serving.TOKEN,
    )  # fmt: skip
    thread.start()
    try:
        viewer.start()
        yield serving.Served(viewer, link, run)
    finally:
        viewer.close()
        link.commands.put(Resume())
        link.commands.put(Stop(how="interrupt"))
        thread.join(serving.PATIENCE_SECS)
        parts.close()
    assert ended and not thread.is_alive(), "the training went down"
