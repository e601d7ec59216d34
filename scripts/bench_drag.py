"""How long a drag takes: setting it up, one move of the mouse, the end; medians, on this machine.

    python scripts/bench_drag.py [--rows 10000 50000 200000] [--mode arap] [--repeats 15] [--threads 2]

The floor of a move is printed beside it: what must be read and written, and the arithmetic that cannot be left out.
"of processors" is the time of all threads, which a busy machine does not lengthen. Parts of a move are measured side by
side, so that what a part gains is seen at once.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from splat.edit.drag.drag import DragSession, _tables, drag_values
from splat.edit.ops import Drag, Handle
from splat.model.primitives import PRIMITIVES
from splat.model.splat_model import SplatModel
from splat.native.ops import info, set_threads
from splat.native.skin import skin

ROW_BYTES = 4 * (3 + 4 + 4 + 1 + 3 + 4) + 4 * (4 + 4)
"""Of a move: points, nodes, weights, softness read, means and turns written; orientations read and written."""
ROW_FLOPS = 4 * (9 + 9 + 3 + 6) + 4 * 16 + 40
"""Four nodes: matrix times vector, weighting; four quaternions blended and made unit; one quaternion product."""
NODE_FLOPS = 8 * (3 + 18 + 18 + 40) + 500
"""Of an iteration: eight edges in the spread and in the right side, one nearest rotation."""


def hose(rows: int, *, seed: int = 0) -> SplatModel:
    """A tube 2 long and 0.5 wide with its skin full of flat splats: what a limb of a scanned object is like."""
    generator = torch.Generator().manual_seed(seed)
    along, around = torch.rand(rows, generator=generator) * 2 - 1, torch.rand(rows, generator=generator) * 6.2832
    radius = 0.25 + 0.004 * torch.randn(rows, generator=generator)
    xyz = torch.stack([along, radius * around.cos(), radius * around.sin()], dim=1)
    primitive = PRIMITIVES["gaussian"]()
    model = primitive.start(xyz, torch.rand(rows, 3, generator=generator), sh_degree=3, generator=generator)
    return SplatModel(primitive, model, 3)


def median_ms(call: Callable[[], object], repeats: int, clock: Callable[[], float] = time.perf_counter) -> float:
    call()
    times = []
    for _ in range(repeats):
        begin = clock()
        call()
        times.append(clock() - begin)
    return 1e3 * statistics.median(times)


def handles(share: float) -> tuple[Handle, ...]:
    return (Handle((0.9, 0, 0), (0.9 - 0.4 * share, 0.8 * share, 0.1 * share), 0.15),)


def measure(rows: int, mode: str, repeats: int) -> dict[str, float]:
    model = hose(rows)
    mask = torch.ones(rows, dtype=torch.bool)
    drag = Drag(handles(0.0), (Handle((-0.9, 0, 0), (-0.9, 0, 0), 0.15),), mode=mode)
    session = DragSession(model, mask, drag)
    places = iter(range(10**9))

    def mouse() -> tuple[Handle, ...]:
        return handles((next(places) % 40) / 40)

    whole = Drag(handles(1.0), drag.anchors, mode=mode)
    found = {
        "setup": median_ms(lambda: DragSession(model, mask, drag), 3),
        "move": median_ms(lambda: session.move(mouse()), repeats),
        "  of processors": median_ms(lambda: session.move(mouse()), repeats, time.process_time),
        "  nodes": median_ms(lambda: session._mode.move(mouse()), repeats),
        "  skin": median_ms(lambda: skin(session._skin, *_tables(session._motion)), repeats),
        "finish": median_ms(session.finish, 3),
        "replay": median_ms(lambda: drag_values(model, mask, whole), max(1, repeats // 10)),
    }
    found["node count"] = len(session._motion.shifts)
    entries = getattr(getattr(session._mode, "_arap", None), "entries", 0)
    found["factor entries"] = entries
    solve = 4 * (found["node count"] * NODE_FLOPS + 12 * entries) if entries else 0
    found["floor MB"] = (rows * ROW_BYTES + 4 * 24 * entries) / 1e6
    found["floor Mflop"] = (rows * ROW_FLOPS + solve) / 1e6
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 50_000, 200_000])
    parser.add_argument("--mode", nargs="+", default=["arap"])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=0, help="0: one per processor")
    options = parser.parse_args()
    set_threads(options.threads)
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"{info()['threads']} threads, {info()['isa']}; milliseconds unless named, medians of {options.repeats}")
    for mode in options.mode:
        columns = [measure(rows, mode, options.repeats) for rows in options.rows]
        print(f"\n{mode:16}" + "".join(f"{rows:>12,}" for rows in options.rows))
        for name in columns[0]:
            print(f"{name:16}" + "".join(f"{column[name]:12.1f}" for column in columns))


if __name__ == "__main__":
    main()
