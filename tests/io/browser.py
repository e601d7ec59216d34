"""A real browser for tests: headless Chromium with a software WebGL 2, driven by playwright."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FLAGS = (
    "--headless=new", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist", "--force-color-profile=srgb", "--hide-scrollbars",
)  # fmt: skip
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_SECS = 240.0


def chromium() -> str:
    """Where the browser is (``SPLAT_CHROMIUM``, or by the usual names); skips the test where something is missing."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed")
    found = os.environ.get("SPLAT_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(CHROMIUM)} is installed, and SPLAT_CHROMIUM names none")
    return found


@contextmanager
def browser(*flags: str) -> Iterator[Any]:
    """A browser that reaches no network; ``flags`` join the command line."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), headless=True, args=[*FLAGS, *flags])
        try:
            yield opened
        finally:
            opened.close()


class Page:
    """One exported file in a window of ``size`` px, and what it did."""

    def __init__(
        self, opened: Any, file: Path, *, size: tuple[int, int], fragment: str = "", before: str | None = None
    ) -> None:
        """``fragment`` follows # in the address; ``before`` is a script that runs before any of the page's."""
        self.context = opened.new_context(
            viewport={"width": size[0], "height": size[1]}, device_scale_factor=1, offline=True
        )
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.problems: list[str] = []
        if before is not None:
            self.page.add_init_script(before)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", self._heard)
        self.page.goto(f"{file.resolve().as_uri()}#{fragment}", wait_until="commit")

    def _heard(self, message: Any) -> None:
        if message.type == "error":
            self.problems.append(message.text)

    def wait(self) -> str:
        """Until the page is done: "drawn" or "failed"."""
        done = self.page.locator("html:not([data-state=loading])")  # the page's policy forbids evaluated conditions
        done.wait_for(state="attached", timeout=1000 * PATIENCE_SECS)
        return str(done.get_attribute("data-state"))

    def picture(self) -> np.ndarray:  # [H,W,3] in 0..1
        """What the window shows."""
        from PIL import Image

        image = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        return np.asarray(image, np.float32) / 255

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def close(self) -> None:
        self.context.close()
