"""Who takes the processors: this process, the browser it started, everybody else. Linux alone tells; elsewhere only
this process is known."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")
BUSY = (0, 1, 2, 5, 6, 7)
"""Of the numbers after ``cpu`` in /proc/stat: user, nice, system, interrupts twice, stolen; the rest is waiting."""


class Meter:
    """Processors that were busy between its making and ``cores()``."""

    def __init__(self) -> None:
        self._start = self._now()

    def cores(self) -> dict[str, float]:
        """``viewer`` (this process with its pool of threads), ``browser`` (what it started), ``others``."""
        wall, own, below, machine = (b - a for a, b in zip(self._start, self._now(), strict=True))
        found = {"viewer": own / wall}
        if machine > 0:
            found |= {"browser": below / wall, "others": max(machine - own - below, 0.0) / wall}
        return found

    @staticmethod
    def _now() -> tuple[float, float, float, float]:
        below, machine = 0.0, 0.0
        if (PROC / "stat").exists():
            ticks = os.sysconf("SC_CLK_TCK")
            below = below_secs(os.getpid(), _processes(), ticks)
            machine = machine_secs((PROC / "stat").read_text(), ticks)
        return time.perf_counter(), time.process_time(), below, machine


def machine_secs(stat: str, ticks: int) -> float:
    """Busy seconds of all processors together, from the text of /proc/stat."""
    numbers = [int(number) for number in stat.splitlines()[0].split()[1:]]
    return sum(numbers[i] for i in BUSY) / ticks


def below_secs(pid: int, stats: Iterable[str], ticks: int) -> float:
    """Processor seconds of all that descends from ``pid`` and still runs, from the texts of /proc/PID/stat."""
    parents, spent = {}, {}
    for stat in stats:
        number, _, rest = stat.partition(" ")
        fields = rest.rpartition(")")[2].split()  # the name in brackets may hold anything
        parents[int(number)], spent[int(number)] = int(fields[1]), (int(fields[11]) + int(fields[12])) / ticks
    return sum(secs for number, secs in spent.items() if number != pid and _descends(number, pid, parents))


def _descends(number: int, pid: int, parents: dict[int, int]) -> bool:
    while number in parents and number != pid:
        number = parents[number]
    return number == pid


def _processes() -> Iterable[str]:
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            try:
                yield (folder / "stat").read_text()
            except OSError:  # it has just ended
                continue
