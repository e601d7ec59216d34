"""Equal steps between the smallest and the largest value, rounded to the nearest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from splat.io.codecs.codec import (
    Layout,
    Shapes,
    attribute_of,
    checked,
    code_type,
    finite_list,
    flat,
    only,
    whole,
)
from splat.io.packed import Attribute, Coding

Through = Literal["identity", "log", "sigmoid"]


@dataclass(frozen=True)
class Uniform:
    """Steps are equal after ``through``: of the values themselves, of sign(x) ln(1 + |x|) (positions of large scenes),
    or of sigmoid(x) (opacity from its logit)."""

    kind: ClassVar[str] = "uniform"

    bits: int = 8
    """1 to 16."""
    per: Literal["channel", "whole"] = "channel"
    """A range for every number of a row, or one for all."""
    through: Through = "identity"
    coding: Coding = "zstd"

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise ValueError(f"bits = {self.bits} does not fit: 1 to 16")

    def encode(self, values: np.ndarray) -> Attribute:
        """``values [N,...]``, finite."""
        values = checked(values)
        table = values.reshape(flat(values.shape))
        low, high = _ranges(table, self.per)
        # The ends are kept as values, not as steps, so that packing what was unpacked gives the same codes.
        numbers = {"bits": self.bits, "through": self.through, "low": low.tolist(), "high": high.tolist()}
        start, step = _steps(numbers, self.through)
        warped = _FORWARD[self.through](table.astype(np.float64))
        codes = np.rint((warped - start) / np.where(step > 0, step, 1))
        codes = codes.clip(0, 2**self.bits - 1).astype(code_type(2**self.bits - 1)).reshape(values.shape)
        return attribute_of(Uniform, numbers, {"codes": codes}, {"": values}, {"codes": self.coding})

    @staticmethod
    def layout(numbers: Mapping[str, Any], shapes: Shapes) -> Layout:
        bits = whole(numbers, "bits", 1, 16)
        return {"codes": (code_type(2**bits - 1), only(shapes)[1])}

    @staticmethod
    def decode(attribute: Attribute, shapes: Shapes) -> dict[str, np.ndarray]:
        name, shape = only(shapes)
        numbers = attribute.numbers
        bits, through = whole(numbers, "bits", 1, 16), numbers["through"]
        if through not in _FORWARD:
            raise ValueError(f"through = {through!r}; choices: {', '.join(_FORWARD)}")
        channels = flat(shape)[1]
        lengths = (1, channels) if channels else (0, 1)
        low, high = finite_list(numbers, "low", lengths), finite_list(numbers, "high", lengths)
        codes = attribute.streams["codes"].reshape(flat(shape))
        if codes.size and codes.max() >= 2**bits:
            raise ValueError(f"a code of more than {bits} bits")
        start, step = _steps(numbers, through)
        out = np.empty(codes.shape, np.float32)
        for channel in range(channels):  # one at a time: float64 for all would be twice the model
            at = min(channel, len(low) - 1)
            values = _BACK[through](start[at] + step[at] * codes[:, channel])
            out[:, channel] = np.clip(values, low[at], high[at])
        return {name: out.reshape(shape)}


def _ranges(table: np.ndarray, per: str) -> tuple[np.ndarray, np.ndarray]:  # [N,C] -> [C or 1] twice
    if per == "whole":
        table = table.reshape(-1, 1)
    if not table.size:
        return np.zeros(table.shape[1]), np.zeros(table.shape[1])
    return table.min(0).astype(np.float64), table.max(0).astype(np.float64)


def _steps(numbers: Mapping[str, Any], through: str) -> tuple[np.ndarray, np.ndarray]:
    low, high = (_FORWARD[through](np.array(numbers[end], np.float64)) for end in ("low", "high"))
    return low, (high - low) / (2 ** numbers["bits"] - 1)


def _signed_log(values: np.ndarray) -> np.ndarray:
    return np.copysign(np.log1p(np.abs(values)), values)


def _signed_exp(values: np.ndarray) -> np.ndarray:
    return np.copysign(np.expm1(np.abs(values)), values)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits, -36, 36)))  # beyond, float64 itself is at 0 or 1


def _logit(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(values) - np.log1p(-values)


def _same(values: np.ndarray) -> np.ndarray:
    return values


_FORWARD = {"identity": _same, "log": _signed_log, "sigmoid": _sigmoid}
_BACK = {"identity": _same, "log": _signed_exp, "sigmoid": _logit}
