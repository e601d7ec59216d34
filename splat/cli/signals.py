"""SIGINT and SIGTERM during a training: once asks it to end with a checkpoint, SIGINT twice aborts."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from splat.live.commands import CommandQueue, Stop

HANDLED = (signal.SIGINT, signal.SIGTERM)


class GracefulStop:
    """A context in which the two signals become a ``Stop`` command. Outside the main thread it does nothing."""

    def __init__(self, commands: CommandQueue) -> None:
        self._commands = commands
        self._before: dict[signal.Signals, object] = {}
        self.received: int | None = None
        """Number of the first signal that came."""

    @property
    def exit_code(self) -> int | None:
        """128 + signal, as shells count; None when no signal came."""
        return None if self.received is None else 128 + self.received

    def __enter__(self) -> GracefulStop:
        if threading.current_thread() is threading.main_thread():
            for number in HANDLED:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number
        self._commands.put(Stop(how="interrupt"))
