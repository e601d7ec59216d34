"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import make_tiny_scene


@pytest.fixture
def tiny_scene(tmp_path: Path) -> Path:
    """A COLMAP capture of six 32x24 views on disk."""
    return make_tiny_scene(tmp_path / "tiny")
