"""Which views are trained on and which are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from splat.scene.capture import counted, plural
from splat.scene.options import SceneOptions
from splat.scene.types import SceneError


@dataclass(frozen=True)
class Split:
    """Indices into the sorted names."""

    train: tuple[int, ...]
    test: tuple[int, ...]
    rule: str
    """How it came about, in words: part of the protocol of every number."""
    warnings: tuple[str, ...] = ()


def split_views(
    names: Sequence[str], stated: Sequence[str | None], skipped: frozenset[str], root: Path, options: SceneOptions
) -> Split:
    """Lists win over what the capture states, and that over every n-th by name.

    ``names`` are sorted; ``stated`` is the capture's own word per view; ``skipped`` are views of the
    capture whose image could not be used, which lists may name.
    """
    train_list = _list_path(options.train_list, root, "train_list.txt")
    test_list = _list_path(options.test_list, root, "test_list.txt")
    if train_list or test_list:
        split = _from_lists(names, skipped, train_list, test_list)
    elif any(word is not None for word in stated):
        test = tuple(i for i, word in enumerate(stated) if word == "test")
        split = Split(_rest(names, test), test, "as the capture states")
    elif options.test_every == 0:
        split = Split(tuple(range(len(names))), (), "all views train")
    elif len(names) == 1:
        split = Split((0,), (), "the only view trains", ("There is one view only; nothing is held out.",))
    else:
        test = tuple(range(0, len(names), options.test_every))
        split = Split(_rest(names, test), test, f"every {options.test_every}. by name is test, the first included")
    if not split.train:
        raise SceneError(f"no view is left to train on ({split.rule}; {plural(len(names), 'view')}); change test_every")
    return split


def _list_path(given: Path | None, root: Path, usual: str) -> Path | None:
    """The list asked for, also when it is named relative to the scene; else the one of the usual name, if any."""
    inside = root / (given or usual)
    if given is not None:
        return inside if inside.is_file() and not Path(given).is_file() else Path(given)
    return inside if inside.is_file() else None


def _rest(names: Sequence[str], taken: Sequence[int]) -> tuple[int, ...]:
    gone = set(taken)
    return tuple(index for index in range(len(names)) if index not in gone)


def _from_lists(
    names: Sequence[str], skipped: frozenset[str], train_list: Path | None, test_list: Path | None
) -> Split:
    test = _read_list(test_list, names, skipped) if test_list else None
    train = _read_list(train_list, names, skipped) if train_list else None
    if test is None:
        test = _rest(names, train or ())
    if train is None:
        train = _rest(names, test)
    both = sorted(set(train) & set(test))
    if both:
        listed = counted([names[i] for i in both])
        raise SceneError(f"{test_list}: {plural(len(both), 'name')} also in {train_list}: {listed}")
    unused = _rest(names, (*train, *test))
    warnings = ()
    if unused:
        warnings = (f"{plural(len(unused), 'view')} in neither list, not used: {counted([names[i] for i in unused])}.",)
    rule = " and ".join(path.name for path in (train_list, test_list) if path is not None)
    return Split(train, test, f"lists {rule}", warnings)


def _read_list(path: Path, names: Sequence[str], skipped: frozenset[str]) -> tuple[int, ...]:
    """Indices of the names in a file, one per line; a name may leave out its folder or its suffix if that is clear."""
    try:
        lines = [line.strip().replace("\\", "/") for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SceneError(f"{path}: the list of views cannot be read ({error})") from None
    index_of: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        for alias in _aliases(name):
            index_of.setdefault(alias, []).append(index)
    absent = {alias for name in skipped for alias in _aliases(name)}
    chosen: set[int] = set()
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        exact = [i for i in index_of.get(line, []) if names[i] == line]
        matches = exact or index_of.get(line, [])
        if len(matches) == 1:
            chosen.add(matches[0])
        elif matches:
            raise SceneError(f"{path}: line {number}, {line!r} fits {len(matches)} views; write the full name")
        elif line not in absent:
            raise SceneError(
                f"{path}: line {number}, {line!r} is no view of this capture; it has {counted(list(names))}"
            )
    return tuple(sorted(chosen))


def _aliases(name: str) -> set[str]:
    path = PurePosixPath(name)
    return {name, path.name, path.stem, str(path.with_suffix(""))}
