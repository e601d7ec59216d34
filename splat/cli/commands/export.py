"""``splat export``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from splat.cli.parsing import Parser, UsageError

HELP = """
usage: splat export RUN|FILE [-o OUT] [--format F]

Writes a run's newest model, or a model file, in another format. Interchange formats are written in the capture's own
coordinate frame. Without -o the file lies beside its source, named by the format. Where plain Gaussians cannot draw
the same picture, both are drawn (from held-out views, where the run's capture is there) and the loss is told.

  -o, --output OUT   the file to write; its suffix names the format when --format does not
  --format F         ply (Inria layout, opened by every viewer) or native (model.safetensors, the rows as trained)
  -q, --quiet        only the path
Prints the file it wrote.
"""
SUFFIXES = {"ply": ".ply", "native": ".safetensors"}


def run(argv: Sequence[str]) -> int:
    parser = Parser("export")
    parser.add_argument("source", nargs="?")
    parser.add_argument("-o", "--output")
    parser.add_argument("--format", "-f")
    parser.add_argument("--quiet", "-q", action="store_true")
    args = parser.parse(argv)
    if args.source is None:
        raise UsageError("name a run or a model file: splat export RUN -o model.ply")

    from splat.cli.conversion import tell_export
    from splat.cli.opening import open_model, run_config, run_scene
    from splat.io.formats import FORMATS, write_model

    say = (lambda _: None) if args.quiet else (lambda line: print(line, file=sys.stderr, flush=True))
    source = Path(args.source)
    opened = open_model(source, say)
    header = dict(opened.header)
    if opened.source.parent.name == "checkpoints" and "world_from_input" not in header:
        header["world_from_input"] = run_scene(run_config(source), say).world_from_input.tolist()
    format_name = args.format or (None if args.output else "ply")
    out = Path(args.output) if args.output else _default_path(source, format_name)
    if out.resolve() == opened.source.resolve():
        raise UsageError(f"{out} is the source itself; choose another -o")
    written = write_model(opened.model, out, format=format_name, header=header)
    say(f"{opened.model.count:,} splats as {written.format}, {written.size_bytes:,} bytes, {written.fidelity}")
    if FORMATS[written.format].frame == "capture" and not args.quiet:
        tell_export(source, opened, say)
    print(written.path)
    return 0


def _default_path(source: Path, format_name: str) -> Path:
    suffix = SUFFIXES.get(format_name, f".{format_name}")
    return source / f"export{suffix}" if source.is_dir() else source.with_suffix(suffix)
