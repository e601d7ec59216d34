"""``splat edit``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from splat.cli.parsing import Parser, UsageError

HELP = """
usage: splat edit RUN|FILE [--log edits.json] [--op JSON ...] [-o OUT] [options]

Edits a run's newest model, or a model file, without a screen: first the operations of the log, as the viewer writes
them, then the single ones in their order. Says what each did; the source stays as it is. A model remembers what was
done to it: what it holds of the log already (a training's own log, say) is passed over.

  --log FILE         do again what a session did
  --op JSON|@FILE    one more operation; may be given again
  -o, --output OUT   the file to write, its suffix naming the format when --format does not. Without it
                     RUN/edited.safetensors, or NAME-edited.safetensors beside the file
  --format F         one of those 'splat export --help' lists
  --save-log FILE    write all that was done as a log
  --dry-run          write nothing
  --scene DIR        the capture, if it has moved (or for a model file outside a run)
  --edit-prior NAME  let drags be refined by a prior: none (geometry alone), sds-inpaint, lightning-drag
  --edit-prior-path DIR   where its weights lie; nothing is ever downloaded
  --prior-steps N    how long
  -q, --quiet        only the path
Prints OUT, the rest goes to the error stream. Exit codes: 0 done, 2 something to mend in the input, nothing written.

operations (lengths and places in the model's own frame, pixels from the left upper corner):
  {"kind": "select", "shape": SHAPE, "combine": "set|add|subtract|intersect", "reach": "centers|visible"}
      SHAPE: {"kind": "sphere", "center": [0, 0, 0], "radius": 1}   {"kind": "all"}   {"kind": "none"}
             {"kind": "box", "world_from_box": [4 x 4], "size": [1, 1, 1]}
             {"kind": "color", "rgb": [1, 0, 0], "tolerance": 0.2}
             {"kind": "attribute", "attribute": "opacity", "low": 0, "high": 0.05}
             {"kind": "rect", "view": VIEW, "low": [0, 0], "high": [99, 99]}
             {"kind": "lasso", "view": VIEW, "points": [[0, 0], [99, 0], [0, 99]]}
             {"kind": "brush", "view": VIEW, "points": [[5, 5], [50, 5]], "radius_px": 4}
             {"kind": "click", "view": VIEW, "at": [5, 5]}   {"kind": "flood", "view": VIEW, "at": [5, 5]}
             {"kind": "mask", "views": [VIEW], "masks": ["mask.png"], "share": 0.5}
      VIEW: the name of a photograph, or {"camera_from_world": [4 x 4], "K": [3 x 3], "width": 640, "height": 480}
  {"kind": "invert"}   {"kind": "delete", "outside": false}   {"kind": "mark", "what": "hide|show|lock|unlock"}
  {"kind": "duplicate", "offset": [1, 0, 0]}   {"kind": "transform", "similarity": [4 x 4]}
  {"kind": "recolor", "tint": [1, 1, 1], "temperature": 0, "saturation": 1, "brightness": 0, "opacity": 1}
  {"kind": "drag", "handles": [{"at": [0, 0, 0], "to": [0, 1, 0], "radius": 0.1}], "anchors": [], "mode": "arap"}
      modes: arap, rigid, smooth, lattice

the same from Python:
  from splat.edit import bench, ops, session, shapes
  from splat.io.formats import read_model, write_model
  loaded = read_model("model.safetensors")
  rows = bench.Bench(loaded.model)
  faint = ops.Select(shapes.AttributeRange("opacity", 0, 0.05))
  session.replay(rows, [faint, ops.Delete()], session.EditSession(), print)
  write_model(rows.model, "edited.ply", header=loaded.header)
"""
_TEXTS = ("--log", "--format", "--save-log", "--scene", "--edit-prior", "--edit-prior-path")
"""Flags that take a text."""


def run(argv: Sequence[str]) -> int:
    args = _parser().parse(argv)
    if args.source is None:
        raise UsageError("name a run or a model file: splat edit RUN --log edits.json -o edited.ply")
    if args.log is None and not args.op:
        raise UsageError("nothing to do: name a log (--log edits.json) or an operation (--op '{\"kind\": ...}')")

    from dataclasses import replace

    from splat.cli.editing import Cameras, drag_solver, given_ops
    from splat.cli.exporting import refuse_own_source
    from splat.config.devices import prepare_process
    from splat.edit.bench import Bench
    from splat.edit.json_ops import op_line, write_log
    from splat.edit.marks import mark_of_header
    from splat.edit.session import EditSession, replay

    say = (lambda _: None) if args.quiet else (lambda line: print(line, file=sys.stderr, flush=True))
    prepare_process(0)  # the same bits on any number of cores
    path = Path(args.source)
    name, out = _target(args, path)
    source, opened = _opened(path, args, say)
    refuse_own_source(out, source)
    cameras = Cameras(opened, None if args.scene is None else Path(args.scene), say)
    rasterizer = _rasterizer(say)
    solver = drag_solver(args, cameras, rasterizer, say)
    rows = Bench(opened.model, step=opened.step or 0)
    session = EditSession(rasterizer=rasterizer, drag=solver, base=mark_of_header(opened.header))
    before, ops = rows.model.count, given_ops(args.log, args.op, cameras)
    held = session.base.held_of([op_line(op) for op in ops])
    if held:
        say(f"the first {held} operations are in this model already and are passed over; what they left selected, "
            "hidden or locked is not known any more")  # fmt: skip
    logged = len(ops) - len(args.op)
    places = [f"{args.log}: op {number + 1}" if number < logged else f"--op {number + 1 - logged}"
              for number in range(len(ops))]  # fmt: skip
    replay(rows, ops[held:], session, say, places=places[held:])
    if session.status.ops == 0 and len(ops) > held:
        say("warning: none of the operations changed anything")
    say(f"{before:,} splats became {rows.model.count:,}")
    if args.dry_run:
        return 0
    if args.save_log is not None:
        write_log(args.save_log, session.ops)
    source = replace(source, header=session.mark.in_header(source.header))
    _write(source, rows.model, name, out, say)
    return 0


def _parser() -> Parser:
    parser = Parser("edit")
    parser.add_argument("source", nargs="?")
    parser.add_argument("-o", "--output")
    for flag in _TEXTS:
        parser.add_argument(flag)
    parser.add_argument("--op", action="append", default=[])
    parser.add_argument("--prior-steps", type=int)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--quiet", "-q", action="store_true")
    return parser


def _target(args: Any, source: Path) -> tuple[str, Path]:
    """Format and file to write, before anything is read."""
    from splat.io.format_names import file_in, stem_of
    from splat.io.formats import format_for

    if args.output is not None:
        out = Path(args.output)
        name = format_for(out, args.format).name
        return name, file_in(out, name)
    name = args.format or "native"
    suffix = next((suffix for suffix in format_for(Path("x"), name).suffixes if suffix.startswith(".")), "")
    if source.is_dir():
        return name, file_in(source / f"edited{suffix}", name)
    return name, file_in(source.parent / f"{stem_of(source)}-edited{suffix}", name)


def _opened(path: Path, args: Any, say: Any) -> tuple[Any, Any]:
    """The source, and the opened model; what a run wrote as its own model is a source too."""
    from splat.cli.exporting import source_of
    from splat.cli.opening import open_model, run_config, run_scene
    from splat.io.header import scene_header

    opened = open_model(path, say)
    header = dict(opened.header)
    for warning in header.get("warnings", ()):
        say(f"warning: {warning}")
    if opened.source.parent.name == "checkpoints" and "world_from_input" not in header:
        settings = {} if args.scene is None else {"capture": str(Path(args.scene).resolve())}
        header = {**scene_header(run_scene(run_config(path, settings), say)), **header}
    files = [opened.source]
    if path.is_dir() and (path / "model.safetensors").exists():
        files.append(path / "model.safetensors")
    return source_of(opened.model, header, files), opened


def _rasterizer(say: Any) -> Any:
    """What tells what is seen; selections that need no picture go without."""
    from splat.errors import UserError
    from splat.render.registry import choose

    try:
        return choose("cpu")
    except UserError as error:
        say(f"warning: nothing can be drawn here, so selections go by centers: {error}")
        return None


def _write(source: Any, model: Any, name: str, out: Path, say: Any) -> None:
    from dataclasses import replace

    from splat.cli.exporting import write_all

    table = write_all(
        replace(source, model=model), [(name, out)], None, say, wrote=lambda path: print(path, flush=True)
    )
    for row in table.rows:
        if row.lost:
            say(f"{row.format} does not keep: {'; '.join(row.lost)}")
