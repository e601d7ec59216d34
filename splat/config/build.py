"""From layers of text (preset, file, flags) to one checked ``TrainConfig``, and back to text."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from splat.config.goals import aimed_compressor, most_splats
from splat.config.presets import read_preset
from splat.config.schema import DEFAULT_STEPS, DERIVED, FAMILIES, SECTIONS, STEP_VALUED, TrainConfig
from splat.config.toml_io import to_toml
from splat.config.values import annotations_of, coerced
from splat.errors import UserError

Tables = dict[str, Any]
DEFAULT_KINDS = {"primitive": "gaussian", "densifier": "adaptive", "compressor": "none"}


def build_config(layers: Iterable[tuple[str, Mapping[str, Any]]]) -> TrainConfig:
    """Later layers win. Each is (its name for errors, TOML-like tables)."""
    merged: Tables = {family: {"kind": kind} for family, kind in DEFAULT_KINDS.items()}
    for source, tables in layers:
        _merge(merged, tables, source)
    return _config(merged)


def preset_config(name: str) -> TrainConfig:
    """A preset as it is, without a capture."""
    return build_config([(f"preset {name}", read_preset(name)), ("", {"preset": name})])


def nested(dotted: Mapping[str, Any]) -> Tables:
    """``{"render.device": "cpu"}`` as tables."""
    tables: Tables = {}
    for key, value in dotted.items():
        section, dot, name = key.partition(".")
        if dot:
            tables.setdefault(section, {})[name] = value
        else:
            tables[key] = value
    return tables


def flattened(config: TrainConfig) -> dict[str, Any]:
    """Every setting by its dotted name."""
    flat: dict[str, Any] = {}
    for key, value in config_tables(config).items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": item for name, item in value.items()}
        else:
            flat[key] = value
    return flat


def differences(config: TrainConfig, base: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Settings that differ: name -> (value, value in ``base``)."""
    ours, theirs = flattened(config), flattened(base)
    skipped = {"capture", "preset"}
    return {
        key: (ours.get(key), theirs.get(key))
        for key in ours | theirs
        if key not in skipped and ours.get(key) != theirs.get(key)
    }


def config_tables(config: TrainConfig) -> Tables:
    """All values as tables, plug-ins with their ``kind``."""
    tables: Tables = {name: getattr(config, name) for name in _top_names()}
    for section, cls in SECTIONS.items():
        own = getattr(config, section)
        tables[section] = {name: _plain(getattr(own, name)) for name in _setting_names(section, cls)}
    for family in FAMILIES:
        plugin = getattr(config, family)
        tables[family] = {"kind": plugin.kind, **{item.name: getattr(plugin, item.name) for item in fields(plugin)}}
    return tables


def config_text(config: TrainConfig, *, comment: str = "") -> str:
    """The whole configuration as TOML; reading it back gives an equal one."""
    return to_toml(config_tables(config), comment=comment)


def effective(config: TrainConfig) -> TrainConfig:
    """The configuration with step-valued settings stretched from ``schedule_steps`` to ``steps``, and what
    ``target_mb`` sets: a limit in ``max_splats``, or the compressor's goal."""
    config = replace(config, max_splats=most_splats(config), compressor=aimed_compressor(config))
    factor = config.steps / config.schedule_steps
    if factor == 1.0:
        return config
    config = _stretched(config, factor, keys=STEP_VALUED)
    return replace(
        config, primitive=config.primitive.rescaled(factor), densifier=config.densifier.rescaled(factor),
        compressor=config.compressor.rescaled(factor), schedule_steps=config.steps,
    )  # fmt: skip


def family_table(family: str) -> Mapping[str, type]:
    """Kind -> class of a plug-in family; imports torch."""
    if family == "primitive":
        from splat.model.primitives import PRIMITIVES

        return PRIMITIVES
    if family == "compressor":
        from splat.compress.registry import COMPRESSORS

        return COMPRESSORS
    from splat.densify.registry import DENSIFIERS

    return DENSIFIERS


def known_keys(kinds: Mapping[str, str]) -> list[str]:
    """Dotted names of all settings, with the plug-ins named in ``kinds``."""
    keys = _top_names()
    for section, cls in SECTIONS.items():
        keys += [f"{section}.{name}" for name in _setting_names(section, cls)]
    for family in FAMILIES:
        cls = _family_class(family, kinds[family])
        keys += [f"{family}.kind", *(f"{family}.{field.name}" for field in fields(cls))]
    return keys


# ------------------------------------------------------------------------------------------------------------


def _top_names() -> list[str]:
    return [field.name for field in fields(TrainConfig) if field.name not in (*FAMILIES, *SECTIONS)]


