"""How far every 2D filter is from the average of a Gaussian over the pixels it meets.

    python scripts/antialias.py --json antialias.json

For one splat of opacity 1 the exact coverage of a pixel is the mean of exp(-q/2) over its area, here on 64 x 64 points.
Printed are the mean and the largest absolute difference from it, over pixels whose places are drawn from a normal
distribution about the splat with its own deviations (at least half a pixel) and whose rotation is random; and the sum
over all pixels beside the splat's integral, which a filter should keep. Each figure stands beside that of the
specification (primitives, 4.5), which agree with this choice of pixels to the noise of fewer samples.

The responses are float64 formulas, without the 0.99 clamp and the 1/255 cut. Unless
``--no-check`` the same splats are drawn with the native rasterizer in float64 too and compared pixel by pixel, at
opacity 0.98 (which the clamp does not meet) and where alpha is at least 1/255.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from splat.geometry.camera import Camera
from splat.model.filter2d import FILTERS_2D
from splat.model.render_inputs import RenderInputs
from splat.render.registry import rasterizer
from splat.render.types import CameraBatch, RenderOptions

METHODS = ("none", "classic", "aa", "mip", "analytic")
"""``none`` is the undilated Gaussian at the pixel's centre, which nothing of ours draws; the rest are ``filter2d``."""
QUADRATURE = 64
CHECK_SIZE, CHECK_OPACITY = 48, 0.98  # px; an opacity that the clamp of alpha does not meet


@dataclass(frozen=True)
class Row:
    """A splat, and what the specification says of it: exact peak, then mean and largest error per method."""

    minor_px: float
    aspect: float
    peak: float
    spec: tuple[tuple[float, float | None], ...]

    @property
    def deviations(self) -> tuple[float, float]:
        """Along the first axis and across it, px."""
        return self.minor_px * self.aspect, self.minor_px


TABLE = (
    Row(0.1, 1, 0.06, ((0.041, 0.82), (0.524, 0.93), (0.017, 0.04), (0.007, 0.03), (0.000, None))),
    Row(0.3, 1, 0.46, ((0.104, 0.53), (0.391, 0.54), (0.081, 0.23), (0.008, 0.02), (0.000, None))),
    Row(0.5, 1, 0.73, ((0.091, 0.27), (0.266, 0.29), (0.122, 0.28), (0.010, 0.02), (0.000, None))),
    Row(1.0, 1, 0.92, ((0.026, 0.08), (0.085, 0.10), (0.054, 0.15), (0.004, 0.01), (0.001, None))),
    Row(2.0, 1, 0.98, ((0.006, None), (0.023, None), (0.015, 0.05), (0.001, None), (0.001, None))),
    Row(0.2, 10, 0.53, ((0.139, 0.50), (0.321, 0.51), (0.079, 0.20), (0.012, 0.04), (0.008, 0.04))),
    Row(0.5, 10, 0.86, ((0.054, 0.14), (0.122, 0.22), (0.079, 0.19), (0.006, 0.02), (0.001, None))),
    Row(0.1, 40, 0.30, ((0.122, 0.75), (0.394, 0.75), (0.043, 0.13), (0.013, 0.06), (0.009, 0.06))),
)
ENERGY = {  # method -> sum over pixels / 2 pi s^2 at these deviations, px
    "classic": {0.1: 31.0, 0.3: 4.3, 1.0: 1.30},
    "aa": {0.1: 1.0, 0.3: 1.0, 1.0: 1.0},
    "mip": {0.1: 1.01, 0.3: 0.99, 1.0: 1.0},
    "analytic": {0.1: 1.0, 0.3: 1.0, 1.0: 1.0},
}


def point(deviations: tuple[float, float], u: Tensor, w: Tensor, dilation: float = 0.0) -> Tensor:
    """exp(-q/2) of the covariance widened by ``dilation`` px^2, at u, w px along its axes."""
    first, second = (s * s + dilation for s in deviations)
    return torch.exp(-0.5 * (u * u / first + w * w / second))


