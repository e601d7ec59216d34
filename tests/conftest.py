"""Fixtures shared by all tests."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import torch
from helpers import make_tiny_scene
from hypothesis import settings

# The same examples every time; look for new ones with --hypothesis-profile=explore.
settings.register_profile("explore", settings())
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture
def tiny_scene(tmp_path: Path) -> Path:
    """A COLMAP capture of six 32x24 views on disk."""
    return make_tiny_scene(tmp_path / "tiny")


def _brute_force_knn(points, k=3):  # [N,3] -> [N]
    distances = torch.cdist(points.double(), points.double()).square()
    distances.fill_diagonal_(torch.inf)
    return distances.topk(k, largest=False).values.mean(dim=1).float()


@pytest.fixture
def oracle_ops(monkeypatch):
    """``splat.native.ops`` made of readable torch, so that these tests need no compiled library."""
    import splat.native
    from splat.optim import reference

    fake = types.ModuleType("splat.native.ops")
    fake.adam_step = reference.adam_step
    fake.knn_mean_sq_dist = _brute_force_knn
    monkeypatch.setitem(sys.modules, "splat.native.ops", fake)
    monkeypatch.setattr(splat.native, "ops", fake, raising=False)
    return fake
