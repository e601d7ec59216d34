"""What ``splat train`` and ``splat view`` can be told about their viewer; imports nothing heavy."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from splat.cli.parsing import Parser, UsageError
from splat.edit.marks import EDIT_LOG
from splat.errors import UserError
from splat.viewer.serving.pace import DEFAULT_SHARE
from splat.viewer.serving.security import DEFAULT_HOST, DEFAULT_PORT


@dataclass(frozen=True)
class ViewerOptions:
    """What the flags say."""

    host: str
    port: int
    needs_token: bool
    share: float
    """Share of the time that training keeps while somebody moves in a page."""

    def token(self) -> str | None:
        from splat.viewer.serving.security import new_token

        return new_token() if self.needs_token else None


def add_viewer_flags(parser: Parser) -> None:
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--no-token", action="store_true")


def viewer_options(args: argparse.Namespace) -> ViewerOptions:
    """UsageError for values that do not fit."""
    if getattr(args, "keep_viewer", False) and not wants_viewer(args):
        raise UsageError("--keep-viewer keeps a viewer open, and there is none with --no-viewer or with -q alone")
    given = getattr(args, "viewer_share", None)
    share = DEFAULT_SHARE if given is None else given
    if not 0 <= share <= 1:
        raise UsageError(f"--viewer-share {share:g} does not fit: use 0 to 1, the part of the time that is training's")
    port = DEFAULT_PORT if args.port is None else args.port
    if not 0 <= port < 65536:
        raise UsageError(f"--port {port} does not fit: use 0 (any) to 65535")
    return ViewerOptions(args.host or DEFAULT_HOST, port, not args.no_token, share)


def wants_viewer(args: argparse.Namespace) -> bool:
    """With ``-q`` nobody learns the token, so that a page is only opened for who asks for one without."""
    return not getattr(args, "no_viewer", False) and not (args.quiet and not args.no_token)


def edit_log_path(named: str | None, target: Path) -> Path | None:
    """Where ``splat view`` keeps a log: nowhere (None), the file that was named, or with "" in the run or beside the
    file. UserError where no file can be."""
    if named is None:
        return None
    beside = target / EDIT_LOG if target.is_dir() else target.with_name(f"{target.name}.{EDIT_LOG}")
    path = Path(named).expanduser() if named else beside
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"--log {path}: no file can be written there")
    return path
