"""A viewer to look at in a test: an opened model or a running training, and the browser page that shows it."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from splat.live.link import Link
from splat.model.gaussian import GaussianPrimitive
from splat.model.splat_model import SplatModel
from splat.render.registry import choose
from splat.scene.types import Scene

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "io"))

TOKEN = "a-token-of-this-test"
SIZE = (800, 450)
"""Of the browser's window, px: small enough for software WebGL, wide enough to act left of the controls."""
PATIENCE_SECS = 120.0
"""For what comes sooner or later; where a machine does ten things at once, later. No passing test waits so long."""
REST_SECS = 0.6
"""Without a new picture for so long, a page is at rest: longer than any of its pauses between two pictures."""
FRAMES = """() => new Promise(done => {
    let left = 4
    const next = () => left-- ? requestAnimationFrame(() => setTimeout(next)) : done()
    next()
})"""
"""Some turns of the browser's loop: what it was told is drawn, and hears the mouse and the keys."""
SAID = "() => new Promise(done => setTimeout(done, 80))"
"""Longer than viser's pause between two messages of controls (50 ms), on the browser's own clock."""


@dataclass(eq=False)
class Served:
    """An open viewer."""

    viewer: Any
    link: Link
    host: Any = None
    """The ``StandingHost`` behind it, where nothing trains."""

    @property
    def desk(self) -> Any:
        return self.viewer.desk

    @property
    def url(self) -> str:
        return self.viewer.server.url

    def pages(self) -> list[Any]:
        """Our side of every browser page, the oldest first."""
        return [page for _, page in sorted(known_pages(self).items())]


def known_pages(served: Served) -> dict[int, Any]:
    """As they are now: pages come and go on other threads."""
    return dict(served.viewer.pages)


def ball(count: int = 600, *, seed: int = 1, sh_degree: int = 1) -> SplatModel:
    """Coloured Gaussians within about two units of the origin."""
    random = torch.Generator().manual_seed(seed)
    rows = GaussianPrimitive(init_scale=1.0).start(
        torch.randn(count, 3, generator=random) * 0.7, torch.rand(count, 3, generator=random), sh_degree=sh_degree,
        generator=random,
    )  # fmt: skip
    rows["logit_opacities"] = rows["logit_opacities"] + 2.0
    return SplatModel(GaussianPrimitive(), rows, sh_degree)


@contextmanager
def serve(
    model: SplatModel, *, scene: Scene | None = None, run_dir: Path | None = None, token: str | None = TOKEN,
    rasterizer: Any = None, session: Any = None, **options: Any,
) -> Iterator[Served]:  # fmt: skip
    """``model`` opened in a viewer on a free port."""
    from splat.viewer.serving.app import Viewer
    from splat.viewer.serving.standing import StandingHost

    rasterizer = rasterizer or choose("cpu")
    with StandingHost(model) as host:
        viewer = Viewer(
            host.link, scene=scene, rasterizer=rasterizer, session=session or new_session(rasterizer), run_dir=run_dir,
            port=0, token=token, model=model, standing=True, **options,
        )  # fmt: skip
        try:
            viewer.start()
            yield Served(viewer, host.link, host)
        finally:
            viewer.close()


def new_session(rasterizer: Any) -> Any:
    try:
        from splat.edit.session import EditSession
    except ImportError:
        return None
    return EditSession(rasterizer=rasterizer)


def wait_for(what: Callable[[], Any], secs: float = PATIENCE_SECS, *, why: str = "") -> Any:
    """The first true value of ``what()``, which is asked once more when the time is over; AssertionError when none
    comes."""
    end, over = time.monotonic() + secs, False
    while not over:
        over = time.monotonic() >= end
        if value := what():
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {secs:g} s in vain{' for ' + why if why else ''}")


