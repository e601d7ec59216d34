"""As-rigid-as-possible deformation of a graph, natively: a factor once, then iterations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splat.native.backend import Backend, backend_of


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes at rest and the edges between them, in lists of neighbours."""

    rest: Tensor  # [M,3] float64
    begin: Tensor  # [M+1] int32
    neighbours: Tensor  # [E] int32, every edge at both of its ends
    weights: Tensor  # [E] float64, above 0, the same at both ends

    @property
    def count(self) -> int:
        return len(self.rest)


class Arap:
    """A graph with what holds and what pulls it. Nodes where ``held [M]`` stay where they are put; others are drawn by
    ``pulls [M]`` (0 = not) to bring the point that lies ``arms [M,3]`` from them at rest to a target.

    Raises:
        ValueError: when a part of the graph is neither held nor pulled, or is no graph.
    """

    def __init__(self, graph: Graph, held: Tensor, pulls: Tensor, arms: Tensor, *, smooth: float = 0.0) -> None:
        self._backend, self._graph = backend_of(torch.device("cpu")), graph
        self._tables = {
            "rest": graph.rest.double(), "begin": graph.begin.int(), "neighbours": graph.neighbours.int(),
            "weights": graph.weights.double(), "held": held.to(torch.uint8), "pulls": pulls.double(),
            "arms": arms.double(),
        }  # fmt: skip
        self._tables = {name: table.detach().cpu().contiguous() for name, table in self._tables.items()}
        self._smooth = smooth
        count, task = graph.count, self._task(torch.zeros(graph.count, 3, dtype=torch.float64), 0)
        entries = self._backend.lib.splat_cpu_arap_entries(task)
        if entries < 0:
            raise ValueError("no graph: neighbours out of range, or weights that are not above 0")
        self._factor = {
            "order": torch.empty(count, dtype=torch.int32), "begin": torch.empty(count + 1, dtype=torch.int64),
            "rows": torch.empty(entries, dtype=torch.int32), "values": torch.empty(entries, dtype=torch.float64),
            "diagonal": torch.empty(count, dtype=torch.float64),
        }  # fmt: skip
        if self._backend.lib.splat_cpu_arap_factor(task, self._factor_struct()) != 0:
            raise ValueError("a part of the graph is neither held nor pulled")

    @property
    def entries(self) -> int:
        """Of the factor below its diagonal: what a solve costs."""
        return len(self._factor["rows"])

    def iterate(
        self, places: Tensor, rotations: Tensor, targets: Tensor, iterations: int, *, smooth: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Places [M,3] and rotations [M,3,3] after ``iterations`` from those given, with pulled points drawn to
        ``targets [M,3]``; float64. ``smooth`` in place of the graph's own. The same bits on any number of threads."""
        places, rotations = (table.detach().double().contiguous().clone() for table in (places, rotations))
        task = self._task(targets.detach().double().contiguous(), iterations)
        task.smooth = self._smooth if smooth is None else smooth
        pointers = (self._backend.pointer(table, "double *") for table in (places, rotations))
        self._backend.check(self._backend.lib.splat_cpu_arap(task, self._factor_struct(), *pointers), "arap")
        return places, rotations

    def _task(self, targets: Tensor, iterations: int) -> Any:
        self._targets = targets  # the struct holds its address
        task = _filled(self._backend, "splat_arap *", {**self._tables, "targets": targets})
        task.smooth, task.nodes, task.iterations = self._smooth, self._graph.count, iterations
        return task

    def _factor_struct(self) -> Any:
        factor = _filled(self._backend, "splat_factor *", self._factor)
        factor.entries = self.entries
        return factor


_CTYPES = {torch.float64: "double *", torch.int32: "int32_t *", torch.int64: "int64_t *", torch.uint8: "uint8_t *"}


def _filled(backend: Backend, kind: str, tables: dict[str, Tensor]) -> Any:
    struct = backend.ffi.new(kind)
    for name, table in tables.items():
        setattr(struct, name, backend.pointer(table, _CTYPES[table.dtype]))
    return struct
