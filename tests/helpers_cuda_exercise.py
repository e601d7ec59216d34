"""Every operation of the CUDA interface on small scenes, for a run below a sanitizer: nothing is compared.

``python helpers_cuda_exercise.py LIBRARY SEED`` prints "done". Needs numpy and cffi only.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from helpers_cuda import ROWS, SHAPES, AdamRows, Twin, View, adam, capacity_for, draw, knn, morton, photometric
from helpers_cuda_scene import Case, Scene, build, off_alignment

PLAIN = {"depth": (), "stats": 0, "backward_stats": 0, "top_id": False}
SMALL_CASES = (
    Case(size=(1, 1), count=1, degree=0, seed=1),
    Case(size=(17, 9), count=0, degree=1),
    Case(size=(33, 40), count=60, hostile=True, filter3d=True, filter2d="mip", features=3, seed=2),
    Case(size=(40, 33), count=70, degree=1, stored=3, alpha_grad=False, seed=3, **PLAIN),
    Case(size=(20, 20), count=300, degree=2, near=0.7, opaque=-2.0, filter2d="aa", features=1, accumulate=True, seed=4),
    Case(size=(8, 8), count=2100, degree=0, opaque=-4.0, near=-1.0, seed=5, **PLAIN),
    Case(size=(208, 200), count=3, degree=0, near=3.0, seed=6, **PLAIN),
    Case(size=(33, 20), count=40, degree=1, footprint="analytic", filter2d="analytic", hostile=True, seed=7),
    Case(size=(33, 20), count=40, degree=2, footprint="gef", filter3d=True, hostile=True, depth=(), seed=8),
    Case(size=(33, 20), count=40, degree=3, footprint="convex", hostile=True, vertices=8, features=1, seed=9),
    Case(size=(208, 24), count=80, degree=1, footprint="convex", near=1.5, vertices=3, seed=10, **PLAIN),
)


def moved_off_alignment(scene: Scene) -> Scene:
    """The same scene in memory that is not aligned to 16 bytes."""
    tables = {"rows": scene.rows, "cotangents": scene.cotangents}
    moved = {key: {name: off_alignment(array) for name, array in table.items()} for key, table in tables.items()}
    return replace(scene, **moved)


def exercise_off_alignment(twin: Twin) -> None:
    scene = build(SMALL_CASES[2])
    twin.off_alignment = True
    draw(twin, moved_off_alignment(scene), capacity_for(scene, twin))
    for count in (3, 256):
        arrays = [off_alignment(np.ones(count, np.float32)) for _ in range(4)]
        adam(twin, count, *map(twin.at, arrays), 1e-2, 0.9, 0.999, 1e-15, 1)
    twin.off_alignment = False


def exercise(twin: Twin) -> None:
    for case in SMALL_CASES:
        scene = build(case)
        capacity = capacity_for(scene, twin)
        for room in (capacity, max(capacity // 2 - 8, 0)):
            view = View(twin, scene).project().bin(room).blend().forward_stats().blend_backward().backward_stats()
            view.project_backward()
            if case.footprint in SHAPES:
                continue
            view.project_backward_adam(AdamRows.start(scene.rows))
            AdamRows.start(scene.rows).apply(twin, {name: scene.rows[name].copy() for name in ROWS}, gate=view.counters)
    exercise_off_alignment(twin)
    random = np.random.default_rng(6)
    for width, height in ((1, 1), (17, 9), (45, 34)):
        color = random.random((3, height, width), dtype=np.float32)
        target = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        photometric(twin, color, target, None, ssim_weight=0.2)
        photometric(twin, color, target, np.ascontiguousarray(target[..., 0]), ssim_weight=0.5, grad=False)
        weighted = np.ascontiguousarray(color[1])
        photometric(twin, color, target, np.ascontiguousarray(target[..., 1]), l1_weights=weighted, ssim_weight=0.2)
    for count in (1, 2, 300):
        points = random.normal(size=(count, 3)).astype(np.float32)
        knn(twin, points, 3)
        morton(twin, points)


if __name__ == "__main__":
    library = Twin.open(Path(sys.argv[1]), cuda=True)
    library.seed(int(sys.argv[2]))
    exercise(library)
    print("done")
