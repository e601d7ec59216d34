"""Fixtures: a viewer and a browser per module, a page per test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import serving

pytest.importorskip("viser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; skips by name where it is missing."""
    from browser import browser as launched

    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def served() -> Iterator[serving.Served]:
    """A ball of 600 splats, opened."""
    with serving.serve(serving.ball()) as found:
        yield found


@pytest.fixture
def opened(browser: Any, served: serving.Served) -> Iterator[tuple[Any, Any]]:
    with serving.opened(browser, served) as both:
        yield both


@pytest.fixture
def page(opened: tuple[Any, Any]) -> Any:
    """Playwright's page on ``served``, at its first view and sharp."""
    return opened[0]


@pytest.fixture
def shown(opened: tuple[Any, Any]) -> Any:
    """Our ``Page`` behind ``page``."""
    return opened[1]


@pytest.fixture
def visit(served: serving.Served) -> Iterator[tuple[Any, Any]]:
    """A page on ``served`` without a browser, and our ``Page`` behind it."""
    from pageless import visited

    with visited(served) as both:
        yield both


@pytest.fixture(scope="module")
def trained_live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving.Served]:
    """A tiny training that goes on until the module is done, with a viewer on it."""
    from live_training import live_training

    with live_training(tmp_path_factory.mktemp("live")) as found:
        yield found


@pytest.fixture(autouse=True)
def no_thread_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test's own viewer ends all of its threads; those of module fixtures live on."""
    before = set(threading.enumerate())
    yield
    if {"served", "trained_live", "page", "shown", "opened"} & set(request.fixturenames):
        return

    def ended() -> bool:
        new = set(threading.enumerate()) - before
        return not any(thread.name.startswith("splat-viewer-") for thread in new)

    serving.wait_for(ended, why="the viewer's threads to end")  # what draws may be at its last picture
