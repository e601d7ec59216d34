"""``splat compress``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from splat.cli.parsing import Parser, UsageError, split_settings

_PAGE = """
usage: splat compress RUN|FILE [--compressor KIND] [--steps N] [-o OUT] [options]

Makes a trained model small, after the fact. Where its capture is there (a run's, or --scene), the model is trained for
a few more steps through the compressor, with the last learning rates and no densifier; without a capture it is packed
as it is. The file is read back and drawn: PSNR and SSIM on held-out views (without a capture: against the model's own
pictures), beside the model's own and the size of its PLY. The run itself stays as it is.

  --compressor KIND    how; without it the run's own, or the one that can reach the goal
{compressors}
  --compressor.KEY V   one of its settings; 'splat train --help-all' lists them
  --steps N            training steps through the compressor; 500 where there is a capture and nothing was edited by
                       hand (photographs pull edits back), 0 packs as it is
  --target-mb X        the best picture in at most X MB (10^6 bytes)
  --max-psnr-drop D    the smallest file that loses at most D dB; wants photographs
  -o, --output OUT     the file to write; without it compressed.spack in the run, or FILE's name with .spack
  --format F           spack (ours), or another that 'splat export --help' lists; OUT's suffix names it, too
  --scene DIR          the capture, if it has moved or FILE belongs to no run
  --device D           auto, cpu or cuda               --rasterizer R   auto, native, gsplat or reference
  --seed S             of what is drawn at random
  --json FILE          write sizes and scores to FILE
  -q, --quiet          only the path
Prints the file it wrote. Exit codes: 0 done, 1 written but the goal was missed, 2 something to mend in the input,
130/143 interrupted (nothing is written).
"""
FLAGS = {
    "compressor": "compressor.kind", "device": "render.device", "rasterizer": "render.rasterizer", "seed": "seed",
}  # fmt: skip
"""Flag -> the setting it sets."""


def __getattr__(name: str) -> str:
    """``HELP``, put together when it is asked for: it reads the table of compressors."""
    if name == "HELP":
        from splat.cli.purposes import purposes, table

        return _PAGE.format(compressors=table(purposes("compressor")))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def run(argv: Sequence[str]) -> int:
    flags, settings = split_settings(argv)
    args = _parser().parse(flags)
    if args.source is None:
        raise UsageError("name a run or a model file: splat compress RUN")
    if args.target_mb is not None and args.max_psnr_drop is not None:
        raise UsageError("--target-mb and --max-psnr-drop are two goals; give one")
    for flag in ("target_mb", "max_psnr_drop"):
        value = getattr(args, flag)
        if value is not None and not value > 0:
            raise UsageError(f"--{flag.replace('_', '-')} {value:g} does not fit: it must be above 0")
    if args.steps is not None and args.steps < 0:
        raise UsageError(f"--steps {args.steps} does not fit: 0 packs the model as it is")
    given: dict[str, Any] = {key: getattr(args, flag) for flag, key in FLAGS.items() if getattr(args, flag) is not None}
    if args.scene is not None:
        given["capture"] = str(Path(args.scene).expanduser().resolve())

    from splat.cli.compression import Compression

    say = (lambda _: None) if args.quiet else (lambda line: print(line, file=sys.stderr, flush=True))
    return Compression(args, {**given, **settings}, say).run()


def _parser() -> argparse.ArgumentParser:
    parser = Parser("compress")
    parser.add_argument("source", nargs="?")
    parser.add_argument("-o", "--output")
    parser.add_argument("--format", "-f")
    parser.add_argument("--compressor")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--target-mb", type=float)
    parser.add_argument("--max-psnr-drop", type=float)
    parser.add_argument("--scene", "-s")
    parser.add_argument("--device")
    parser.add_argument("--rasterizer")
    parser.add_argument("--seed")
    parser.add_argument("--json")
    parser.add_argument("--quiet", "-q", action="store_true")
    return parser
