"""``splat convert``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from splat.cli.parsing import Parser, UsageError

_PAGE = """
usage: splat convert A [A2 ...] B [--format F] [options]

Reads the model file A (or a folder that holds one) and writes B, in the capture's own coordinate frame where the
format is an interchange format. B is read back and drawn from a ring around the model; the table says what B does not
keep. Several inputs become one model, where they are of one kind.

  --format F         the format of B, where its suffix does not say it
{formats}
{options}
Prints B; the table goes to the error stream.
"""


def __getattr__(name: str) -> str:
    """``HELP``, put together when it is asked for: it reads the table of formats."""
    if name == "HELP":
        from splat.cli.format_help import help_page

        return help_page(_PAGE, importance="opaque and large ones")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def run(argv: Sequence[str]) -> int:
    from splat.cli import exporting

    parser = Parser("convert")
    parser.add_argument("files", nargs="*")
    parser.add_argument("-o", "--output")
    parser.add_argument("--format", "-f")
    exporting.add_options(parser)
    args = parser.parse(exporting.with_values_joined(argv))
    files = [*args.files, *([args.output] if args.output else [])]
    if len(files) < 2:
        raise UsageError("name a file to read and one to write: splat convert in.ply out.sog")
    from splat.io.format_names import file_in
    from splat.io.formats import format_for

    say = (lambda _: None) if args.quiet else (lambda line: print(line, file=sys.stderr, flush=True))
    out = Path(files[-1])
    name = format_for(out, args.format).name
    out = file_in(out, name)
    exporting.selection_of(args)  # wrong values are told before anything is read
    source, opened = _read([Path(file) for file in files[:-1]], say)
    exporting.refuse_own_source(out, source)
    stage = _ring(opened) if not args.no_measure and (not args.quiet or args.json) else None
    source = exporting.prepared(source, args, stage, say)
    table = exporting.write_all(source, [(name, out)], stage, say, wrote=print)
    say(table.text())
    if args.json:
        exporting.write_json(args.json, source, table)
    return 0


def _read(files: list[Path], say: Any) -> tuple[Any, Any]:
    """The source, and the same as an opened model; several files are brought into the capture's frame and joined."""
    from splat.cli.exporting import source_of
    from splat.cli.opening import OpenedModel
    from splat.io.formats import in_capture_frame, model_file, read_model
    from splat.io.selection import inverse_of, merged

    loaded = [read_model(file) for file in files]
    for each in loaded:
        for warning in each.header.get("warnings", ()):
            say(f"warning: {warning}")
    model, header = loaded[0].model, loaded[0].header
    if len(loaded) > 1:
        moved = [in_capture_frame(each.model, inverse_of(each.header.get("world_from_input"))) for each in loaded]
        model, header = merged(moved), {**header, "world_from_input": None}
        say(f"{model.count:,} splats from {len(files)} files")
    source = source_of(model, header, files)
    return source, OpenedModel(model, source.header, None, model_file(files[0]))


def _ring(opened: Any) -> Any:
    """Cameras around the model: no run is looked for."""
    from splat.cli.conversion import stage_without_capture
    from splat.config.devices import choose_device
    from splat.config.schema import RenderConfig

    return stage_without_capture(opened, *choose_device(RenderConfig(), lambda _: None), None)