def window(deviation: float, offset: Tensor) -> Tensor:
    """Integral over the unit interval about ``offset`` of exp(-x^2 / (2 deviation^2)) / sqrt(2 pi), the normal
    distribution replaced by a logistic function (Analytic-Splatting, Liang et al. 2024)."""
    high, low = ((offset + half) / deviation for half in (0.5, -0.5))
    return deviation * (torch.sigmoid(1.6 * high + 0.07 * high**3) - torch.sigmoid(1.6 * low + 0.07 * low**3))


def response(method: str, deviations: tuple[float, float], u: Tensor, w: Tensor) -> Tensor:
    """What a pixel at u, w px along the splat's axes sees of opacity 1."""
    if method == "none":
        return point(deviations, u, w)
    if method == "analytic":
        return 2 * math.pi * window(deviations[0], u) * window(deviations[1], w)
    row, scale = FILTERS_2D[method], 1.0
    if row.compensates:
        scale = math.prod(s / math.sqrt(s * s + row.variance_px) for s in deviations)
    return scale * point(deviations, u, w, row.variance_px)


def axes(angle: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Places along the splat's axes, px."""
    return angle.cos() * x + angle.sin() * y, angle.cos() * y - angle.sin() * x


def exact(deviations: tuple[float, float], angle: Tensor, x: Tensor, y: Tensor, block: int = 256) -> Tensor:
    """Mean of exp(-q/2) over the unit squares about x, y [n] px."""
    steps = (torch.arange(QUADRATURE, dtype=torch.float64) + 0.5) / QUADRATURE - 0.5
    dx, dy = (grid.reshape(1, -1) for grid in torch.meshgrid(steps, steps, indexing="ij"))
    parts = [
        point(deviations, *axes(a[:, None], px[:, None] + dx, py[:, None] + dy)).mean(1)
        for a, px, py in zip(angle.split(block), x.split(block), y.split(block), strict=True)
    ]
    return torch.cat(parts)


def errors(row: Row, samples: int, seed: int) -> tuple[float, dict[str, tuple[float, float]]]:
    """The largest exact coverage of ``samples`` pixels near the splat; mean and largest absolute error per method."""
    # Scrambled Sobol points: the noise of several times as many random ones.
    even = torch.quasirandom.SobolEngine(3, scramble=True, seed=seed).draw(samples, dtype=torch.float64)
    u, w = (torch.special.ndtri(even[:, i].clamp(1e-9, 1 - 1e-9)) * max(row.deviations[i], 0.5) for i in range(2))
    angle = even[:, 2] * math.pi
    if row.aspect == 1:  # a round splat's axes are the picture's
        angle = torch.zeros_like(angle)
    x, y = axes(-angle, u, w)
    truth = exact(row.deviations, angle, x, y)
    differences = {name: (response(name, row.deviations, u, w) - truth).abs() for name in METHODS}
    return truth.max().item(), {name: (d.mean().item(), d.max().item()) for name, d in differences.items()}


def energy(method: str, deviation: float, places: int = 16) -> float:
    """Sum of the responses of all pixels beside 2 pi s^2: the mean over ``places`` x ``places`` of the splat within
    its pixel."""
    reach = math.ceil(8 * math.sqrt(deviation**2 + 0.3)) + 1
    grid = torch.arange(-reach, reach + 1, dtype=torch.float64)
    steps = (torch.arange(places, dtype=torch.float64) + 0.5) / places - 0.5
    place = torch.cartesian_prod(steps, steps)
    x, y = grid[None, :, None] - place[:, :1, None], grid[None, None, :] - place[:, 1:, None]
    total = response(method, (deviation, deviation), x, y).sum((1, 2)).mean().item()
    return total / (2 * math.pi * deviation**2)


def drawn(method: str, deviations: tuple[float, float], angle: float, offset: tuple[float, float]) -> Tensor:
    """[H,W] alpha of the native rasterizer in float64: a flat splat on the axis of a camera whose principal point is
    ``offset`` px from the middle of a pixel."""
    middle = CHECK_SIZE / 2 + 0.5
    K = [[1.0, 0.0, middle + offset[0]], [0.0, 1.0, middle + offset[1]], [0.0, 0.0, 1.0]]
    pose = torch.eye(4, dtype=torch.float64)
    camera = Camera("check", pose.numpy(), torch.tensor(K, dtype=torch.float64).numpy(), CHECK_SIZE, CHECK_SIZE)
    rows = {
        "means": [[0.0, 0.0, 1.0]],
        "quats": [[math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2)]],
        "log_scales": [[math.log(deviations[0]), math.log(deviations[1]), -20.0]],
        "logit_opacities": [math.log(CHECK_OPACITY / (1 - CHECK_OPACITY))],
        "sh0": [[0.0, 0.0, 0.0]],
    }
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in rows.items()}
    inputs = RenderInputs(**tensors, sh_rest=torch.zeros(1, 0, 3, dtype=torch.float64))
    options = RenderOptions(sh_degree=0, filter2d=method)
    return rasterizer("native").render(inputs, CameraBatch.of(camera, dtype=torch.float64), options).alpha[0]


