"""``splat sfm``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from splat.cli.parsing import Parser, UsageError

HELP = """
usage: splat sfm SOURCE [-o OUT] [options]

Finds camera poses for a folder of photos or a video with COLMAP (pycolmap: pip install pycolmap). OUT becomes a
capture for 'splat train': images/ and sparse/0. 'splat train' does this by itself when a capture has no poses.

  -o, --output OUT   folder of the capture; without it the model goes into the photos' own folder
  --max-frames N     keep the N sharpest, evenly spread frames of a video
  --matcher M        auto, exhaustive or sequential
  --camera-model C   COLMAP's name of the lens model (default OPENCV)
  --max-size PX      shrink pictures to this for feature extraction (default 1600)
  --threads N        -1 is all cores                        --seed S
  -q, --quiet        only the folder
Prints the folder of the capture.
"""


def run(argv: Sequence[str]) -> int:
    parser = Parser("sfm")
    parser.add_argument("source", nargs="?")
    parser.add_argument("-o", "--output")
    parser.add_argument("--max-frames", type=int)
    parser.add_argument("--matcher", default="auto", choices=("auto", "exhaustive", "sequential"))
    parser.add_argument("--camera-model", default="OPENCV")
    parser.add_argument("--max-size", type=int, default=1600)
    parser.add_argument("--threads", type=int, default=-1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", "-q", action="store_true")
    args = parser.parse(argv)
    if args.source is None:
        raise UsageError("name a folder of photos or a video: splat sfm SOURCE")

    from splat.scene.sfm import run_sfm
    from splat.scene.unposed import default_workspace

    say = (lambda _: None) if args.quiet else (lambda line: print(line, file=sys.stderr, flush=True))
    source = Path(args.source).expanduser()
    workspace = Path(args.output) if args.output else default_workspace(source)
    capture = run_sfm(
        source, workspace, max_frames=args.max_frames, matcher=args.matcher, camera_model=args.camera_model,
        max_image_size=args.max_size, threads=args.threads, seed=args.seed, on_message=say,
    )  # fmt: skip
    print(capture)
    return 0
