"""Which files a prior reads, and one message for all that are not there. Folders on this machine, safetensors only."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from splat.errors import UserError

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
"""Suffixes of files that are pickles: reading one can run any code in it, so they are refused."""
PACKAGES = ("diffusers", "transformers", "peft", "accelerate")
"""Of the extra ``diffusion``."""


@dataclass(frozen=True)
class WeightSpec:
    """One set of weights that a prior needs."""

    name: str
    files: tuple[str, ...]
    """Below the folder the user names; ``a|b`` where either serves."""
    size_mb: int
    """About; all files together."""
    licence: str
    source: str
    """How to obtain it. Nothing is fetched here."""


def require_weights(prior: str, specs: Sequence[WeightSpec], folder: Path | None) -> Path:
    """``folder``, when every file is in it; else UserError with one line that names each missing file."""
    if not specs:
        return Path() if folder is None else folder
    if folder is None:
        wanted = "; ".join(f"{spec.name} ({_about(spec)})" for spec in specs)
        raise UserError(
            f"edit prior '{prior}' reads its weights from a folder: name it with --edit-prior-path ({wanted})"
        )
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"edit prior '{prior}': {folder} is no folder; weights are read from this machine only, never by the name "
            "of a model on a hub"
        )
    missing = [(spec, _missing(folder, spec)) for spec in specs]
    missing = [(spec, names) for spec, names in missing if names]
    if missing:
        raise UserError(f"edit prior '{prior}': {folder} lacks " + "; ".join(_told(folder, *part) for part in missing))
    return folder


def found(folder: Path, name: str) -> Path:
    """The file ``a|b`` stands for."""
    places = [folder / part for part in name.split("|")]
    return next((place for place in places if place.is_file()), places[0])


def require_packages(prior: str) -> None:
    """UserError when the extra is not installed."""
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        raise UserError(f"edit prior '{prior}' needs {', '.join(absent)}: pip install 'splat[diffusion]'")


def _missing(folder: Path, spec: WeightSpec) -> list[str]:
    return [name for name in spec.files if not found(folder, name).is_file()]


def _told(folder: Path, spec: WeightSpec, names: Sequence[str]) -> str:
    files = ", ".join(name.replace("|", " or ") for name in names)
    text = f"{files} of {spec.name} ({_about(spec)}; {spec.source})"
    pickles = sorted({path for name in names for path in _pickles_beside(folder, name)})
    if pickles:
        text += (
            f" - {', '.join(pickles)} there is a pickle, which can run code when it is read, so it is refused: convert "
            "it to safetensors where you trust it (torch.load(..., weights_only=True), safetensors.torch.save_file)"
        )
    return text


def _pickles_beside(folder: Path, name: str) -> list[str]:
    """Files that would be the missing one, were they no pickles."""
    stems = {(folder / part).with_suffix("") for part in name.split("|")}
    stems |= {stem.with_name("pytorch_model") for stem in stems if stem.name == "model"}  # as transformers calls it
    there = (stem.with_name(stem.name + suffix) for stem in stems for suffix in PICKLES)
    return [str(path.relative_to(folder)) for path in there if path.is_file()]


def _about(spec: WeightSpec) -> str:
    return f"about {spec.size_mb / 1000:.1f} GB, licence {spec.licence}"
