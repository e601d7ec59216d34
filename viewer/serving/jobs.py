"""Long work of a page, in a thread of its own: one at a time, with progress and a way to stop it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from splat.errors import UserError

if TYPE_CHECKING:
    from splat.viewer.serving.desk import Desk
    from splat.viewer.serving.page import Page

_NAP_SECS = 0.05


class JobStopped(Exception):
    """Raised inside a job that was asked to end."""


class Job:
    """What a job is given: it tells how far it is, and hears when to stop."""

    def __init__(self, tell: Callable[[float, str], None]) -> None:
        self._tell = tell
        self._stopped = threading.Event()

    def progress(self, share: float, text: str = "") -> None:
        """``share`` 0..1 of the work is done. JobStopped when it shall end."""
        if self._stopped.is_set():
            raise JobStopped
        self._tell(share, text)

    def stop(self) -> None:
        self._stopped.set()

    def leave_time(self, desk: Desk, secs: float) -> None:
        """After work of ``secs``: let a training have its share of the time. JobStopped as ``progress``."""
        if not desk.is_training:
            return
        desk.share.took(secs)
        until = time.monotonic() + desk.share.wait_secs(idle=False)
        while (left := until - time.monotonic()) > 0 and desk.is_training:
            if self._stopped.wait(min(left, _NAP_SECS)):
                raise JobStopped


class Jobs:
    """The jobs of one panel."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._lock = threading.Lock()
        self._job: Job | None = None
        page.add_close(self.stop)

    @property
    def is_running(self) -> bool:
        return self._job is not None

    def start(
        self, doing: str, work: Callable[[Job], None], tell: Callable[[float, str], None],
        done: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Run ``work``; ``tell(share, text)`` hears of its progress, ``done()`` of its end, whatever that was.
        UserError while another one runs; nothing on a page that is gone."""
        job = Job(tell)
        with self._lock:
            if self._page.is_closed:
                return
            if self._job is not None:
                raise UserError(f"{doing}: wait until what is being written here is done, or stop it")
            self._job = job

        def run() -> None:
            try:
                work(job)
            except JobStopped:
                pass
            except Exception as error:
                self._page.failed(error, doing)
            finally:
                self._job = None
                if not self._page.is_closed:
                    self._page.guarded(done)()

        thread = threading.Thread(target=run, name="splat-viewer-job", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread left
            self._job = None
            raise
        self._page.adopt(thread)

    def stop(self) -> None:
        """Ask the running job to end."""
        with self._lock:
            if self._job is not None:
                self._job.stop()
