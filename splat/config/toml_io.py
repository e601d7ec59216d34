"""TOML in and out. The writer knows the few shapes our settings have."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from splat.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """The tables of a TOML text; ``source`` names it in errors."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{source}: not valid TOML: {error}") from error


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return parse_toml(Path(path).read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def to_toml(tables: dict[str, Any], *, comment: str = "") -> str:
    """One level of tables, plain values first; None is left out, as TOML has no such value."""
    lines = [f"# {line}" for line in comment.splitlines()]
    plain = {key: value for key, value in tables.items() if not isinstance(value, dict)}
    lines += [f"{key} = {_value(value)}" for key, value in plain.items() if value is not None]
    for section, values in tables.items():
        if isinstance(values, dict):
            lines += ["", f"[{section}]"]
            lines += [f"{key} = {_value(value)}" for key, value in values.items() if value is not None]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    # A JSON string of ASCII is a TOML basic string, but for DEL, which JSON leaves bare.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
