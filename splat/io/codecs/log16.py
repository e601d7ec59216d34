"""16 bits of sign(x) ln(1 + |x|) per channel: fine near the origin, never coarser than in proportion far out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from splat.io.codecs.codec import Layout, Shapes
from splat.io.codecs.uniform import Uniform
from splat.io.packed import Attribute, Coding


@dataclass(frozen=True)
class Log16:
    """The scale that PlayCanvas' SOG has for positions; ``uniform`` with its settings chosen."""

    kind: ClassVar[str] = "log16"

    bits: int = 16
    coding: Coding = "zstd"

    def encode(self, values: np.ndarray) -> Attribute:
        """``values [N,...]``, finite."""
        return replace(Uniform(self.bits, "channel", "log", self.coding).encode(values), codec=self.kind)

    @staticmethod
    def layout(numbers: Mapping[str, Any], shapes: Shapes) -> Layout:
        return Uniform.layout(numbers, shapes)

    @staticmethod
    def decode(attribute: Attribute, shapes: Shapes) -> dict[str, np.ndarray]:
        return Uniform.decode(attribute, shapes)
