import sys
import types

import pytest
import torch

from splat.optim import reference


def _brute_force_knn(points, k=3):  # [N,3] -> [N]
    distances = torch.cdist(points.double(), points.double()).square()
    distances.fill_diagonal_(torch.inf)
    return distances.topk(k, largest=False).values.mean(dim=1).float()


@pytest.fixture
def oracle_ops(monkeypatch):
    """``splat.native.ops`` made of readable torch, so that these tests need no compiled library."""
    fake = types.ModuleType("splat.native.ops")
    fake.adam_step = reference.adam_step
    fake.knn_mean_sq_dist = _brute_force_knn
    import splat.native

    monkeypatch.setitem(sys.modules, "splat.native.ops", fake)
    monkeypatch.setattr(splat.native, "ops", fake, raising=False)
    return fake
