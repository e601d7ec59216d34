"""``splat render``."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splat.cli.parsing import Parser, UsageError, split_settings

if TYPE_CHECKING:
    from splat.cli.filming import Shots
    from splat.cli.opening import OpenedModel
    from splat.config.schema import TrainConfig
    from splat.geometry.camera import Camera

    Say = Callable[[str], None]
    Views = tuple[OpenedModel, Sequence[Camera], str, float, Shots | None]
    """What is drawn, from where, what that is called, pictures per second, and how where keys say so."""

HELP = """
usage: splat render RUN [--views WHICH | --path FILE] [-o OUT] [options]

Draws a run's model. OUT ending in .mp4 makes a video, else a folder of PNGs. Without -o: RUN/renders/<views>, for a
path file the video RUN/renders/<its name>.mp4.

  --views WHICH      test (default), train, all, path (between the training views), orbit, or a view's name or index
  --frames N         length of path and orbit (default 120)      --fps F     of a video (default the file's, or 30)
  --path FILE        a camera path of keyframes (JSON, as the viewer's path panel saves it). It stands in the capture's
                     own frame and fits every run and model file of that capture, which need not be there. Display
                     settings of its keys (mode, ramp, ...) hold unless --channels or --raw-depth is given
  --size WxH         of a path file's pictures (default what it says, or 1280x720)
  --channels LIST    any of color,depth,alpha (default color)
  --depth-kind K     expected (default) or median                --raw-depth F   none, png16 or npy
  --background C     black or white; without it the one that was trained before, black where that was random
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
    _check(args)

    from splat.config.devices import choose_device

    say = (lambda _: None) if args.quiet else (lambda line: print(line, file=sys.stderr, flush=True))
    target = Path(args.run or args.run_flag)
    config = _config(target, args, settings)
    if args.background is None and "optim.background" in settings:
        args.background = "white" if config.optim.background == "white" else "black"
    device, rasterizer = choose_device(config.render, say)
    found = _along_file if args.path is not None else _of_capture
    opened, cameras, name, fps, styled = found(target, args, config, say)

    from splat.cli.opening import moved_to, require_drawable
    from splat.evaluate.render import render_views

    model = moved_to(opened.model, device)
    require_drawable(model, rasterizer)
    out = Path(args.output) if args.output else (target if target.is_dir() else target.parent) / "renders" / name
    say(f"{opened.source}: {opened.model.count:,} splats, {len(cameras)} pictures to {out}")
    if styled is not None:
        from splat.cli.filming import write_shots

        written = write_shots(model, opened.step, styled, out, rasterizer, fps=fps)
    else:
        channels = [name for name in (args.channels or "color").replace(",", " ").split() if name]
        written = render_views(
            model, rasterizer, cameras, out, channels=channels, depth=args.depth_kind, raw_depth=args.raw_depth,
            background=_behind(args, opened, config), fps=fps,
        )  # fmt: skip
    for path in written:
        print(path)
    return 0


def _check(args: argparse.Namespace) -> None:
    """UsageError for flags that do not go together."""
    given = {"--views": args.views, "--frames": args.frames, "--downscale": args.downscale, "--max-size": args.max_size}
    if args.path is not None:
        for flag, value in given.items():
            if value is not None:
                raise UsageError(f"{flag} does not fit --path: the file gives the views, --size their size")
    elif args.size is not None:
        raise UsageError("--size is for --path; views of the capture are made smaller with --downscale or --max-size")
    if args.fps is not None and not 0 < args.fps < math.inf:
        raise UsageError(f"--fps {args.fps:g} does not fit: above 0")


def _config(target: Path, args: argparse.Namespace, settings: dict[str, Any]) -> TrainConfig:
    from splat.cli.opening import run_config
    from splat.config.build import build_config, nested

    if args.path is None and args.scene is None and target.is_file():
        raise UsageError(f"{target} is a model file; name the capture that gives the views with --scene")
    is_run = (target / "config.toml").exists() if args.path is not None else target.is_dir() or args.scene is None
    return run_config(target, settings) if is_run else build_config([("command line", nested(settings))])


def _of_capture(target: Path, args: argparse.Namespace, config: TrainConfig, say: Say) -> Views:
    from splat.cli.opening import open_model, run_scene
    from splat.evaluate.render import select_cameras

    scene = run_scene(config, say)
    opened = open_model(Path(args.model) if args.model else target, say, scene=scene)
    which = args.views or "test"
    cameras = select_cameras(scene, which, frames=args.frames or 120)
    return opened, cameras, which, args.fps or 30.0, None


def _behind(args: argparse.Namespace, opened: Any, config: TrainConfig) -> tuple[float, float, float]:
    from splat.cli.opening import background_behind

    return BACKGROUNDS[args.background] if args.background else background_behind(opened, config)


def _along_file(target: Path, args: argparse.Namespace, config: TrainConfig, say: Say) -> Views:
    """The keys stand in the capture's frame: moved into that of the model, which its file knows (a checkpoint's is
    that of the run's capture)."""
    from splat.cli.opening import open_model, run_scene
    from splat.geometry.keyframe_json import SIDES_PX, read_path

    path = read_path(args.path)
    size = path.size or (1280, 720)
    if args.size is not None:
        parts = args.size.lower().split("x")
        if len(parts) != 2 or not all(part.isdecimal() and SIDES_PX[0] <= int(part) <= SIDES_PX[1] for part in parts):
            raise UsageError(f"--size {args.size!r} does not fit: WIDTHxHEIGHT, each {SIDES_PX[0]} to {SIDES_PX[1]}")
        size = int(parts[0]), int(parts[1])
    opened = open_model(Path(args.model) if args.model else target, say)
    world_from_input = opened.header.get("world_from_input")
    if world_from_input is None and opened.source.parent.name == "checkpoints":
        world_from_input = run_scene(config, say).world_from_input
    if world_from_input is not None:
        path = path.moved(world_from_input)
    path = replace(path, fps=args.fps or path.fps)
    styled = None
    if args.channels is None and args.raw_depth == "none":
        from splat.cli.filming import styled_shots

        styled = styled_shots(path, size, _behind(args, opened, config))
    return opened, path.cameras(size=size), Path(args.path).stem + ".mp4", path.fps, styled


def _parser() -> Parser:
    parser = Parser("render")
    parser.add_argument("run", nargs="?")
    parser.add_argument("-m", "--model-path", "--run", dest="run_flag")
    parser.add_argument("-o", "--output", "--output-path", "--output-dir")
    parser.add_argument("--views")
    parser.add_argument("--path")
    parser.add_argument("--size")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--fps", type=float)
    parser.add_argument("--channels")
    parser.add_argument("--depth-kind", default="expected", choices=("expected", "median"))
    parser.add_argument("--raw-depth", default="none", choices=("none", "png16", "npy"))
    parser.add_argument("--background", choices=tuple(BACKGROUNDS))
    parser.add_argument("-r", "--downscale")
    parser.add_argument("--max-size")
    parser.add_argument("--model")
    parser.add_argument("--scene", "-s", "--source", "--data")
    parser.add_argument("--device")
    parser.add_argument("--rasterizer")
    parser.add_argument("--quiet", "-q", action="store_true")
    return parser
