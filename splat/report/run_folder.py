"""What a run folder's files say, as far as they exist: a run may be young, interrupted or torn mid-line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splat.errors import UserError
from splat.io.names import unique_stems

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A run as its files tell it.

    Lists are ordered by step; where a resumed run repeated a step, the later line won.
    """

    folder: Path
    start: Record
    """The last ``start`` line ({} when there is none)."""
    resumed: int
    """How often the run was taken up again."""
    train: list[Record]
    refine: list[Record]
    evals: list[Record]
    finish: Record | None
    """The ``finish`` line, when it is the last thing that happened."""
    config: dict[str, Any]
    views: list[Record]
    """Per held-out view: ``name`` and scores."""
    protocol: dict[str, Any]
    export: Record | None = None
    """What the newest PLY lost as plain Gaussians; None where it lost nothing or was not measured."""

    @property
    def last(self) -> Record:
        """The newest line that knows a step."""
        lines = [*self.train[-1:], *self.evals[-1:], *([self.finish] if self.finish else [])]
        return max(lines, key=lambda line: line.get("step", 0), default={})

    def value(self, name: str) -> Any:
        """The newest value of ``name`` (splats, elapsed_secs, ...) over all kinds of lines; None when never said."""
        for line in [self.finish or {}, *reversed(self._timeline()), self.start]:
            if line.get(name) is not None:
                return line[name]
        return None

    def stage_totals(self) -> dict[str, float]:
        """Seconds per stage of the whole run: lines hold means per step over the steps since the line before."""
        totals: dict[str, float] = {}
        before = 0
        for line in self.train:
            steps = max(line["step"] - before, 1)
            before = line["step"]
            for stage, secs in (line.get("stage_secs") or {}).items():
                if isinstance(secs, int | float):
                    totals[stage] = totals.get(stage, 0.0) + secs * steps
        return totals

    def _timeline(self) -> list[Record]:
        return sorted([*self.train, *self.evals], key=lambda line: line["step"])


def read_run(run_dir: str | Path) -> RunRecord:
    """Everything the report needs; only a folder without any trace of a run is an error."""
    folder = Path(run_dir)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder")
    lines = list(_json_lines(folder / "metrics.jsonl"))
    config, per_view = _toml(folder / "config.toml"), _json(folder / "per_view.json")
    if not lines and not config:
        raise UserError(f"{folder}: not a run folder (no metrics.jsonl and no config.toml)")
    starts = [line for line in lines if line.get("kind") == "start"]
    evals = _by_step(lines, "eval")
    exports = _by_step(lines, "export")
    lines = [line for line in lines if line.get("kind") not in ("export", "pack")]  # written after the training's end
    ended = bool(lines) and lines[-1].get("kind") == "finish"
    protocol = per_view.get("protocol") or (evals[-1].get("protocol") if evals else None) or {}
    return RunRecord(
        folder=folder,
        start=starts[-1] if starts else {},
        resumed=max(len(starts) - 1, 0),
        train=_by_step(lines, "train"),
        refine=sorted((line for line in lines if line.get("kind") == "refine" and _has_step(line)), key=_step),
        evals=evals,
        finish=lines[-1] if ended else None,
        config=config,
        views=[view for view in per_view.get("views", []) if isinstance(view, dict) and "name" in view],
        protocol=protocol if isinstance(protocol, dict) else {"protocol": protocol},
        export=exports[-1] if exports else None,
    )


def view_pictures(record: RunRecord) -> dict[str, dict[str, Path]]:
    """Image name -> {render, truth, error} -> file, from the newest folder of renders that has any."""
    folders = sorted((record.folder / "renders").glob("step_*"), key=_step_of_folder, reverse=True)
    names = [view["name"] for view in record.views]
    for folder in folders:
        stems = {stem: name for stem, name in zip(unique_stems(names), names, strict=True)}
        found = {}
        for render in sorted(folder.glob("*_render.png")):
            stem = render.name.removesuffix("_render.png")
            files = {kind: folder / f"{stem}_{kind}.png" for kind in ("render", "truth", "error")}
            found[stems.get(stem, stem)] = {kind: path for kind, path in files.items() if path.exists()}
        if found:
            return found
    return {}


def flat(tables: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``section.key`` -> value."""
    result: dict[str, Any] = {}
    for key, value in tables.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result


def _json_lines(path: Path) -> Iterator[Record]:
    """The whole lines of a JSON-lines file; a line torn by a kill is passed over."""
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record


def _by_step(lines: list[Record], kind: str) -> list[Record]:
    table = {line["step"]: line for line in lines if line.get("kind") == kind and _has_step(line)}
    return [table[step] for step in sorted(table)]


def _has_step(line: Record) -> bool:
    return isinstance(line.get("step"), int)


def _step(line: Record) -> int:
    return line["step"]


def _step_of_folder(folder: Path) -> int:
    match = re.fullmatch(r"step_(\d+)", folder.name)
    return int(match.group(1)) if match else -1


def _json(path: Path) -> Record:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
