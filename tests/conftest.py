"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
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