def check(method: str, row: Row, seed: int) -> tuple[float, int]:
    """Largest difference between the rasterizer and the formulas, and over how many pixels: where one of them is
    visible. A pixel that only one of them cuts counts with its distance from 1/255."""
    random = torch.Generator().manual_seed(seed)
    places = (torch.rand(3, generator=random, dtype=torch.float64) - 0.5).tolist()
    angle = 0.0 if row.aspect == 1 else math.pi * places[2]
    alpha = drawn(method, row.deviations, angle, (places[0], places[1]))
    cells = torch.arange(CHECK_SIZE, dtype=torch.float64) - CHECK_SIZE / 2
    u, w = axes(torch.tensor(angle, dtype=torch.float64), cells[None, :] - places[0], cells[:, None] - places[1])
    formula = CHECK_OPACITY * response(method, row.deviations, u, w)
    one_cut = (formula >= 1 / 255) != (alpha > 0)
    seen = (formula >= 1 / 255) | (alpha > 0)
    difference = torch.where(one_cut, (formula - 1 / 255).abs(), (formula - alpha).abs())
    return difference[seen].max().item() if seen.any() else 0.0, int(seen.sum())


def _cell(mean: float, largest: float | None, spec: tuple[float, float | None]) -> str:
    said = f"{spec[0]:.3f}" + (f" ({spec[1]:.2f})" if spec[1] is not None else "")
    return f"{mean:.3f} ({largest:.2f}) | {said}"


def print_table(samples: int, seed: int) -> list[dict]:
    print(f"mean (max) error of {samples} pixels near the splat | specification")
    print(f"{'minor px, aspect':>16} {'peak':>11} " + "".join(f"{name:>29}" for name in METHODS))
    rows = []
    for row in TABLE:
        top, found = errors(row, samples, seed)
        cells = [_cell(*found[name], said) for name, said in zip(METHODS, row.spec, strict=True)]
        print(
            f"{row.minor_px:>10}, 1:{row.aspect:<3g} {top:>5.2f} | {row.peak:.2f}" + "".join(f"{c:>29}" for c in cells)
        )
        spec = {name: list(said) for name, said in zip(METHODS, row.spec, strict=True)}
        rows.append({"minor_px": row.minor_px, "aspect": row.aspect, "peak": top, "peak_spec": row.peak,
                     "errors": found, "spec": spec})  # fmt: skip
    return rows


def print_energy() -> dict[str, dict[str, float]]:
    print("\nsum over the pixels / 2 pi s^2 | specification")
    result = {}
    for method, said in ENERGY.items():
        result[method] = {str(s): energy(method, s) for s in said}
        print(
            f"{method:>10}" + "".join(f"   s = {s} px: {result[method][str(s)]:7.3f} | {v:g}" for s, v in said.items())
        )
    return result


def print_check(seed: int) -> dict[str, float]:
    print("\nlargest difference between the native rasterizer (float64) and these formulas, over all rows")
    result = {}
    for method in METHODS[1:]:
        found = [check(method, row, seed + i) for i, row in enumerate(TABLE)]
        result[method] = max(difference for difference, _ in found)
        print(f"{method:>10}   {result[method]:.1e} over {sum(pixels for _, pixels in found)} pixels")
    return result


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=4096, help="pixels per row of the table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action=argparse.BooleanOptionalAction, default=True, help="against the rasterizer")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(words)
    result = {"samples": args.samples, "table": print_table(args.samples, args.seed)}
    result["energy"] = print_energy()
    if args.check:
        result["rasterizer"] = print_check(args.seed)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
