"""``.spack``, the compressed file of our own: one container, and one codec per attribute.

A file is the 8 bytes ``SPLATPK1``, the length of a JSON text (uint32, little-endian), that text, then the streams it
lists, end to end. The text names the splats' count, SH degree, primitive with its settings, 2D filter and frame, and
for every attribute (a field of the primitive, or ``filter3d``) its codec, the codec's numbers and its streams. It
decodes alone: no network to run per view, no other file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Coding = Literal["raw", "zstd", "webp"]
"""How the bytes of a stream are squeezed: as they are; Zstandard; lossless WebP.

WebP takes arrays [R,...] of uint8 or uint16. Row r is pixel r, from the top left, of pictures ``picture_width(R)`` wide
(a square grid of splats stays what it is); the last row fills up the last line. The bytes of a row go three by three
into RGB pictures, the low byte of uint16 before the high one."""


@dataclass(frozen=True, eq=False)
class Attribute:
    """One or more fields, as their codec left them."""

    codec: str
    """A name of ``codecs.CODECS``."""
    numbers: Mapping[str, Any]
    """What the codec needs beside its streams, as JSON."""
    streams: Mapping[str, np.ndarray]
    """Arrays of integers or float16/float32."""
    coding: Mapping[str, Coding] = field(default_factory=dict)
    """By stream; zstd where nothing is said."""
    tolerance: float = 0.0
    """Largest difference of the decoded raw values from the ones that were packed."""


@dataclass(frozen=True, eq=False)
class Packed:
    """A compressed model before it is bytes."""

    kind: str
    """The compressor's."""
    count: int
    sh_degree: int
    primitive: str
    settings: Mapping[str, Any]
    """Of the primitive."""
    filter2d: str
    attributes: Mapping[str, Attribute]
    """By field, or by fields joined with ``+`` where a codec decodes several at once."""
