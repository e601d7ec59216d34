"""Readers and writers of splat files that others wrote, each as a function of paths; absent ones skip by name."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from splat.io.axes import flipped, signs_between
from splat.io.formats import read_model
from splat.io.plain import PlainSplats, plain_of

SPLAT_TRANSFORM = "2.7.1"
"""Of npm's @playcanvas/splat-transform: the newest for node 20, read and write."""
INSTALL_SECS, RUN_SECS = 180, 600


def why_npm_cannot() -> str | None:
    missing = [name for name in ("node", "npm") if not shutil.which(name)]
    return f"{' and '.join(missing)} not installed" if missing else None


@cache
def splat_transform_tool() -> Path | str:
    """The command, installed once into ``SPLAT_NPM`` or the user's cache folder; or why there is none."""
    if reason := why_npm_cannot():
        return f"no splat-transform: {reason}"
    home = (
        os.environ.get("SPLAT_NPM") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "splat-npm"
    )
    folder = Path(home) / f"splat-transform-{SPLAT_TRANSFORM}"
    command = folder / "node_modules/.bin/splat-transform"
    if command.exists():
        return command
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="installing-", dir=folder.parent))
    except OSError as error:
        return f"splat-transform cannot be installed into {home} ({error}); set SPLAT_NPM"
    try:
        package = f"@playcanvas/splat-transform@{SPLAT_TRANSFORM}"
        install = [
            "npm",
            "install",
            "--prefix",
            str(scratch),
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--fetch-retries=1",
            package,
        ]
        done = subprocess.run(install, capture_output=True, text=True, timeout=INSTALL_SECS, check=False)
        if done.returncode:
            return f"npm cannot install {package}: {' '.join(done.stderr.split())[-200:]}"
        with contextlib.suppress(OSError):  # another test run was faster
            scratch.rename(folder)
    except subprocess.TimeoutExpired:
        return f"npm took longer than {INSTALL_SECS} s to install {package}"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return command if command.exists() else f"{package} has no command splat-transform"


def splat_transform(source: Path, target: Path, *flags: str) -> None:
    """``splat-transform SOURCE TARGET`` on the CPU; skips where it is not there."""
    tool = splat_transform_tool()
    if isinstance(tool, str):
        pytest.skip(tool)
    command = [str(tool), "-q", "-w", "-g", "cpu", *flags, str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECS, check=False)
    assert done.returncode == 0 and target.exists(), f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def splat_transform_reads(file: Path) -> PlainSplats:
    """What it makes of ``file``, by way of the PLY it writes (its 32-bit numbers, unchanged)."""
    out = file.with_name(f"{file.name}.read.ply")
    splat_transform(file, out)
    return we_read(out)


def we_read(file: Path) -> PlainSplats:
    return plain_of(read_model(file).model)


def gaussforge_reads(file: Path) -> PlainSplats:
    """By way of the PLY it converts to. Its SPZ keeps the file's axes, which are turned here to a PLY's."""
    gaussforge = pytest.importorskip("gaussforge")
    kind = "compressed.ply" if file.name.endswith(".compressed.ply") else file.suffix[1:]
    answer = gaussforge.GaussForge().convert(file.read_bytes(), kind, "ply")
    assert "data" in answer, answer
    out = file.with_name(f"{file.name}.forged.ply")
    out.write_bytes(answer["data"])
    return _turned(file, we_read(out))


def gsply_reads(file: Path) -> PlainSplats:
    """Its SPZ keeps the file's axes, which are turned here to a PLY's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numba, at import and while it compiles
        try:
            import gsply
            import gsply.sog_reader

            if file.suffix == ".spz":
                table = gsply.read_spz(str(file))
            elif file.suffix == ".sog":
                table = gsply.sog_reader.sogread(str(file))
            else:
                table = gsply.plyread(str(file))
        except ImportError as error:  # its SOG reader needs imagecodecs, and says so only when it runs
            pytest.skip(f"gsply cannot read {file.suffix} here ({error})")
    rest = np.zeros((len(table.means), 0, 3), np.float32) if table.shN is None else np.asarray(table.shN)
    rest = rest.reshape(len(table.means), -1, 3)
    plain = PlainSplats(
        np.asarray(table.means), _unit(np.asarray(table.quats)), np.asarray(table.scales),
        _sigmoid(np.asarray(table.opacities).reshape(-1)), np.asarray(table.sh0).reshape(-1, 3), rest,
        round((1 + rest.shape[1]) ** 0.5) - 1,
    )  # fmt: skip
    return _turned(file, plain)


def _turned(file: Path, plain: PlainSplats) -> PlainSplats:
    return flipped(plain, signs_between("RUB", "RDF")) if file.suffix == ".spz" else plain


def _unit(quats: np.ndarray) -> np.ndarray:
    return quats / np.linalg.norm(quats, axis=1, keepdims=True)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -80, 80)))
