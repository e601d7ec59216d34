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
PATIENCE_SECS = 30.0


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
        return [self.viewer.pages[number] for number in sorted(self.viewer.pages)]


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
    """The first true value of ``what()``; AssertionError when none comes."""
    end = time.monotonic() + secs
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {secs:g} s in vain{' for ' + why if why else ''}")


@contextmanager
def opened(browser: Any, served: Served, *, size: tuple[int, int] = SIZE) -> Iterator[tuple[Any, Any]]:
    """A new browser page on ``served`` that shows its first sharp picture, and our ``Page`` behind it."""
    known = set(served.viewer.pages)
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, device_scale_factor=1)
    try:
        page = context.new_page()
        # Where the browser is slow, viser would make its canvas, and so our picture, a little smaller.
        page.goto(f"{served.url}{'&' if '?' in served.url else '?'}fixedDpr=1", wait_until="commit")
        ours = wait_for(lambda: next((p for n, p in served.viewer.pages.items() if n not in known), None), why="a page")
        settled(ours)
        page.locator("canvas[data-engine]").wait_for(state="attached")
        yield page, ours
    finally:
        context.close()
        wait_for(lambda: set(served.viewer.pages) <= known, 5.0, why="the page to be gone")


def settled(ours: Any) -> Any:
    """Until the page stands at its first view (the second camera message) and shows it sharply; the frame."""
    start = np.asarray(ours.client._viser_server.initial_camera.position)
    wait_for(lambda: np.allclose(ours.client.camera.position, start, atol=1e-3 * max(1, abs(start).max())),
             why="the first view")  # fmt: skip
    return sharp(ours)


def sharp(ours: Any) -> Any:
    """The sharp frame of the view as it is now."""

    def found() -> Any:
        frame = ours.last
        if frame is None or frame.why == "moving" or frame.look is not ours.look:
            return None
        return frame if np.allclose(frame.camera.center_world, ours.camera().center_world) else None

    return wait_for(found, why="a sharp picture")


def pixels(page: Any) -> np.ndarray:  # [H,W,3] uint8
    """What the browser shows."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
