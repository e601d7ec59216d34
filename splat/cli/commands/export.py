"""``splat export``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splat.cli.parsing import Parser, UsageError

if TYPE_CHECKING:
    from splat.cli.conversion import Stage

_PAGE = """
usage: splat export RUN|FILE [-o OUT] [--format F[,F...]|all] [options]

Writes a run's newest model, or a model file, in other formats. Interchange formats are written in the capture's own
coordinate frame. Every file is read back and drawn (from held-out views, where the run's capture is there; else from
cameras.json or from around it, against the model's own pictures); the table says what each format costs and keeps.

  -o, --output OUT   the file to write, its suffix naming the format when --format does not; or a folder.
                     Without it the files lie beside their source, named by their formats
  --format F[,F...]  all, or some of
{formats}
{options}
  --as-captured      leave out the scale and up that were set in the viewer (RUN/placement.json)
  --scene DIR        the capture, if it has moved (or for a model file outside a run)
Prints the files it wrote, one per line; the table goes to the error stream.
"""


def __getattr__(name: str) -> str:
    """``HELP``, put together when it is asked for: it reads the table of formats."""
    if name == "HELP":
        from splat.cli.format_help import help_page

        return help_page(_PAGE, importance="judged by their blend weights in the capture's views")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def run(argv: Sequence[str]) -> int:
    from splat.cli.exporting import (
        add_options,
        prepared,
        selection_of,
        set_by_hand,
        with_values_joined,
        write_all,
        write_json,
    )

    parser = Parser("export")
    parser.add_argument("source", nargs="?")
    parser.add_argument("-o", "--output")
    parser.add_argument("--format", "-f")
    parser.add_argument("--scene")
    parser.add_argument("--as-captured", action="store_true")
    add_options(parser)
    args = parser.parse(with_values_joined(argv))
    if args.source is None:
        raise UsageError("name a run or a model file: splat export RUN -o model.ply")

    say = (lambda _: None) if args.quiet else (lambda line: print(line, file=sys.stderr, flush=True))
    selection_of(args)  # wrong values are told before anything is read
    targets = _targets(args)
    source, opened = _opened(Path(args.source), args, say)
    targets = _without_source(targets, source, args)
    with _stage(args, opened, say) as around:
        placement = None if args.as_captured else set_by_hand(Path(args.source), say)
        source = prepared(source, args, around, say, placement)
        stage = around if _measures(args) else None
        table = write_all(source, targets, stage, say, wrote=lambda path: print(path, flush=True), go_on=_is_all(args))
        say(table.text())
        _tell_loss(source, table, stage, say)
    if args.json:
        write_json(args.json, source, table)
    return 0


def _measures(args: Any) -> bool:
    """Whether somebody will see what the files look like."""
    return not args.no_measure and (not args.quiet or args.json is not None)


def _is_all(args: Any) -> bool:
    from splat.io.format_names import is_all

    return is_all(args.format)


def _targets(args: Any) -> list[tuple[str, Path]]:
    """(format, path) of every file, before anything is read."""
    from splat.io.format_names import file_in, file_name, format_names, stem_of
    from splat.io.formats import format_for

    source, out = Path(args.source), None if args.output is None else Path(args.output)
    names = format_names(args.format)
    if out is None:
        names = names or ["ply"]
        folder, stem = (source, "export") if source.is_dir() else (source.parent, stem_of(source))
        return [(name, folder / file_name(stem, name)) for name in names]
    if out.is_dir() or args.output.endswith("/") or len(names) > 1 or _is_all(args):
        if out.is_file():
            raise UsageError(f"{out} is a file; several formats need a folder")
        stem = source.resolve().name if source.is_dir() else stem_of(source)
        return [(name, out / file_name(stem, name)) for name in names or ["ply"]]
    name = names[0] if names else format_for(out, None).name
    return [(name, file_in(out, name))]


def _opened(path: Path, args: Any, say: Any) -> tuple[Any, Any]:
    from splat.cli.exporting import source_of
    from splat.cli.opening import open_model, run_config, run_scene
    from splat.io.header import scene_header

    opened = open_model(path, say)
    header = dict(opened.header)
    if opened.source.parent.name == "checkpoints" and "world_from_input" not in header:
        settings = {} if args.scene is None else {"capture": str(Path(args.scene).resolve())}
        header = {**scene_header(run_scene(run_config(path, settings), say)), **header}
    return source_of(opened.model, header, [opened.source]), opened


def _without_source(targets: list[tuple[str, Path]], source: Any, args: Any) -> list[tuple[str, Path]]:
    """The targets; ``all`` leaves out the one that is the source itself, anything else refuses it."""
    from splat.cli.exporting import refuse_own_source

    kept = []
    for name, path in targets:
        try:
            refuse_own_source(path, source)
        except UsageError:
            if not _is_all(args):
                raise
            continue
        kept.append((name, path))
    return kept


@contextmanager
def _stage(args: Any, opened: Any, say: Any) -> Iterator[Stage | None]:
    """Where files are drawn; None where nothing is to be, or the run's configuration cannot be opened."""
    from splat.cli.conversion import open_stage
    from splat.errors import UserError

    if not _measures(args) and args.max_splats is None:
        yield None
        return
    with ExitStack() as stack:
        stage = None
        try:
            scene = None if args.scene is None else Path(args.scene)
            stage = stack.enter_context(open_stage(Path(args.source), opened, say, scene=scene))
        except UserError as error:
            if args.scene is not None:
                raise
            say(f"warning: what was lost was not measured: {error}")
        yield stage


def _tell_loss(source: Any, table: Any, stage: Stage | None, say: Any) -> None:
    """A line about what plain Gaussians lose, where a file of them was written."""
    from splat.cli.conversion import tell_loss
    from splat.io.formats import FORMATS

    if stage is not None and any(row.path and FORMATS[row.format].frame == "capture" for row in table.rows):
        tell_loss(source.model, stage, say)
