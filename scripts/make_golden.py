"""Writes tests/render/golden/: a picture and a short training of a fixed scene, for tests to hold today's code against.

    python scripts/make_golden.py [--check]

Run it only when a change of the numbers is meant, and say why in the commit. It draws with the float64 path, which
is the same code on every machine; tests compare every instruction set with it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splat.geometry.camera import Camera
from splat.losses.photometric import photometric_loss
from splat.model.render_inputs import RenderInputs
from splat.native import ops
from splat.render.native_rasterizer import NativeRasterizer
from splat.render.types import CameraBatch, RenderOptions, RenderOutput

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "render" / "golden"
NAME = "sixty_splats.npz"
WIDTH, HEIGHT, SPLATS, STEPS = 64, 48, 60, 10
SH_DEGREE = 2
FIELDS = ("means", "quats", "log_scales", "logit_opacities", "sh0", "sh_rest")
RATES = {"means": 5e-3, "quats": 1e-2, "log_scales": 2e-2, "logit_opacities": 1e-1, "sh0": 5e-2, "sh_rest": 5e-3}
"""Learning rates large enough that ten steps halve the loss."""
RANGE = {"color": 2.0, "depth_expected": 8.0}
"""Pictures are stored in 16 bits from 0 to these values."""
ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-15}


@dataclass(frozen=True, eq=False)
class Golden:
    """What is stored: pictures in 16 bits, losses in full."""

    color: np.ndarray  # [H,W,3]
    depth_expected: np.ndarray  # [H,W]
    losses: np.ndarray  # [STEPS] before each step


def _numbers(stream: int, *shape: int) -> Tensor:
    """Uniform in (-1, 1). numpy's legacy generator is the one whose numbers are promised never to change."""
    return torch.from_numpy(np.random.RandomState(stream).uniform(-1, 1, shape))


def scene(dtype: torch.dtype) -> dict[str, Tensor]:
    """Raw rows of the sixty splats."""
    means = _numbers(0, SPLATS, 3) * torch.tensor([1.6, 1.2, 0.9]) + torch.tensor([0.0, 0.0, 4.0])
    rows = {
        "means": means, "quats": _numbers(1, SPLATS, 4), "log_scales": _numbers(2, SPLATS, 3) * 0.7 - 1.6,
        "logit_opacities": _numbers(3, SPLATS) * 2, "sh0": _numbers(4, SPLATS, 3) * 1.5,
        "sh_rest": _numbers(5, SPLATS, (SH_DEGREE + 1) ** 2 - 1, 3) * 0.2,
    }  # fmt: skip
    return {name: value.float().to(dtype) for name, value in rows.items()}  # the same values in both precisions


def camera() -> Camera:
    """In front of the splats, with its principal point off the middle."""
    angle = 0.1
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    pose[:3, 3] = (-0.4, 0.05, 0.1)
    K = np.array([[55.0, 0, 30.5], [0, 57.0, 25.25], [0, 0, 1]])
    return Camera("golden", pose, K, WIDTH, HEIGHT)


def draw(rows: dict[str, Tensor]) -> RenderOutput:
    dtype = rows["means"].dtype
    background = torch.tensor([0.25, 0.5, 0.75], dtype=dtype)
    options = RenderOptions(
        sh_degree=SH_DEGREE, filter2d="aa", background=background, near=0.1, depth=frozenset({"expected"})
    )
    return NativeRasterizer().render(RenderInputs(**rows), CameraBatch.of(camera(), dtype=dtype), options)


def train(dtype: torch.dtype) -> np.ndarray:
    """Ten steps towards a picture of the same splats, made larger and grey: -> losses [STEPS]."""
    rows = scene(dtype)
    aim = scene(torch.float64) | {"log_scales": scene(torch.float64)["log_scales"] + 0.2}
    aim["sh0"] = aim["sh0"].mean(1, keepdim=True).expand(-1, 3).contiguous()
    target = (draw(aim).color.clamp(0, 1) * 255 + 0.5).to(torch.uint8)
    mask = torch.full(target.shape[:3], 255, dtype=torch.uint8)
    mask[:, :8, :12] = 0
    moments = {name: (torch.zeros_like(rows[name]), torch.zeros_like(rows[name])) for name in FIELDS}
    losses = []
    for step in range(1, STEPS + 1):
        leaves = {name: value.requires_grad_() for name, value in rows.items()}
        loss = photometric_loss(draw(leaves).color, target, mask).total
        loss.backward()
        losses.append(loss.item())
        rows = {name: value.detach() for name, value in leaves.items()}
        for name in FIELDS:
            ops.adam_step(rows[name], leaves[name].grad, *moments[name], lr=RATES[name], step=step, **ADAM)
    return np.array(losses)


def compute(dtype: torch.dtype = torch.float64) -> Golden:
    with torch.no_grad():
        drawn = draw(scene(dtype))
    return Golden(drawn.color[0].numpy(), drawn.depth_expected[0].numpy(), train(dtype))


def read() -> Golden:
    with np.load(FOLDER / NAME, allow_pickle=False) as stored:
        # uint16 sums wrap back to what was stored.
        pictures = {name: np.cumsum(stored[name], axis=0, dtype=np.uint16) / 65535 * top for name, top in RANGE.items()}
        return Golden(**pictures, losses=stored["losses"])


def write(golden: Golden) -> Path:
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / NAME
    pictures = {name: getattr(golden, name) / top for name, top in RANGE.items()}
    for name, picture in pictures.items():
        if picture.min() < 0 or picture.max() > 1:
            raise ValueError(f"{name} leaves [0, {RANGE[name]}]; widen RANGE")
    packed = {name: np.round(picture * 65535).astype(np.uint16) for name, picture in pictures.items()}
    # Differences of neighbouring rows are small numbers, which zlib packs well.
    rows = {name: np.diff(picture, axis=0, prepend=np.zeros_like(picture[:1])) for name, picture in packed.items()}
    np.savez_compressed(path, losses=golden.losses, **rows)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing: only say how far the numbers are off")
    arguments = parser.parse_args()
    golden = compute()
    if (FOLDER / NAME).is_file():
        before = read()
        for name in ("color", "depth_expected", "losses"):
            print(f"{name}: largest change {np.abs(getattr(golden, name) - getattr(before, name)).max():.3g}")
    if not arguments.check:
        path = write(golden)
        print(f"wrote {path}: {path.stat().st_size} bytes; losses {golden.losses[0]:.6f} -> {golden.losses[-1]:.6f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
