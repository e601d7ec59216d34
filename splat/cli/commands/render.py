"""``splat render``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from splat.cli.parsing import Parser, UsageError, split_settings

HELP = """
usage: splat render RUN [--views WHICH] [-o OUT] [options]

Draws a run's model. OUT ending in .mp4 makes a video, else a folder of PNGs (RUN/renders/<views> without -o).

  --views WHICH      test (default), train, all, path (between the training views), orbit, or a view's name or index
  --frames N         length of path and orbit (default 120)      --fps F     of a video (default 30)
  --channels LIST    any of color,depth,alpha (default color)
  --depth-kind K     expected (default) or median                --raw-depth F   none, png16 or npy
  --background C     black (default) or white
  -r, --downscale N  divide picture sides by N                   --max-size PX
  --model FILE       draw this model file instead of the run's newest
  --scene DIR        the capture, if it has moved (or for a model file outside a run)
  --device D         auto, cpu or cuda                           --rasterizer R  auto, native, gsplat or reference
  -q, --quiet        only the paths
Prints the files it wrote, one per line.
"""
BACKGROUNDS = {"black": (0.0, 0.0, 0.0), "white": (1.0, 1.0, 1.0)}


def run(argv: Sequence[str]) -> int:
    flags, settings = split_settings(argv)
    args = _parser().parse(flags)
    if (args.run is None) == (args.run_flag is None):
        raise UsageError("name one run: splat render RUN")
    for key, value in (("render.device", args.device), ("render.rasterizer", args.rasterizer),
                       ("scene.downscale", args.downscale), ("scene.max_size", args.max_size)):  # fmt: skip
        if value is not None:
            settings[key] = value
    if args.scene is not None:
        settings["capture"] = str(Path(args.scene).resolve())

    from splat.cli.opening import moved_to, open_model, require_drawable, run_config, run_scene
    from splat.config.build import build_config, nested
    from splat.config.devices import choose_device
    from splat.evaluate.render import render_views, select_cameras

    say = (lambda _: None) if args.quiet else (lambda line: print(line, file=sys.stderr, flush=True))
    target = Path(args.run or args.run_flag)
    if target.is_file() and args.scene is None:
        raise UsageError(f"{target} is a model file; name the capture that gives the views with --scene")
    if target.is_dir() or args.scene is None:
        config = run_config(target, settings)
    else:
        config = build_config([("command line", nested(settings))])
    device, rasterizer = choose_device(config.render, say)
    scene = run_scene(config, say)
    opened = open_model(Path(args.model) if args.model else target, say, scene=scene)
    model = moved_to(opened.model, device)
    require_drawable(model, rasterizer)
    cameras = select_cameras(scene, args.views, frames=args.frames)
    out = Path(args.output) if args.output else (target if target.is_dir() else target.parent) / "renders" / args.views
    say(f"{opened.source}: {opened.model.count:,} splats, {len(cameras)} pictures to {out}")
    written = render_views(
        model, rasterizer, cameras, out,
        channels=[name for name in args.channels.replace(",", " ").split() if name],
        depth=args.depth_kind, raw_depth=args.raw_depth, background=BACKGROUNDS[args.background], fps=args.fps,
    )  # fmt: skip
    for path in written:
        print(path)
    return 0


def _parser() -> Parser:
    parser = Parser("render")
    parser.add_argument("run", nargs="?")
    parser.add_argument("-m", "--model-path", "--run", dest="run_flag")
    parser.add_argument("-o", "--output", "--output-path", "--output-dir")
    parser.add_argument("--views", default="test")
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--channels", default="color")
    parser.add_argument("--depth-kind", default="expected", choices=("expected", "median"))
    parser.add_argument("--raw-depth", default="none", choices=("none", "png16", "npy"))
    parser.add_argument("--background", default="black", choices=tuple(BACKGROUNDS))
    parser.add_argument("-r", "--downscale")
    parser.add_argument("--max-size")
    parser.add_argument("--model")
    parser.add_argument("--scene", "-s", "--source", "--data")
    parser.add_argument("--device")
    parser.add_argument("--rasterizer")
    parser.add_argument("--quiet", "-q", action="store_true")
    return parser
