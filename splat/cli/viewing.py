"""The viewer from the command line: beside a training, and in front of an opened file."""

from __future__ import annotations

import itertools
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from splat.cli.viewer_flags import ViewerOptions
from splat.config.assemble import Parts, fixed_background
from splat.config.compressing import drawn_model
from splat.config.devices import choose_device
from splat.edit.marks import EDIT_LOG
from splat.errors import UserError
from splat.live.link import Link

if TYPE_CHECKING:
    from splat.viewer.serving.app import Viewer

START_SECS = 10.0
"""A viewer that is not open after this long is not waited for when the training ends."""
Say = Callable[[str], None]


def tell_address(viewer: Viewer, say: Say) -> None:
    """Where it is, and how to get there from another machine."""
    server = viewer.server
    assert server is not None
    if server.asked_port not in (0, server.port):
        say(f"port {server.asked_port} is taken, so the viewer is on {server.port}")
    say(f"viewer: {server.url}")
    if server.tunnel is None:
        who = "has this address" if server.token else "reaches this machine (--no-token)"
        say(f"warning: everybody who {who} can see and edit; nothing on the way is encrypted")
    else:
        say(f"from another machine: {server.tunnel}, then open the same address there")


class TrainingViewer:
    """The viewer of a training, opened in the background so that the first step does not wait for it. Whatever goes
    wrong with it is one line; the training goes on."""

    def __init__(self, options: ViewerOptions | None, parts: Parts, run_dir: Path, link: Link, say: Say) -> None:
        """``options`` None: there is none."""
        self._options, self._parts, self._run_dir, self._link, self._say = options, parts, run_dir, link, say
        self._viewer: Viewer | None = None
        self._ended = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._open, name="splat-viewer-start", daemon=True)

    def __enter__(self) -> TrainingViewer:
        if self._options is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._ended = True
        if self._thread.is_alive():
            self._thread.join(START_SECS)
        if self._viewer is not None:
            _quietly(self._viewer.close, self._say)

    def keep(self) -> int:
        """After the training: go on serving its last state until a signal; the exit code."""
        from splat.viewer.serving.standing import StandingHost

        if self._options is None:
            return 0
        self._thread.join(START_SECS)
        if self._viewer is None:
            return 0
        state, config = self._parts.state, self._parts.config
        model = drawn_model(config.compressor, state).detached()
        self._viewer.desk.standing = True
        with (
            EndSignal() as end,
            StandingHost(
                model, labels=state.labels, step=state.step, link=self._link, why=None, protection=state.protection
            ),
        ):
            self._viewer.desk.refresh()
            self._say("the viewer stays open; Ctrl-C ends it")
            return end.wait()

    def _open(self) -> None:
        try:
            self._made()
        except Exception as error:  # an ImportError, a taken port, a viser that we do not know
            self._say(f"warning: no viewer ({' '.join(str(error).split()) or type(error).__name__}); training goes on")

    def _made(self) -> None:
        from splat.edit.session import EditSession
        from splat.viewer.serving.app import Viewer

        assert self._options is not None
        parts, options = self._parts, self._options
        # Its own: what a rasterizer remembers of its calls is the training's affair.
        _, rasterizer = choose_device(parts.config.render, lambda _: None)
        session = EditSession(rasterizer=rasterizer, log=self._run_dir / EDIT_LOG)
        viewer = Viewer(
            self._link, scene=parts.scene, rasterizer=rasterizer, device=parts.device, session=session,
            run_dir=self._run_dir, host=options.host, port=options.port, token=options.token(), share=options.share,
            background=fixed_background(parts.config),
        )  # fmt: skip
        try:
            viewer.start()
        except BaseException:
            viewer.close()
            raise
        with self._lock:
            late = self._ended
            self._viewer = None if late else viewer
        if late:
            viewer.close()
        else:
            tell_address(viewer, self._say)


def cut_log(log: Path, done: int, say: Say, held: Sequence[str] | None = None) -> None:
    """Keep the first ``done`` operations: a run that goes on from a checkpoint has forgotten the later ones. They are
    somebody's work, so the whole log is kept beside, under a name that is said. ``held``: the lines that the checkpoint
    says it holds, where it does; they count, for what was undone after it is in its rows again."""
    from splat.edit.json_ops import log_lines, read_log, write_lines, write_log

    if held and log_lines(log, done) != list(held):
        aside = _free_name(log) if log.exists() else None
        if aside is not None:
            log.rename(aside)
        write_lines(log, held)
        kept = "" if aside is None else f"; the log as it was: {aside}"
        say(f"warning: the log of edits did not tell the {done} edits that the checkpoint holds; it does now{kept}")
        return
    if not log.exists():
        return
    try:
        ops, what = read_log(log), ""
    except UserError as error:
        ops, what = [], f"{error}; "
    if len(ops) <= done and not what:
        return
    aside = _free_name(log)
    log.rename(aside)
    what = what or f"{len(ops) - done} of {len(ops)} edits came after the checkpoint and are not in this run; "
    say(f"warning: {what}the log as it was: {aside}")
    if done and ops:
        write_log(log, ops[:done])


def _free_name(log: Path) -> Path:
    """``edits_forgotten.json`` beside ``log``, or one with a number that no file has."""
    ends = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
    return next(path for end in ends if not (path := log.with_name(f"{log.stem}_forgotten{end}.json")).exists())


class EndSignal:
    """A context that Ctrl-C and SIGTERM do not end but fill; for the main thread."""

    def __init__(self) -> None:
        self._came: queue.SimpleQueue[None] = queue.SimpleQueue()  # the one that a signal handler may put to
        self._code = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> EndSignal:
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wait(self) -> int:
        """Until one came; the exit code: 0 for Ctrl-C, which is the way to end a viewer, 143 for SIGTERM."""
        self._came.get()
        return self._code

    def _handle(self, number: int, frame: Any) -> None:
        self._code = 0 if number == signal.SIGINT else 128 + number
        self._came.put(None)


def _quietly(close: Callable[[], None], say: Say) -> None:
    try:
        close()
    except Exception as error:
        say(f"warning: the viewer did not close cleanly ({error})")
