"""Commands from outside, carried out between two steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from splat.live.commands import Change, Command, CommandQueue, Edit, Pause, Resume, Save, Step, Stop
from splat.train.events import Event, Paused, SaveAsked
from splat.train.stages import RunClock
from splat.train.state import TrainState

PAUSE_BEAT_SECS = 0.05
"""How often the mailbox is served during a pause."""

Answer = Iterator[Event]
"""A generator that returns what the reply is."""


class Orders:
    """Knows whether the run is paused, for how many steps it goes on all the same, and whether it is to end.

    ``edit`` and ``change`` carry out a command of that kind: generators of events that return the reply. ``after`` runs
    once the reply is given: work that an edit leaves behind and nobody has to wait for.
    """

    def __init__(
        self, state: TrainState, commands: CommandQueue, clock: RunClock, *, edit: Callable[[Edit], Answer],
        change: Callable[[Change], Answer], after: Callable[[], Iterator[Event]],
    ) -> None:  # fmt: skip
        self._state, self._commands, self._clock = state, commands, clock
        self._edit, self._change, self._after = edit, change, after
        self.ending: str | None = None
        """``stopped`` or ``interrupted`` once somebody wants the end."""
        self._paused = False
        self._until: int | None = None
        """The step to pause at, while there are single steps to take."""
        self._stepping: list[Step] = []

    def obey(self) -> Iterator[Event]:
        """Carry out waiting commands; during a pause stay here, serving the mailbox."""
        if self._until is not None and self._state.step >= self._until:
            self._halted(paused=True)
        while self.ending is None:
            command = self._commands.pop()
            if command is None and (not self._paused or self._until is not None):
                break
            if command is None:
                self._clock.stop()
                yield Paused(self._state)
                self._commands.wait(PAUSE_BEAT_SECS)
                continue
            yield from self._carry_out(command)
        self._clock.start()

    def end(self) -> None:
        """The run is over: whoever waits for steps is told how far it got."""
        self._halted(paused=self._paused)

    def _halted(self, *, paused: bool) -> None:
        self._paused, self._until = paused, None
        for command in self._stepping:
            command.reply.set_result(self._state.step)
        self._stepping.clear()

    def _carry_out(self, command: Command) -> Iterator[Event]:
        """A refused command answers with its exception; nothing it does reaches the training."""
        if not command.reply.set_running_or_notify_cancel():
            return
        reply: Any = None
        try:
            if isinstance(command, Pause | Resume):
                self._halted(paused=isinstance(command, Pause))
            elif isinstance(command, Step):
                self._step(command)
                return
            elif isinstance(command, Stop):
                self.ending = "interrupted" if command.how == "interrupt" else "stopped"
            elif isinstance(command, Save):
                yield SaveAsked(self._state)
            elif isinstance(command, Edit):
                reply = yield from self._edit(command)
            elif isinstance(command, Change):
                reply = yield from self._change(command)
        except Exception as error:
            command.reply.set_exception(error)
        else:
            command.reply.set_result(self._state.step if reply is None else reply)
        yield from self._after()

    def _step(self, command: Step) -> None:
        if command.count < 1:
            raise ValueError(f"{command.count} steps do not fit: use 1 or more")
        self._until = (self._state.step if self._until is None else self._until) + command.count
        self._stepping.append(command)
