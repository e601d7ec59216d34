"""What help pages say of formats and of the options around them, read from the sources: importing the table of formats
would import torch."""

from __future__ import annotations

import ast
from importlib import util
from pathlib import Path

from splat.cli.purposes import table

MODULE = "splat.io.formats"
FIELDS = ("name", "purpose", "suffixes", "read", "write", "fidelity", "matches", "frame")
"""Of ``Format``, in order."""
OPTIONS = """\
  --up AXIS          turn the file so that the capture's up becomes x, -x, y, -y, z or -z there
  --crop BOX         keep what lies in x0,y0,z0,x1,y1,z1 of the capture's own frame; or a file with these numbers
  --min-opacity A    leave out splats fainter than A
  --max-splats N     keep the N that matter most: {importance}
  --sh-degree D      keep the bands of view-dependent colour up to D
  --json FILE        write the table as JSON
  --no-measure       draw nothing; the table has sizes and seconds only
  -q, --quiet        only the paths"""


def help_page(page: str, *, importance: str) -> str:
    """``page`` with its formats and options filled in."""
    return page.format(formats=table(format_purposes()), options=OPTIONS.format(importance=importance))


def format_purposes() -> dict[str, str]:
    """Name -> what it is for, in the order of the table; one-way formats say so. A variant that another row reads is
    none."""
    rows = [_given(node) for node in ast.walk(_parsed()) if isinstance(node, ast.Call) and _is_row(node)]
    understood = {ast.unparse(row["matches"]) for row in rows if not _is_none(row["read"])}
    lines = {}
    for row in rows:
        one_way = ""
        if _is_none(row["write"]):
            one_way = " (only read)"
        elif _is_none(row["read"]) and ast.unparse(row["matches"]) not in understood:
            one_way = " (only written)"
        lines[row["name"].value] = row["purpose"].value + one_way
    return lines


def readable_formats() -> dict[str, str]:
    """The same for those that can be read."""
    readable = {row["name"].value for node in ast.walk(_parsed()) if isinstance(node, ast.Call) and _is_row(node)
                for row in [_given(node)] if not _is_none(row["read"])}  # fmt: skip
    return {name: line.removesuffix(" (only read)") for name, line in format_purposes().items() if name in readable}


def _parsed() -> ast.Module:
    return ast.parse(Path(util.find_spec(MODULE).origin).read_text(encoding="utf8"))


def _is_row(node: ast.Call) -> bool:
    return getattr(node.func, "id", "") == "Format"


def _given(node: ast.Call) -> dict[str, ast.expr]:
    return dict(zip(FIELDS, node.args, strict=False)) | {item.arg: item.value for item in node.keywords}


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
