"""Points carried along by the nodes of a graph, natively: what a drag does to every splat at every move."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splat.native.backend import backend_of

NODES = 4
"""SPLAT_SKIN_NODES."""


@dataclass(frozen=True, eq=False)
class Skin:
    """Points [N,3] at rest and the nodes that carry them; float32 but for ``nodes``, on the CPU."""

    points: Tensor  # [N,3]
    nodes: Tensor  # [N,4] int32
    weights: Tensor  # [N,4], of sum 1
    weight_gradients: Tensor  # [N,4,3], of the weights by the point
    softness: Tensor  # [N] how much of the motion is the point's own; 0 = it stays, to the bit
    softness_gradients: Tensor  # [N,3]
    rest: Tensor  # [M,3] the nodes at rest

    def checked(self) -> Skin:
        """Contiguous, of the right types.

        Raises:
            ValueError: for shapes that do not fit together.
        """
        count, wanted = len(self.points), {"nodes": (NODES,), "weights": (NODES,), "weight_gradients": (NODES, 3)}
        for name, tail in (wanted | {"points": (3,), "softness": (), "softness_gradients": (3,)}).items():
            if getattr(self, name).shape != (count, *tail):
                raise ValueError(f"{name} must be {(count, *tail)}, got {tuple(getattr(self, name).shape)}")
        names = [name for name in self.__dataclass_fields__ if name != "nodes"]
        tables = {name: getattr(self, name).detach().to("cpu", torch.float32).contiguous() for name in names}
        return Skin(nodes=self.nodes.to("cpu", torch.int32).contiguous(), **tables)


def skin(bound: Skin, shifts: Tensor, linear: Tensor, turns: Tensor, *, gradients: bool = False):
    """Where the points go, when node k goes by ``shifts [M,3]`` and deforms its surroundings by 1 + ``linear`` [M,3,3],
    whose rotation is the unit quaternion ``turns [M,4]``: x + m sum_k w_k (linear_k (x - g_k) + shifts_k).

    Gives means [N,3], turns [N,4] (unit quaternions) and, with ``gradients``, the Jacobian [N,3,3] of the new place by
    the old one (else None). The same bits on any number of threads.
    """
    backend, count = backend_of(torch.device("cpu")), len(bound.points)
    motion = [table.detach().to("cpu", torch.float32).contiguous() for table in (shifts, linear, turns)]
    for name, table, tail in zip(("shifts", "linear", "turns"), motion, ((3,), (3, 3), (4,)), strict=True):
        if table.shape != (len(bound.rest), *tail):
            raise ValueError(f"{name} must be {(len(bound.rest), *tail)}, got {tuple(table.shape)}")
    task = backend.ffi.new("splat_skin *")
    for name in ("points", "weights", "weight_gradients", "softness", "softness_gradients", "rest"):
        setattr(task, name, backend.pointer(getattr(bound, name), "float *"))
    task.nodes = backend.pointer(bound.nodes, "int32_t *")
    task.shifts, task.linear, task.turns = (backend.pointer(table, "float *") for table in motion)
    task.count, task.node_count = count, len(bound.rest)
    means, turned = torch.empty(count, 3), torch.empty(count, 4)
    jacobians = torch.empty(count, 3, 3) if gradients else None
    outputs = [backend.pointer(table, "float *") for table in (means, turned, jacobians)]
    backend.check(backend.lib.splat_cpu_skin(task, *outputs), "skin")
    return means, turned, jacobians
