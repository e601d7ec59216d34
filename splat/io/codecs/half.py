"""float16: three digits at any size up to 65,504."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from splat.io.codecs.codec import Layout, Shapes, attribute_of, checked, only
from splat.io.packed import Attribute, Coding

LARGEST = 65504.0


@dataclass(frozen=True)
class Half:
    """Numbers as float16."""

    kind: ClassVar[str] = "half"

    coding: Coding = "zstd"

    def encode(self, values: np.ndarray) -> Attribute:
        """``values [N,...]``, finite. ValueError beyond 65,504: the caller chooses another codec."""
        values = checked(values)
        if values.size and np.abs(values).max() > LARGEST:
            raise ValueError(f"float16 ends at {LARGEST:g}")
        streams = {"values": values.astype(np.float16)}
        return attribute_of(Half, {}, streams, {"": values}, {"values": self.coding})

    @staticmethod
    def layout(numbers: Mapping[str, Any], shapes: Shapes) -> Layout:
        return {"values": ("float16", only(shapes)[1])}

    @staticmethod
    def decode(attribute: Attribute, shapes: Shapes) -> dict[str, np.ndarray]:
        values = attribute.streams["values"].astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError("a number that is not finite")
        return {only(shapes)[0]: values}
