"""One line per plug-in for ``--help``, read from the sources: importing the classes would import torch."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Mapping
from importlib import util
from pathlib import Path

WIDTH = 118
TABLES = {
    "primitive": "splat.model.primitives", "densifier": "splat.densify.registry",
    "compressor": "splat.compress.registry",
}  # fmt: skip
"""Family -> the module that holds its table of classes."""


def purposes(family: str) -> dict[str, str]:
    """Kind -> what it is for, in the order of the table: the class's ``purpose``, else its docstring's first line."""
    tree = _parsed(TABLES[family])
    homes = {name.name: item.module for item in ast.walk(tree) if isinstance(item, ast.ImportFrom)
             for name in item.names}  # fmt: skip
    listed = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in homes]
    lines = {}
    for name in dict.fromkeys(listed):
        told = _told(_class(_parsed(homes[name]), name))
        if told is not None:
            lines[told[0]] = told[1]
    return lines


def table(lines: Mapping[str, str], *, indent: int = 6, width: int = 0) -> str:
    """Names (in a column of at least ``width``) and their lines below each other, wrapped for a help page."""
    width = max(width, *map(len, lines))
    wrapped = [
        textwrap.fill(line, WIDTH, initial_indent=f"{' ' * indent}{name:<{width}}  ",
                      subsequent_indent=" " * (indent + width + 2))
        for name, line in lines.items()
    ]  # fmt: skip
    return "\n".join(wrapped)


def _told(cls: ast.ClassDef | None) -> tuple[str, str] | None:
    """Kind and line of a plug-in; None for a class that is none, such as the family's protocol."""
    if cls is None:
        return None
    constants = {item.target.id: item.value.value for item in cls.body
                 if isinstance(item, ast.AnnAssign) and isinstance(item.value, ast.Constant)}  # fmt: skip
    if "kind" not in constants:
        return None
    first = (ast.get_docstring(cls) or "").partition("\n\n")[0]
    return constants["kind"], constants.get("purpose", " ".join(first.split()))


def _class(tree: ast.Module, name: str) -> ast.ClassDef | None:
    return next((item for item in tree.body if isinstance(item, ast.ClassDef) and item.name == name), None)


def _parsed(module: str) -> ast.Module:
    found = util.find_spec(module)
    return ast.parse(Path(found.origin).read_text(encoding="utf8"))
