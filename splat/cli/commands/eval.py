"""``splat eval``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from splat.cli.parsing import Parser, UsageError, split_settings
from splat.model.filter2d import names

HELP = f"""
usage: splat eval RUN [--json FILE] [options]

Measures a run's model on the held-out views of its capture: PSNR and SSIM on float and on 8-bit renders, LPIPS when
its weights are here. Writes per_view.json and renders beside truth into the run.

  --json FILE        write the numbers, their protocol and every view to FILE
  --model FILE       measure this model file (model.safetensors or .ply) instead of the run's newest
  --scene DIR        the capture, if it has moved
  --no-images        numbers only
  --device D         auto, cpu or cuda            --rasterizer R   auto, native, gsplat or reference
  --filter2d F       draw with {names()} instead of the model's own
  -q, --quiet        only the table
"""


def run(argv: Sequence[str]) -> int:
    flags, settings = split_settings(argv)
    parser = Parser("eval")
    parser.add_argument("run", nargs="?")
    parser.add_argument("-m", "--model-path", "--run", dest="run_flag")
    parser.add_argument("--json")
    parser.add_argument("--model")
    parser.add_argument("--scene", "-s", "--source", "--data")
    parser.add_argument("--no-images", action="store_true")
    parser.add_argument("--device")
    parser.add_argument("--rasterizer")
    parser.add_argument("--filter2d")
    parser.add_argument("--quiet", "-q", action="store_true")
    args = parser.parse(flags)
    if (args.run is None) == (args.run_flag is None):
        raise UsageError("name one run: splat eval RUN")
    for key, value in (("render.device", args.device), ("render.rasterizer", args.rasterizer),
                       ("render.filter2d", args.filter2d), ("capture", args.scene)):  # fmt: skip
        if value is not None:
            settings[key] = str(Path(value).resolve()) if key == "capture" else value
    record = evaluate_run(Path(args.run or args.run_flag), args, settings)
    if args.json:
        from splat.io.atomic import write_text

        write_text(args.json, json.dumps(record, indent=1) + "\n")
    return 0


def evaluate_run(run_dir: Path, args: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Measure, print the table, and return what ``--json`` writes."""
    from splat.cli.opening import background_behind, moved_to, open_model, require_drawable, run_config, run_scene
    from splat.config.assemble import image_store
    from splat.config.devices import choose_device
    from splat.errors import UserError
    from splat.evaluate.views import evaluate_views, write_per_view

    say = (lambda _: None) if args.quiet else (lambda line: print(line, file=sys.stderr, flush=True))
    config = run_config(run_dir, settings)
    device, rasterizer = choose_device(config.render, say)
    scene = run_scene(config, say)
    if not scene.test_indices:
        raise UserError(f"{run_dir}: no view was held out (scene.test_every = {config.scene.test_every})")
    opened = open_model(Path(args.model) if args.model else run_dir, say, scene=scene)
    model = moved_to(opened.model, device)
    if args.filter2d:
        model.filter2d = config.render.filter2d
    require_drawable(model, rasterizer)
    say(f"{opened.source}: {model.count:,} splats, {len(scene.test_indices)} held-out views")
    label = f"step_{opened.step}" if opened.step is not None and not args.model else "eval"
    with image_store(config, scene) as store:
        evaluation = evaluate_views(
            model, rasterizer, scene.test_cameras, lambda view: store.frame(scene.test_indices[view]),
            background=background_behind(opened, config, settings), protocol=dict(scene.protocol),
            save_dir=None if args.no_images else run_dir / "renders" / label,
        )  # fmt: skip
    if not args.model:
        write_per_view(run_dir / "per_view.json", evaluation, step=opened.step)
    _print_table(evaluation)
    return {
        "run": str(run_dir), "model": str(opened.source), "step": opened.step, "splats": model.count,
        "primitive": model.primitive.kind, "filter2d": model.filter2d, **evaluation.means(),
        "rasterizer": rasterizer.name, "device": str(device), **evaluation.to_json(),
    }  # fmt: skip


def _print_table(evaluation: Any) -> None:
    rows = [(view.name, view) for view in evaluation.per_view] + [("mean", evaluation)]
    width = max(len(name) for name, _ in rows)
    with_lpips = evaluation.lpips is not None
    print(f"{'view':<{width}}   PSNR    SSIM   PSNR8   SSIM8" + ("  LPIPS" if with_lpips else ""))
    for name, scores in rows:
        line = (
            f"{name:<{width}}  {scores.psnr:5.2f}  {scores.ssim:.4f}  {scores.psnr_8bit:6.2f}  {scores.ssim_8bit:.4f}"
        )
        print(line + (f"  {scores.lpips:.3f}" if with_lpips and scores.lpips is not None else ""))
    if not with_lpips:
        print(f"LPIPS {evaluation.protocol.get('lpips', 'absent')}")
