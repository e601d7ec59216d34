"""``splat info``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from splat.cli.parsing import Parser, UsageError

HELP = """
usage: splat info RUN|FILE [--json FILE]

Says what is in a model file (native or PLY) or in a run's model: format, splats, box, histograms, what looks wrong.

  --json FILE        write the same as JSON; '-' prints it instead of the page
"""


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
