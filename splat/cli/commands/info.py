"""``splat info``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from splat.cli.parsing import Parser, UsageError

_PAGE = """
usage: splat info RUN|FILE [--json FILE]

Says what is in a model file, a folder of one or a run's model: format, bits per splat, splats, box, histograms, what
looks wrong (floaters, oversized, never drawn), SH bands that are used, frame and up axis, what was not kept. It reads
{formats}

  --json FILE        write the same as JSON; '-' prints it instead of the page
"""


def __getattr__(name: str) -> str:
    """``HELP``, put together when it is asked for: it reads the table of formats."""
    if name == "HELP":
        from splat.cli.format_help import readable_formats
        from splat.cli.purposes import table

        return _PAGE.format(formats=table(readable_formats(), indent=2))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def run(argv: Sequence[str]) -> int:
    parser = Parser("info")
    parser.add_argument("source", nargs="?")
    parser.add_argument("--json")
    args = parser.parse(argv)
    if args.source is None:
        raise UsageError("name a model file or a run: splat info FILE")

    from splat.io.atomic import write_text
    from splat.io.info import describe

    info = describe(Path(args.source))
    text = json.dumps(info.to_json(), indent=1)
    print(text if args.json == "-" else info.text())
    if args.json not in (None, "-"):
        write_text(args.json, text + "\n")
    return 0
