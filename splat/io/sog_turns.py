"""Rotations of SOG: the three smaller components of a quaternion in 8 bits each, and which one is missing."""

from __future__ import annotations

import numpy as np

_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
_FIRST_TAG = 252
# A component this close to the largest counts as it, so that the same one is taken when a file is written again.
_TIE = 0.003
_ROUNDS = 6


def bytes_of_turns(quats: np.ndarray) -> np.ndarray:  # [N,4] unit length -> [N,4] uint8
    """Rounded to the nearest step, 0.0055 per component.

    Where two components are about as large, what is decoded may have another largest one. Those few are rounded again
    from there, so that writing what was read gives the same bytes.
    """
    packed = _packed(quats)
    moving = np.arange(len(packed))
    for _ in range(_ROUNDS):
        again = _packed(turns_of_bytes(packed[moving])[0])
        moved = (again != packed[moving]).any(axis=1)
        if not moved.any():
            return packed
        moving = moving[moved]
        packed[moving] = again[moved]
    # What is left goes to and fro between two ways to say it: always the one with the lower tag.
    again = _packed(turns_of_bytes(packed[moving])[0])
    lower = again[:, 3] < packed[moving, 3]
    packed[moving[lower]] = again[lower]
    return packed


def turns_of_bytes(pixels: np.ndarray) -> tuple[np.ndarray, int]:  # [N,4] uint8
    """Quaternions [N,4] float32, w first; and how many of the pixels are none (they turn nothing)."""
    small = (pixels[:, :3] / 255 * 2 - 1) / np.sqrt(2)
    largest = pixels[:, 3].astype(np.int64) - _FIRST_TAG
    invalid = largest < 0
    largest = np.maximum(largest, 0)
    quats = np.zeros((len(pixels), 4))
    np.put_along_axis(quats, _OTHERS[largest], small, axis=1)
    quats[np.arange(len(pixels)), largest] = np.sqrt(np.maximum(0, 1 - (small**2).sum(axis=1)))
    quats[invalid] = (1, 0, 0, 0)
    return quats.astype(np.float32), int(invalid.sum())


def _packed(quats: np.ndarray) -> np.ndarray:
    quats = quats.astype(np.float64)
    size = np.abs(quats)
    largest = (size >= size.max(axis=1, keepdims=True) - _TIE).argmax(axis=1)
    sign = np.where(quats[np.arange(len(quats)), largest] < 0, -1, 1)
    small = np.take_along_axis(quats, _OTHERS[largest], axis=1) * sign[:, None] * np.sqrt(2)
    levels = np.rint(np.clip(small * 0.5 + 0.5, 0, 1) * 255)
    return np.concatenate([levels, _FIRST_TAG + largest[:, None]], axis=1).astype(np.uint8)