@contextmanager
def opened(browser: Any, served: Served, *, size: tuple[int, int] = SIZE) -> Iterator[tuple[Any, Any]]:
    """A new browser page on ``served`` that shows its first sharp picture, and our ``Page`` behind it."""
    known = set(known_pages(served))
    context = new_context(browser, size)
    try:
        page = context.new_page()
        # Where the browser is slow, viser would make its canvas, and so our picture, a little smaller.
        page.goto(f"{served.url}{'&' if '?' in served.url else '?'}fixedDpr=1", wait_until="commit")
        ours = wait_for(lambda: next((p for n, p in known_pages(served).items() if n not in known), None), why="a page")
        settled(ours)
        page.locator("canvas[data-engine]").wait_for(state="attached")
        heard(ours, page)
        sharp(ours)
        yield page, ours
    finally:
        context.close()
        wait_for(lambda: set(known_pages(served)) <= known, why="the page to be gone")


def new_context(browser: Any, size: tuple[int, int] = SIZE) -> Any:
    """A browser of its own, with our patience."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, device_scale_factor=1)
    context.set_default_timeout(1000 * PATIENCE_SECS)
    return context


def heard(ours: Any, page: Any = None) -> None:
    """Until the browser has taken what was sent to it before, and we what it sent before; with its ``page`` also until
    that is drawn and hears the mouse and the keys."""
    ours.client.local_storage.get_item("test", timeout=PATIENCE_SECS)
    if page is not None:
        page.evaluate(FRAMES)


def said(page: Any) -> None:
    """Until the browser has sent what a control was set to. All controls share one sender that rests for 50 ms between
    two messages and keeps only the newest of those that wait: the next action before that would take the place of this
    one."""
    page.evaluate(SAID)


def settled(ours: Any) -> Any:
    """Until the page stands at its first view (the second camera message) and shows it sharply; the frame."""
    start = np.asarray(ours.client._viser_server.initial_camera.position)
    wait_for(lambda: np.allclose(ours.client.camera.position, start, atol=1e-3 * max(1, abs(start).max())),
             why="the first view")  # fmt: skip
    return sharp(ours)


def flown(ours: Any, camera: Any) -> None:
    """Take the place of ``camera``. On return the browser is there too, and nothing it said on the way is left to come:
    such a word would take us back."""
    ours.fly_to(camera)
    for _ in range(2):
        heard(ours)
        wait_for(lambda: np.allclose(ours.camera().center_world, camera.center_world, atol=1e-3), why="the view")


def sharp(ours: Any) -> Any:
    """The sharp frame of the view as we know it now. After a move in the browser wait for that first."""

    def found() -> Any:
        frame, here = ours.last, ours.camera()
        if frame is None or frame.why == "moving" or frame.look is not ours.look:
            return None
        # What we tell a browser comes back a little rounded, which is no reason to draw again.
        same = np.allclose(frame.camera.camera_from_world, here.camera_from_world, atol=1e-4)
        return frame if same and frame.width == here.width else None

    return wait_for(found, why="a sharp picture")


def resting(ours: Any) -> Any:
    """The last frame, once no other has come for a while."""

    def stands() -> Any:
        frame, end = sharp(ours), time.monotonic() + REST_SECS
        while time.monotonic() < end:
            if ours.last is not frame:
                return None
            time.sleep(0.02)
        return frame

    return wait_for(stands, why="pictures to end")


def nodes(ours: Any, under: str = "/splat/") -> dict[str, Any]:
    """What stands in a page's picture, by name. A copy, because threads of the page add and take away meanwhile; a node
    that is new may be without its pose and its picture yet."""
    with ours.client.scene._node_lifecycle_lock:
        known = dict(ours.client.scene._handle_from_node_name)
    return {name: handle for name, handle in known.items() if name.startswith(under)}


def node(ours: Any, name: str) -> Any:
    """A node, once it stands; viser gives it its pose and its picture after that."""
    return wait_for(lambda: nodes(ours).get(name), why=name)


def drawn_on(handle: Any) -> Any:
    """The picture on a node; None where there is none yet."""
    return getattr(handle, "image", None)


def pixels(page: Any) -> np.ndarray:  # [H,W,3] uint8
    """What the browser shows."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
