"""Every compressor by name."""

from __future__ import annotations

from typing import Any

from splat.compress.budget import BudgetCompressor
from splat.compress.grid import GridCompressor
from splat.compress.none import NoCompression
from splat.compress.rvq import RvqCompressor

COMPRESSORS: dict[str, Any] = {
    cls.kind: cls for cls in (NoCompression, GridCompressor, RvqCompressor, BudgetCompressor)
}
