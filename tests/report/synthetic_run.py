"""A run folder as a training leaves it, made of invented numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from splat.io.png import write_png

STAGES = {"load": 0.002, "render": 0.016, "loss": 0.005, "backward": 0.021, "optimizer": 0.004, "refine": 0.001}
PROTOCOL = {"images": "images_4", "downscale": "area", "ssim": "same padding", "split": "every 8th"}


def metrics_lines(*, steps: int = 3000, evals: bool = True, finished: bool = True) -> list[dict]:
    """What ``metrics.jsonl`` holds after ``steps``."""
    lines = [
        {"kind": "start", "step": 0, "scene": "garden<b>", "protocol": PROTOCOL, "splats": 9000, "device": "cpu",
         "rasterizer": "native", "seed": 7, "version": "0.1.0", "views_train": 35, "views_test": 5},
    ]  # fmt: skip
    splats = 9000
    for step in range(50, steps + 1, 50):
        if step % 100 == 0 and step >= 500:
            splats += 700
            edit = {"kind": "refine", "step": step, "splats": splats}
            place = {"low": [-1.0, -0.5, 2.0], "high": [1.0, 0.5, 2.25], "median": [0.125, 0.0, 2.1]}
            lines.append({**edit, "reason": "split", "added": 900, "removed": 0, "added_at": place})
            lines.append({**edit, "reason": "prune", "added": 0, "removed": 200})
        loss = 0.05 + 0.2 * math.exp(-step / 700) + 0.01 * math.sin(step)
        lines.append(
            {"kind": "train", "step": step, "loss": loss, "l1": loss / 2, "ssim": 1 - loss, "splats": splats,
             "elapsed_secs": step * 0.05, "its_per_sec": 20 - step / 1000, "lr_means": 1e-4, "stage_secs": STAGES}
        )  # fmt: skip
        if evals and step % 1000 == 0:
            lines.append(
                {"kind": "eval", "step": step, "psnr": 20 + 2.5 * step / 1000, "ssim": 0.7 + step / 20000,
                 "psnr_8bit": 24, "ssim_8bit": 0.8, "lpips": None, "splats": splats,
                 "elapsed_secs": step * 0.05, "protocol": PROTOCOL}
            )  # fmt: skip
    if finished:
        secs = steps * 0.05 + 12
        lines.append({"kind": "finish", "step": steps, "reason": "done", "elapsed_secs": secs, "splats": splats})
    return lines


def make_run(folder: Path, *, evals: bool = True, finished: bool = True, views: int = 7, size: int = 64) -> Path:
    """Write the files of a run into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = metrics_lines(evals=evals, finished=finished)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.toml").write_text('steps = 3000\npreset = "cpu"\n\n[optim]\nssim_weight = 0.2\nsh_degree = 2\n')
    (folder / "model.safetensors").write_bytes(b"x" * 2_500_000)
    if not evals:
        return folder
    scores = []
    rng = np.random.default_rng(0)
    for i in range(views):
        rounded = {"psnr_8bit": 19.9 + i, "ssim_8bit": 0.79, "lpips": None}
        scores.append({"name": f"left/view_{i}.jpg", "psnr": 20.0 + i, "ssim": 0.8, **rounded})
        truth = np.add.outer(np.arange(size), np.arange(size * 3 // 2)).astype(np.uint8)[..., None].repeat(3, 2)
        render = np.clip(truth.astype(int) + rng.integers(-20, 20, truth.shape), 0, 255).astype(np.uint8)
        stem = folder / "renders" / "step_3000" / f"left__view_{i}"
        for kind, picture in (("render", render), ("truth", truth), ("error", render - truth)):
            write_png(f"{stem}_{kind}.png", picture)
    content = {"mean": {"psnr": 23.0}, "views": scores, "protocol": PROTOCOL, "step": 3000}
    (folder / "per_view.json").write_text(json.dumps(content))
    return folder
