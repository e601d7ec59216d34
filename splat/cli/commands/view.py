"""``splat view``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from splat.cli.parsing import Parser, UsageError, split_settings
from splat.cli.viewer_flags import add_viewer_flags, edit_log_path, viewer_options

HELP = """
usage: splat view RUN|FILE [options]

Shows a run or a model file of any format that splat reads in the browser: look around, inspect, select, edit, drag,
export. Prints the page's address; Ctrl-C ends it.

  --scene DIR        the capture, for its cameras and photographs (a run knows its own)
  --log [FILE]       keep what is edited as a log that splat edit does again (without FILE: in the run, or beside the
                     file). One that is there goes on: what the model does not hold yet is done first, and can be
                     undone. Nothing else is written unless the page's export panel is told to
  --host H           address to listen on (default 127.0.0.1: this machine alone)
  --port P           port (default 8080, or the next that is free; 0 is any)
  --no-token         let everybody in who can reach the port
  --device D         auto, cpu or cuda               --rasterizer R   auto, native, gsplat or reference
  -q, --quiet        only the address
"""


def run(argv: Sequence[str]) -> int:
    flags, settings = split_settings(argv)
    args = _parser().parse(flags)
    if args.run is None:
        raise UsageError("name a run or a model file: splat view RUN")
    for key, value in (("render.device", args.device), ("render.rasterizer", args.rasterizer)):
        if value is not None:
            settings[key] = value
    if args.scene is not None:
        settings["capture"] = str(Path(args.scene).expanduser().resolve())

    options, target = viewer_options(args), Path(args.run).expanduser()
    log = edit_log_path(args.log, target)

    from splat.cli.opening import background_behind, moved_to, open_model, past_of, require_drawable
    from splat.cli.viewing import EndSignal, tell_address
    from splat.config.devices import choose_device, prepare_process

    say = (lambda _: None) if args.quiet else _say
    config, scene = _opened_scene(target, settings, say)
    prepare_process(config.render.threads)
    device, rasterizer = choose_device(config.render, say)
    opened = open_model(target, say, scene=scene)
    model = moved_to(opened.model, device)
    require_drawable(model, rasterizer)
    say(f"{opened.source}: {model.count:,} {model.primitive.kind} splats")

    from splat.edit.bench import Bench
    from splat.edit.marks import mark_of_header
    from splat.edit.session import EditSession
    from splat.viewer.serving.app import Viewer
    from splat.viewer.serving.standing import StandingHost

    labels, protection = past_of(target, opened)
    rows = Bench(model, labels.to(device), step=opened.step or 0)
    session = EditSession(rasterizer=rasterizer, base=mark_of_header(opened.header))
    if log is not None:
        session.go_on(rows, log, say)
    with (
        EndSignal() as end,
        StandingHost(rows.model, labels=rows.labels, step=rows.step, protection=protection) as host,
    ):
        viewer = Viewer(
            host.link, scene=scene, rasterizer=rasterizer, device=device, session=session,
            run_dir=target if target.is_dir() else None, host=options.host, port=options.port, token=options.token(),
            header=opened.header, model=rows.model, standing=True,
            background=background_behind(opened, config, settings),
        )  # fmt: skip
        try:
            viewer.start()
            tell_address(viewer, _say)
            return end.wait()
        finally:
            viewer.close()


def _opened_scene(target: Path, settings: dict, say):
    """Configuration and capture of a run, or of a file with ``--scene``; without a capture the page has no cameras."""
    from splat.cli.opening import run_config, run_scene
    from splat.config.build import build_config, nested
    from splat.errors import UserError

    is_run = target.is_dir() and (target / "config.toml").exists()
    config = run_config(target, settings) if is_run else build_config([("command line", nested(settings))])
    if not config.capture:
        return config, None
    try:
        return config, run_scene(config, say)
    except UserError as error:
        if "capture" in settings:  # asked for by name
            raise
        say(f"warning: no cameras and photographs: {error}")
        return config, None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> Parser:
    parser = Parser("view")
    parser.add_argument("run", nargs="?")
    parser.add_argument("--scene", "-s", "--source", "--data")
    parser.add_argument("--log", nargs="?", const="")
    parser.add_argument("--device")
    parser.add_argument("--rasterizer")
    parser.add_argument("--quiet", "-q", action="store_true")
    add_viewer_flags(parser)
    return parser
