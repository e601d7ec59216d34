"""The nearest points of one set for the points of another, natively."""

from __future__ import annotations

import torch
from torch import Tensor

from splat.native.backend import backend_of

MAX_NEIGHBOURS = 32
"""kMaxNeighbours of cuda/cpu/knn.cpp."""


def nearest_points(queries: Tensor, points: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """The ``k`` nearest of ``points [P,3]`` to each of ``queries [Q,3]``: places [Q,k] int64 (-1 where there are fewer)
    and squared distances [Q,k] (infinite there), nearest first, the earlier where two are as near. On the CPU, in
    float32; the same bits on any number of threads.

    Raises:
        ValueError: for other shapes, no points, coordinates that are not finite, or a ``k`` that is not 1 to 32.
    """
    for name, table in (("queries", queries), ("points", points)):
        if table.ndim != 2 or table.shape[1] != 3 or not torch.isfinite(table).all():
            raise ValueError(f"{name} must be [N,3] and finite, got {tuple(table.shape)}")
    if not 1 <= k <= MAX_NEIGHBOURS or not len(points):
        raise ValueError(f"k must be 1 to {MAX_NEIGHBOURS} of at least one point, got {k} of {len(points)}")
    queries, points = (table.detach().to("cpu", torch.float32).contiguous() for table in (queries, points))
    backend = backend_of(torch.device("cpu"))
    places, sq_distances = torch.empty(len(queries), k, dtype=torch.int32), torch.empty(len(queries), k)
    status = backend.lib.splat_cpu_neighbours(
        len(points), backend.pointer(points, "float *"), len(queries), backend.pointer(queries, "float *"), k,
        backend.pointer(places, "int32_t *"), backend.pointer(sq_distances, "float *"),
    )  # fmt: skip
    backend.check(status, "neighbours")
    return places.long(), sq_distances
