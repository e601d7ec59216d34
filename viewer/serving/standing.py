"""An opened file behind a link: answers what a training would answer, without training."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from splat.edit.bench import Bench
from splat.edit.protection import Protection
from splat.errors import UserError
from splat.live.commands import Command, Edit, Pause, Resume, Stop
from splat.live.link import Link
from splat.live.snapshot import Snapshot
from splat.model.labels import Labels
from splat.model.splat_model import SplatModel
from splat.viewer.serving.loop import Loop, join_all

CLOSE_SECS = 60.0
"""The edit at hand is somebody's work, and its line in the log with it: it is not cut off."""
_log = logging.getLogger("splat.viewer")
NOTHING_TRAINS = "nothing trains here: an opened file can be looked at, edited and exported"


class StandingHost:
    """A thread that owns the rows. ``close`` ends it; ``link`` is what a viewer takes."""

    def __init__(
        self, model: SplatModel, *, labels: Labels | None = None, step: int = 0, link: Link | None = None,
        why: str | None = "an opened file", protection: Protection | None = None,
    ) -> None:  # fmt: skip
        """``model`` is taken over: nobody else may change it. ``link`` goes on with one whose training is over; ``why``
        is what ``Status.ended`` says (None: as it was). ``protection`` is what the training that made the rows left out
        of its photographs for edits by hand."""
        self.link = link or Link()
        self.bench = Bench(model, labels, step)
        self._protection = protection or Protection()
        self._own_marks: set[int] = set()
        """Numbers of edits done here, without a training that would have protected them."""
        self._version = time.monotonic_ns()  # above any that a training before us has used
        self._tell(step=step, **({} if why is None else {"ended": why}))
        self._loop = Loop("splat-standing", self._turn, self._failed)

    def start(self) -> StandingHost:
        self.link.snapshots.on_request = self.link.commands.ring
        self._loop.start()
        return self

    def close(self) -> None:
        self._loop.close()
        self.link.snapshots.on_request = None
        self.link.commands.ring()
        join_all([self._loop.thread], CLOSE_SECS)

    def __enter__(self) -> StandingHost:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _turn(self) -> None:
        if not self.link.snapshots.wanted:  # asked for before we listened
            self.link.commands.wait(None)
        while (command := self.link.commands.pop()) is not None:
            self._answer(command)
        if self.link.snapshots.wanted:
            self.link.snapshots.put(self.snapshot())

    def _failed(self, error: Exception) -> None:
        _log.error("the opened model failed", exc_info=error)

    def snapshot(self) -> Snapshot:
        """The rows as they are. Without a copy: an edit makes new tables and leaves the old ones as they were."""
        bench = self.bench
        model = SplatModel(
            bench.model.primitive, dict(bench.model.rows), bench.model.sh_degree, bench.model.filter2d,
            bench.model.filter3d,
        )  # fmt: skip
        return Snapshot(model, bench.labels, bench.step, self._version, self._protection or None)

    def _answer(self, command: Command) -> None:
        """A refused command answers with its exception."""
        if not command.reply.set_running_or_notify_cancel():
            return
        try:
            result = self._carried_out(command)
        except Exception as error:
            command.reply.set_exception(error)
        else:
            command.reply.set_result(result)

    def _carried_out(self, command: Command) -> Any:
        bench = self.bench
        if isinstance(command, Edit):
            edit = command.make(bench)
            mark, unmark = command.marks()
            if edit is not None:
                with command.applying(bench):
                    bench.apply(edit)
            unprotected = self._unprotected(mark, unmark)
            if edit is not None or unprotected:
                self._version += 1
                self._tell()
            return bench.step if command.result is None else command.result()
        if isinstance(command, Pause | Resume | Stop):
            return bench.step
        raise UserError(NOTHING_TRAINS)

    def _unprotected(self, mark: int | None, unmark: int | None) -> bool:
        """Whether ``unmark`` took back an edit of the training before us: then what it contradicted counts again. Our
        own edits may have the same numbers, and nothing was left out for them."""
        if mark is not None:
            self._own_marks.add(mark)
        if unmark is None or unmark in self._own_marks:
            self._own_marks.discard(unmark)
            return False
        if unmark not in self._protection.shields:
            return False
        self._protection = self._protection.without(unmark)
        return True

    def _tell(self, **changes: Any) -> None:
        news: Mapping[str, Any] = {"splats": self.bench.model.count, **changes}
        self.link.news.update(**news)
