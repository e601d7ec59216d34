"""Where a run lives: fresh names, and never another run's files."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from splat.edit.marks import EDIT_LOG
from splat.errors import UserError
from splat.io.atomic import write_error

RUNS = Path("runs")
OWN_FILES = (
    "config.toml", "metrics.jsonl", "per_view.json", "model.safetensors", "model.spack", "cameras.json", "report.html",
)  # fmt: skip
OWN_FOLDERS = ("point_cloud", "renders", "checkpoints")


def is_run(folder: Path) -> bool:
    """Whether a training has written here (a lone first render does not count)."""
    return any((folder / name).exists() for name in (*OWN_FILES, "point_cloud", "checkpoints"))


def fresh_folder(scene: str, preset: str) -> Path:
    """``runs/<scene>/<preset>``, with -2, -3 ... when that is taken; made here, so that two runs never share it."""
    parent = RUNS / (re.sub(r"[^\w.-]+", "_", scene).strip("._") or "scene")
    number = 1
    while True:
        folder = parent / (preset if number == 1 else f"{preset}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise write_error(error, folder) from error


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Say before any work if an explicitly named folder cannot take a new run; changes nothing."""
    if is_run(folder) and not overwrite:
        raise UserError(
            f"{folder} already holds a run; continue it with --resume {folder}, replace it with --overwrite, "
            "or choose another -o"
        )
    require_writable(folder)


def require_writable(folder: Path) -> None:
    """UserError unless files can be made in ``folder``, or where it would come to lie; leaves nothing behind."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise write_error(error, folder) from error


def claim_folder(folder: Path) -> Path:
    """An explicitly named folder, empty of any earlier run."""
    _clear(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(error, folder) from error
    return folder


def find_run(folder: Path | None, scene: Path | None = None) -> Path:
    """The run to resume: ``folder`` itself, or the one written to last (of ``scene``, when given)."""
    if folder is not None:
        if not is_run(folder):
            raise UserError(f"{folder} holds no run to resume (no config.toml, no checkpoints)")
        return folder
    pattern = f"{scene.resolve().name}/*" if scene is not None else "*/*"
    runs = [path for path in RUNS.glob(pattern) if is_run(path)]
    if not runs:
        raise UserError(f"no run to resume under {RUNS / pattern}; name one: --resume RUN")
    return max(runs, key=_last_write)


def _last_write(run: Path) -> float:
    return max(path.stat().st_mtime for path in (run, *run.iterdir()))


def _clear(folder: Path) -> None:
    """Remove what a run writes, and nothing else."""
    try:
        for name in (*OWN_FILES, EDIT_LOG):
            (folder / name).unlink(missing_ok=True)
        for name in OWN_FOLDERS:
            if (folder / name).exists():
                shutil.rmtree(folder / name)
    except OSError as error:
        raise write_error(error, folder) from error
