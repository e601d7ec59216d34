"""What npm's splat-transform makes of the same PLY, for ``bench_compression.py``: written and decoded by itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from bench_compression_runs import Base, Row, judged

from splat.errors import UserError
from splat.io.format_names import stored_bytes

VERSION = "2.7.1"
PACKAGE = f"@playcanvas/splat-transform@{VERSION}"
INSTALL_SECS, RUN_SECS = 180, 7200
WRITES: dict[str, tuple[str, tuple[str, ...]]] = {
    "sog": (".sog", ()),
    "spz": (".spz", ("--spz-version", "3")),
    "spz4": (".spz", ("--spz-version", "4")),
    "compressed-ply": (".compressed.ply", ()),
}
"""Name as ours -> suffix and flags."""


def find_tool() -> Path | str:
    """The command, installed once into ``SPLAT_NPM`` or the user's cache; or why there is none."""
    missing = [name for name in ("node", "npm") if not shutil.which(name)]
    if missing:
        return f"no splat-transform: {' and '.join(missing)} not installed"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "splat-npm"
    folder = Path(os.environ.get("SPLAT_NPM") or cache) / f"splat-transform-{VERSION}"
    command = folder / "node_modules/.bin/splat-transform"
    if not command.exists():
        try:
            _install(folder)
        except (OSError, subprocess.SubprocessError) as error:
            return f"{PACKAGE} cannot be installed: {' '.join(str(error).split())[-200:]}"
    return command if command.exists() else f"{PACKAGE} has no command splat-transform"


def _install(folder: Path) -> None:
    """Beside its place, then renamed: what was cut off is not taken for whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="installing-", dir=folder.parent))
    try:
        call = ["npm", "install", "--prefix", str(scratch), "--ignore-scripts", "--no-audit", "--no-fund", PACKAGE]
        done = subprocess.run(call, capture_output=True, text=True, timeout=INSTALL_SECS, check=False)
        if done.returncode:
            raise OSError(done.stderr)
        with contextlib.suppress(OSError):  # somebody else was faster
            scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def converted(tool: Path, source: Path, target: Path, flags: tuple[str, ...]) -> float:
    """Seconds that it took, start of node included; UserError with its words where it fails."""
    target.unlink(missing_ok=True)
    began = time.perf_counter()
    try:
        done = subprocess.run([str(tool), "-q", "-w", "-g", "cpu", *flags, str(source), str(target)],
                              capture_output=True, text=True, timeout=RUN_SECS, check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"splat-transform: {error}") from error
    if done.returncode or not target.exists():
        words = " ".join((done.stderr or done.stdout).split())
        raise UserError(f"splat-transform: {words[-200:] or 'nothing was said'} (exit code {done.returncode})")
    return time.perf_counter() - began


def made_by_others(name: str, tool: Path | str, at: Base, folder: Path) -> list[Row]:
    """One format as the other tool writes it."""
    row: Row = {"group": "splat-transform", "method": f"splat-transform {name}", "family": "splat-transform"}
    if isinstance(tool, str):
        return [row | {"status": "skipped", "reason": tool}]
    suffix, flags = WRITES[name]
    folder.mkdir(parents=True, exist_ok=True)
    file, back = folder / f"other-{name}{suffix}", folder / f"other-{name}.back.ply"
    try:
        encode = converted(tool, at.ply, file, flags)
        decode = converted(tool, file, back, ())
        row |= judged(back, at.held_out)
    except UserError as error:
        return [row | {"status": "failed", "reason": str(error)}]
    row |= {"status": "ok", "reason": "", "size_bytes": stored_bytes(file), "encode_secs": encode,
            "decode_secs": decode}  # fmt: skip
    return [at.against(row)]
