"""The viewer of one training or opened file: opens the port and makes a page for everybody who comes."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Mapping
from typing import Any

import viser

from splat.live.link import Link
from splat.model.splat_model import SplatModel
from splat.scene.types import Scene
from splat.viewer import panels
from splat.viewer.picture.look import Look
from splat.viewer.serving.arrival import chosen_space, start_pose
from splat.viewer.serving.desk import Desk
from splat.viewer.serving.loop import join_all
from splat.viewer.serving.page import Page, error_text
from splat.viewer.serving.security import DEFAULT_HOST, DEFAULT_PORT
from splat.viewer.serving.server import (
    SecureServer,
    bound_uploads,
    forgive_late_words,
    is_connected,
    open_server,
    tell_failures,
    tell_failures_in_order,
)

CLOSE_SECS = 2.0
"""Pages get this long to end, all together; a picture that is being drawn takes less."""
GOODBYE = "Nothing moves here any more."
GOODBYE_SECS = 2.0
"""Pages get this long to take the words, all together; one that answers does so at once."""
_log = logging.getLogger("splat.viewer")


class Viewer:
    """Not open before ``start``. ``desk`` and ``pages`` may be read from any thread."""

    def __init__(
        self,
        link: Link,
        *,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        token: str | None,
        scene: Scene | None = None,
        model: SplatModel | None = None,
        header: Mapping[str, Any] | None = None,
        background: tuple[float, float, float] = (0.0, 0.0, 0.0),
        **shared: Any,
    ) -> None:
        """``model`` tells where things are when there is no scene; it is read here and not kept. ``token`` None lets
        everybody in. ``background``: what new pages show behind the splats, unless a training tells its own.
        ``shared``: what else a ``Desk`` takes."""
        self._background = background
        self._host, self._port, self._token = host, port, token
        space = chosen_space(scene, model, header)
        self._start_pose = start_pose(scene, model, space, header)
        self.desk = Desk(link, scene=scene, header=header, space=space, **shared)
        self.pages: dict[int, Page] = {}
        self.server: SecureServer | None = None
        self._leaving: list[threading.Thread] = []
        """Of pages that are gone: they may still be at their last work."""
        self._lock = threading.Lock()
        self._closed = False

    def start(self) -> str:
        """Open the port; returns the address with the token. ViewerError when that cannot be."""
        self.server = open_server(self._host, self._port, self._token)
        server = self.server.viser
        server.scene.set_up_direction(self.desk.space.up)
        for name, value in self._start_pose.items():
            setattr(server.initial_camera, name, value)
        server.gui.configure_theme(control_width="medium", show_logo=False, show_share_button=False, dark_mode=True)
        tell_failures(server, self._failed)
        server.on_client_disconnect(self._left)
        server.on_client_connect(self._came)
        return self.server.url

    def close(self) -> None:
        """End all pages, free the port. May be called twice, and before ``start``."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            pages, self.pages = list(self.pages.values()), {}
        self._say_goodbye(pages)
        for page in pages:
            self._end(page)
        join_all(self._leaving, CLOSE_SECS)
        if self.server is not None:
            self.server.close()
        self.desk.close()

    def _say_goodbye(self, pages: list[Page]) -> None:
        """What is left of a page whose program is gone would look as if it hung."""
        how = f" 'splat view {self.desk.run_dir}' opens the run." if self.desk.run_dir is not None else ""
        telling = [threading.Thread(target=_told, args=(page, GOODBYE + how), daemon=True) for page in pages]
        for thread in telling:
            thread.start()
        join_all(telling, GOODBYE_SECS)

    def _came(self, client: viser.ClientHandle) -> None:
        """On one of viser's threads, while the page may leave again and the viewer may end."""
        if self._closed:
            return
        bound_uploads(client)
        forgive_late_words(client)
        tell_failures_in_order(client, self._failed)
        page = Page(client, self.desk, self._first_look())
        with self._lock:
            self.pages[client.client_id] = page
        try:
            build(page)
            page.start()
        except Exception as error:
            page.failed(error, "making the page")
        if self._closed or not is_connected(client):  # then nobody else ends it
            self._left(client)

    def _first_look(self) -> Look:
        """Before what the model was trained with, as it is now."""
        trained = (self.desk.status.settings or {}).get("background")  # None where it is random
        return Look(background=self._background if trained is None else tuple(map(float, trained)))

    def _failed(self, client: Any, error: Exception) -> None:
        """Of a callback; ``client`` None where nobody knows whose it was."""
        page = self.pages.get(getattr(client, "client_id", None))
        if page is not None:
            page.failed(error)
        elif client is None or is_connected(client):
            _log.error("the viewer failed", exc_info=error)
        else:
            _log.info("a page that is gone failed", exc_info=error)

    def _left(self, client: viser.ClientHandle) -> None:
        with self._lock:
            page = self.pages.pop(client.client_id, None)
        if page is not None:
            self._end(page)

    def _end(self, page: Page) -> None:
        page.close()
        with self._lock:
            self._leaving = [*(thread for thread in self._leaving if thread.is_alive()), *page.threads]


def _told(page: Page, goodbye: str) -> None:
    """On return the browser has taken the words, or does not answer."""
    try:
        page.client.add_notification("The program behind this page has ended", goodbye, color="gray")
        page.client.flush()
        page.client.local_storage.get_item("splat-goodbye", timeout=GOODBYE_SECS)
    except (TimeoutError, RuntimeError):  # slow, or gone
        return
    except Exception:
        _log.exception("a page could not be told of the end")


def build(page: Page) -> None:
    """All panels, in their order. One that fails leaves a line that says so, and the others stand."""
    for place in panels.PANELS:
        name, _, function = place.partition(":")
        try:
            getattr(importlib.import_module(f"splat.viewer.panels.{name}"), function)(page)
        except Exception as error:
            _log.exception("panel '%s' failed", name)
            page.client.gui.add_markdown(f"**panel '{name}' failed:** {error_text(error)}")
