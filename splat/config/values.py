"""Turning what a TOML file or a command line says into the type of a field."""

from __future__ import annotations

import types
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from splat.errors import UserError

_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


class WrongValue(ValueError):
    """A value does not fit; the message says what would."""


def annotations_of(cls: type) -> dict[str, Any]:
    """Type of every field of a dataclass, by name."""
    hints = get_type_hints(cls)
    return {item.name: hints[item.name] for item in fields(cls)}


def coerced(value: Any, annotation: Any, key: str) -> Any:
    """``value`` as ``annotation`` wants it; UserError naming ``key`` otherwise. Strings may stand for anything."""
    try:
        return _coerced(value, annotation)
    except WrongValue as error:
        raise UserError(f"{key} = {value!r} does not fit: {error}") from None


def _coerced(value: Any, annotation: Any) -> Any:
    origin = get_origin(annotation)
    if origin is Literal:
        return _choice(value, get_args(annotation))
    if origin in (Union, types.UnionType):
        return _union(value, get_args(annotation))
    if origin is tuple:
        return _tuple(value, get_args(annotation))
    simple = {bool: _bool, int: _int, float: _float, str: _str, Path: _path}.get(annotation)
    if simple is None:
        raise WrongValue(f"settings of type {annotation} cannot be given in text")
    return simple(value)


def _choice(value: Any, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        if value == choice or (isinstance(value, str) and value == str(choice)):
            return choice
    raise WrongValue(f"choose one of {', '.join(map(str, choices))}")


def _union(value: Any, members: tuple[Any, ...]) -> Any:
    if type(None) in members and (value is None or value == "none") and str not in members:
        return None
    if value is None and type(None) in members:
        return None
    # A number written as text should become a number before it becomes a word.
    ordered = sorted((m for m in members if m is not type(None)), key=lambda m: (m is str, m is not int))
    reasons = []
    for member in ordered:
        try:
            return _coerced(value, member)
        except WrongValue as error:
            reasons.append(str(error))
    raise WrongValue(" or ".join(dict.fromkeys(reasons)))


def _tuple(value: Any, members: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(value, str):
        value = [part for part in value.replace(",", " ").split() if part]
    if isinstance(value, int | float):
        value = [value]
    if not isinstance(value, list | tuple):
        raise WrongValue("expected a list")
    if len(members) == 2 and members[1] is Ellipsis:
        return tuple(_coerced(item, members[0]) for item in value)
    if len(value) != len(members):
        raise WrongValue(f"expected {len(members)} values, got {len(value)}")
    return tuple(_coerced(item, member) for item, member in zip(value, members, strict=True))


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    raise WrongValue("expected true or false")


def _int(value: Any) -> int:
    if isinstance(value, bool):
        raise WrongValue("expected a whole number")
    try:
        number = float(value) if isinstance(value, str) and "e" in value.lower() else value
        if int(number) != (float(number) if not isinstance(number, str) else int(number)):
            raise WrongValue("expected a whole number")
        return int(number)
    except (TypeError, ValueError, OverflowError):
        raise WrongValue("expected a whole number") from None


def _float(value: Any) -> float:
    if isinstance(value, bool):
        raise WrongValue("expected a number")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise WrongValue("expected a number") from None


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise WrongValue("expected text")
    return value


def _path(value: Any) -> Path:
    if not isinstance(value, str | Path):
        raise WrongValue("expected a path")
    return Path(value)
