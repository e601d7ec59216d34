"""Presets: TOML files of differences from the defaults."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from splat.config.toml_io import read_toml
from splat.errors import UserError


def preset_folder() -> Path:
    """``splat/configs`` of an installed wheel, else ``configs`` beside the package in a source tree."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "default.toml").is_file():
            return folder
    raise UserError(f"the presets are missing: neither {package / 'configs'} nor {package.parent / 'configs'} has them")


def preset_names() -> list[str]:
    return sorted(path.stem for path in preset_folder().glob("*.toml"))


def read_preset(name: str) -> dict[str, Any]:
    """The tables of a preset by name."""
    names = preset_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise UserError(f"unknown preset '{name}'{hint} (choices: {', '.join(names)})")
    return read_toml(preset_folder() / f"{name}.toml")


def preset_purpose(name: str) -> str:
    """The first comment line of a preset: what it is for."""
    first = (preset_folder() / f"{name}.toml").read_text(encoding="utf-8").splitlines()[0]
    return first.lstrip("# ")
