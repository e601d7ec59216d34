"""Every compressor by name."""

from __future__ import annotations

from typing import Any

from splat.compress.none import NoCompression

COMPRESSORS: dict[str, Any] = {cls.kind: cls for cls in (NoCompression,)}
