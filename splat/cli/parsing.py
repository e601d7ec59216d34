"""Command lines: dashes and underscores alike, settings by dotted name, errors of one line."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from splat.errors import UserError

_DOTTED = re.compile(r"--([a-z][\w-]*\.[\w.-]+?)(?:=(.*))?", re.DOTALL | re.IGNORECASE)
_NUMBER = re.compile(r"-\.?\d")


class UsageError(UserError):
    """The command line itself is wrong."""


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises instead of exiting, takes no abbreviations and prints no help of its own."""

    def __init__(self, command: str) -> None:
        super().__init__(prog=f"splat {command}", add_help=False, allow_abbrev=False)
        self.command = command

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} ('splat {self.command} --help' shows how)")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse all of ``argv``; an unknown flag is an error with the nearest known one."""
        known, rest = self.parse_known_args(with_dashes(argv))
        if rest:
            flags = [flag for action in self._actions for flag in action.option_strings]
            wrong = rest[0].partition("=")[0]
            if not wrong.startswith("-"):
                self.error(f"unexpected argument '{wrong}'")
            near = difflib.get_close_matches(wrong, flags, n=1)
            raise UsageError(
                f"unknown flag '{wrong}'"
                + (f"; did you mean '{near[0]}'?" if near else f" ('splat {self.command} --help' lists them)")
            )
        return known


def with_dashes(argv: Sequence[str]) -> list[str]:
    """``--max_splats=5`` as ``--max-splats=5``; values and dotted names stay as they are."""
    normal = []
    for token in argv:
        name, equals, value = token.partition("=")
        is_flag = name.startswith("--") and "." not in name
        normal.append(name.lower().replace("_", "-") + equals + value if is_flag else token)
    return normal


def split_settings(argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take ``--section.key value`` and ``--set section.key=value`` out; returns the rest and the settings as text.

    A dotted flag without a value is a switch: ``--render.filter3d`` is true.
    """
    rest: list[str] = []
    settings: dict[str, Any] = {}
    tokens = list(argv)
    while tokens:
        token = tokens.pop(0)
        match = _DOTTED.fullmatch(token)
        if match:
            value = match[2]
            if value is None:
                value = tokens.pop(0) if tokens and _is_value(tokens[0]) else "true"
            settings[_setting_name(match[1])] = value
        elif token == "--set" or token.startswith("--set="):
            text = token[6:] if token.startswith("--set=") else (tokens.pop(0) if tokens else "")
            key, equals, value = text.partition("=")
            if not equals or not key:
                raise UsageError(f"--set {text!r} does not fit: write --set section.key=value")
            settings[_setting_name(key)] = value
        else:
            rest.append(token)
    return rest, settings


def _is_value(token: str) -> bool:
    return not token.startswith("-") or bool(_NUMBER.match(token))


def _setting_name(name: str) -> str:
    return name.strip().replace("-", "_")
