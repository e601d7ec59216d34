"""Work in spurts: each begins at once, and nothing beats in between."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from splat.viewer.serving.spurt import Spurt


class Beats:
    """A page's clock that is turned by hand."""

    def __init__(self) -> None:
        self.tasks: list[Any] = []
        self.page = SimpleNamespace(every=self.every)

    def every(self, secs: float, task: Any) -> Any:
        self.tasks.append(task)
        return lambda: self.tasks.remove(task)

    def turn(self) -> None:
        for task in list(self.tasks):
            task()


def test_a_spurt_ends_with_its_work_and_can_begin_again() -> None:
    clock, left, done = Beats(), [3], []

    def work() -> bool:
        done.append(1)
        left[0] -= 1
        return left[0] > 0

    spurt = Spurt(clock.page, work)
    spurt.begin()
    spurt.begin()
    assert len(clock.tasks) == 1
    for _ in range(5):
        clock.turn()
    assert len(done) == 3 and not clock.tasks
    spurt.begin()
    clock.turn()
    assert len(done) == 4 and not clock.tasks


def test_what_is_begun_during_the_last_turn_is_not_lost() -> None:
    clock, turns = Beats(), []

    def work() -> bool:
        turns.append(1)
        if len(turns) == 1:
            spurt.begin()
        return False

    spurt = Spurt(clock.page, work)
    spurt.begin()
    clock.turn()
    assert clock.tasks
    clock.turn()
    assert len(turns) == 2 and not clock.tasks


def test_a_failure_ends_a_spurt() -> None:
    clock = Beats()
    spurt = Spurt(clock.page, lambda: 1 / 0)
    spurt.begin()
    with pytest.raises(ZeroDivisionError):
        clock.turn()
    assert not clock.tasks