def _setting_names(section: str, cls: type) -> list[str]:
    return [field.name for field in fields(cls) if field.name not in DERIVED.get(section, ())]


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _merge(merged: Tables, tables: Mapping[str, Any], source: str) -> None:
    kinds = {family: tables.get(family, {}).get("kind", merged[family]["kind"]) for family in FAMILIES
             if isinstance(tables.get(family, {}), Mapping)}  # fmt: skip
    kinds = DEFAULT_KINDS | kinds
    _check_keys(tables, kinds, source)
    for key, value in tables.items():
        if key in FAMILIES and value.get("kind", merged[key]["kind"]) != merged[key]["kind"]:
            merged[key] = dict(value)  # settings of another kind mean nothing to this one
        elif isinstance(value, Mapping):
            merged.setdefault(key, {}).update(value)
        else:
            merged[key] = value


def _check_keys(tables: Mapping[str, Any], kinds: Mapping[str, str], source: str) -> None:
    known = known_keys(kinds)
    sections = {*SECTIONS, *FAMILIES}
    for key, value in tables.items():
        if key in sections and not isinstance(value, Mapping):
            raise UserError(f"{source}: '{key}' is a section of settings, not a value")
        names = [f"{key}.{name}" for name in value] if isinstance(value, Mapping) else [key]
        for name in names:
            if name not in known:
                raise UserError(f"{source}: unknown setting '{name}'{nearest(name, known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the closest dotted name or last part, or a pointer to the list."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not close:
        last = name.rpartition(".")[2]
        by_last = {key.rpartition(".")[2]: key for key in known}
        close = [by_last[part] for part in difflib.get_close_matches(last, by_last, n=1, cutoff=0.6)]
    return f"; did you mean '{close[0]}'?" if close else "; 'splat train --help-all' lists them"


def _config(merged: Tables) -> TrainConfig:
    top_types = annotations_of(TrainConfig)
    top = {name: coerced(merged[name], top_types[name], name) for name in _top_names() if name in merged}
    _require_positive(top)
    sections = {name: _section(name, cls, merged.get(name, {})) for name, cls in SECTIONS.items()}
    stretch = top.get("schedule_steps", DEFAULT_STEPS) / DEFAULT_STEPS
    densifier_cls = _family_class("densifier", merged["densifier"]["kind"])
    densifier = _plugin("densifier", densifier_cls(), merged["densifier"], stretch)
    primitive_cls = _family_class("primitive", merged["primitive"]["kind"])
    tuned = {name: value for name, value in densifier_cls.start_settings.items()
             if name in {field.name for field in fields(primitive_cls)}}  # fmt: skip
    primitive = _plugin("primitive", primitive_cls(**tuned), merged["primitive"], stretch)
    compressor_cls = _family_class("compressor", merged["compressor"]["kind"])
    compressor = _plugin("compressor", compressor_cls(), merged["compressor"], stretch)
    config = TrainConfig(primitive=primitive, densifier=densifier, compressor=compressor, **top, **sections)
    unset = [key for key in STEP_VALUED if key.partition(".")[2] not in merged.get(key.partition(".")[0], {})]
    return _stretched(config, stretch, keys=unset)


def _require_positive(top: Mapping[str, Any]) -> None:
    for name in ("steps", "schedule_steps", "max_splats", "max_minutes", "target_psnr", "target_mb",
                 "steps_per_view"):  # fmt: skip
        value = top.get(name)
        if value is not None and not value > 0:
            raise UserError(f"{name} = {value!r} does not fit: it must be above 0")


def _section(name: str, cls: type, values: Mapping[str, Any]) -> Any:
    types = annotations_of(cls)
    # ValueError is how a section refuses values that do not go together; UserErrors pass as they are.
    try:
        return cls(**{key: coerced(value, types[key], f"{name}.{key}") for key, value in values.items()})
    except ValueError as error:
        raise UserError(f"[{name}]: {error}") from error


def _family_class(family: str, kind: str) -> type:
    table = family_table(family)
    if kind not in table:
        near = difflib.get_close_matches(str(kind), table, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise UserError(f"unknown {family} '{kind}'{hint} (choices: {', '.join(sorted(table))})")
    return table[kind]


def _plugin(family: str, defaults: Any, values: Mapping[str, Any], stretch: float) -> Any:
    """Defaults are written for ``DEFAULT_STEPS`` and stretched; what the user wrote stands as it is."""
    if stretch != 1.0:
        defaults = defaults.rescaled(stretch)
    types = annotations_of(type(defaults))
    given = {key: coerced(value, types[key], f"{family}.{key}") for key, value in values.items() if key != "kind"}
    try:
        return replace(defaults, **given)
    except ValueError as error:
        raise UserError(f"[{family}]: {error}") from error


def _stretched(config: TrainConfig, factor: float, *, keys: Iterable[str]) -> TrainConfig:
    for key in keys:
        section, _, name = key.partition(".")
        own = getattr(config, section)
        longer = _times(getattr(own, name), factor)
        config = replace(config, **{section: replace(own, **{name: longer})})
    return config


def _times(step: int, factor: float) -> int:
    return max(1, round(step * factor)) if step else 0
