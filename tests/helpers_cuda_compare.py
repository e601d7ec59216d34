"""What tests of the CUDA kernels on the host share: two libraries from one projection, and how near numbers must be."""

from __future__ import annotations

import numpy as np
from helpers_cuda import Drawn, Twin, View
from helpers_cuda_scene import Scene

PLAIN = {"depth": (), "stats": 0, "backward_stats": 0, "top_id": False}
"""Of a case that asks for nothing but the picture and its gradients."""
RTOL = 1e-4


def binned(cuda: Twin, cpu: Twin, scene: Scene, extra: int = 7) -> tuple[View, View]:
    """The two libraries after binning the CUDA library's projection."""
    theirs = View(cuda, scene).project()
    projected = theirs.out.projected
    ours = View(cpu, scene).take_projected(**{name: array.copy() for name, array in projected.items()})
    capacity = int(projected["rect_tiles"].sum()) + extra
    return theirs.bin(capacity), ours.bin(capacity)


def same_bins(theirs: View, ours: View) -> None:
    """Every count and every place, to the last bit."""
    a, b, n = theirs.out, ours.out, theirs.case.count
    for name in ("visible", "slots", "instances", "overflow"):
        assert a.counts[name] == b.counts[name], name
    visible, instances = b.counts["visible"], b.counts["instances"]
    assert a.counts["chunks"] == (-(-np.diff(b.bins["tile_begin"].astype(np.int64)) // 256)).sum()
    lengths = {"order": visible, "slot_begin": n + 1, "slot_count": n, "tile_begin": theirs.tiles + 1}
    for name, length in {**lengths, "instance_splat": instances, "instance_slot": instances}.items():
        np.testing.assert_array_equal(a.bins[name][:length], b.bins[name][:length], err_msg=name)


def close(actual: np.ndarray, expected: np.ndarray, what: str, rtol: float = RTOL) -> None:
    """Within ``rtol`` of each value plus ``rtol`` of the array's root mean square."""
    assert actual.shape == expected.shape, what
    if not expected.size:
        return
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    size = np.abs(expected) + np.sqrt(np.mean(expected**2))
    error = np.nan_to_num(np.abs(actual - expected) / np.maximum(size, 1e-300), nan=np.inf)
    worst = np.unravel_index(error.argmax(), error.shape)
    text = f"{actual[worst]:.9g}, expected {expected[worst]:.9g}; {(error > rtol).sum()} of {error.size} are off"
    assert error[worst] <= rtol, f"{what}{list(map(int, worst))}: {text}"


def defined_bytes(drawn: Drawn) -> dict[str, bytes]:
    """Every array with its places that hold something."""
    counts, found = drawn.counts, {}
    lengths = {"order": counts["visible"], "instance_splat": counts["instances"], "instance_slot": counts["instances"]}
    for part in (drawn.projected, drawn.bins, drawn.images, drawn.forward, drawn.backward, drawn.grads):
        for name, array in part.items():
            found[name] = array[: lengths.get(name)].tobytes()
    # A record of a row that is not drawn is nobody's business.
    found["records"] = drawn.projected["records"][drawn.projected["depth_keys"] != 0xFFFFFFFF].tobytes()
    return found
