"""Every setting with its type, value and sentence, read from the dataclasses themselves."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from splat.config.build import config_tables, family_table
from splat.config.schema import FAMILIES, SECTIONS, TrainConfig


@dataclass(frozen=True)
class SettingDoc:
    key: str
    value: Any
    choices: str
    text: str


@lru_cache
def attribute_docs(cls: type) -> dict[str, str]:
    """The string that stands below each annotated attribute of a class; what a class does not say, its bases do."""
    docs = {}
    for body in _bodies(cls):
        for item, following in pairwise(body):
            if isinstance(item, ast.AnnAssign) and isinstance(following, ast.Expr):
                text = getattr(following.value, "value", None)
                if isinstance(text, str):
                    docs[item.target.id] = " ".join(text.split())
    return docs


@lru_cache
def attribute_types(cls: type) -> dict[str, str]:
    """The annotation of each attribute as it is written, those of bases included."""
    annotated = (item for body in _bodies(cls) for item in body if isinstance(item, ast.AnnAssign))
    return {item.target.id: ast.unparse(item.annotation) for item in annotated}


def _bodies(cls: type) -> Iterator[list[ast.stmt]]:
    """The statements of a dataclass and of its bases, the farthest base first."""
    for base in reversed(cls.__mro__):
        if is_dataclass(base):
            yield ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body


def setting_docs(config: TrainConfig) -> Iterator[SettingDoc]:
    """All settings, with the values of ``config``; other members of a plug-in family with their defaults."""
    for key, value in config_tables(config).items():
        if key in FAMILIES:
            table = family_table(key)
            chosen = getattr(config, key)
            yield SettingDoc(f"{key}.kind", chosen.kind, " | ".join(table), f"Which {key}; its settings follow.")
            for kind, cls in table.items():
                values = chosen if kind == chosen.kind else cls()
                yield from _docs_of(cls, key, values, note="" if kind == chosen.kind else f"[{kind}] ")
        elif key in SECTIONS:
            yield from _docs_of(SECTIONS[key], key, getattr(config, key), names=tuple(value))
        else:
            yield from _docs_of(TrainConfig, "", config, names=(key,))


def _docs_of(
    cls: type, prefix: str, values: Any, *, names: tuple[str, ...] | None = None, note: str = ""
) -> Iterator[SettingDoc]:
    types, docs = attribute_types(cls), attribute_docs(cls)
    for name in names or tuple(item.name for item in fields(cls)):
        key = f"{prefix}.{name}" if prefix else name
        choices = types.get(name, "").replace("Literal[", "").replace("]", "").replace(", ", " | ").replace("'", "")
        if "Literal" not in types.get(name, ""):
            choices = types.get(name, "")
        yield SettingDoc(key, getattr(values, name), choices, note + docs.get(name, ""))
