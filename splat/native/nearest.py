"""The nearest of many centroids, natively: what vector quantisation spends its time on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splat.native.backend import backend_of


@dataclass(frozen=True, eq=False)
class Lists:
    """Which centroids each point is compared with."""

    point_begin: Tensor  # [lists+1] int64: points come list after list
    candidate_begin: Tensor  # [lists+1] int64
    candidates: Tensor  # [candidates of all lists] int32, indices of centroids


def nearest_two(points: Tensor, centroids: Tensor, lists: Lists | None = None) -> tuple[Tensor, Tensor]:
    """The nearest centroid of every point and the one after it, on the CPU.

    points [N,D], centroids [K,D], both float32 and finite; without ``lists`` every centroid is looked at.
    Gives labels [N,2] int64 (-1 where there is no second one) and squared distances [N,2]; the earlier centroid wins
    where two are as near. The same bits on any number of threads.
    """
    if points.ndim != 2 or centroids.ndim != 2 or points.shape[1] != centroids.shape[1] or not len(centroids):
        raise ValueError(f"points [N,D] and centroids [K,D], K > 0, are needed: {points.shape}, {centroids.shape}")
    points, centroids = (table.detach().to(torch.float32).contiguous() for table in (points, centroids))
    backend, count = backend_of(torch.device("cpu")), len(points)
    if lists is None:
        begins = torch.tensor([0, count]), torch.tensor([0, len(centroids)])
    else:
        begins = lists.point_begin.to(torch.int64).contiguous(), lists.candidate_begin.to(torch.int64).contiguous()
    candidates = None if lists is None else lists.candidates.to(torch.int32).contiguous()
    if candidates is not None and int(begins[1][-1]) != len(candidates):
        raise ValueError(f"{len(candidates)} candidates where the lists have {int(begins[1][-1])}")
    if len(begins[0]) != len(begins[1]):
        raise ValueError(f"{len(begins[0])} starts of points and {len(begins[1])} of candidates")
    labels = torch.empty(count, 2, dtype=torch.int32)
    sq_distances = torch.empty(count, 2)
    task = backend.ffi.new("splat_nearest *")
    task.points, task.centroids = backend.pointer(points, "float *"), backend.pointer(centroids, "float *")
    task.point_begin = backend.pointer(begins[0], "int64_t *")
    task.candidate_begin = backend.pointer(begins[1], "int64_t *")
    task.candidates = backend.pointer(candidates, "int32_t *")
    task.count, task.centroid_count, task.lists = count, len(centroids), len(begins[0]) - 1
    task.dim = points.shape[1]
    status = backend.lib.splat_cpu_nearest(
        task, backend.pointer(labels, "int32_t *"), backend.pointer(sq_distances, "float *")
    )
    backend.check(status, "nearest")
    return labels.long(), sq_distances
