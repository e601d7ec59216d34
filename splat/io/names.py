"""File names made from image names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath


def unique_stems(names: Sequence[str]) -> list[str]:
    """A flat file stem per image name: folders become ``__``; the suffix stays where two stems would meet."""
    flat = [name.replace("\\", "/").strip("/").replace("/", "__") for name in names]
    stems = [str(PurePosixPath(name).with_suffix("")) for name in flat]
    uses = Counter(stems)
    return [name if uses[stem] > 1 else stem for name, stem in zip(flat, stems, strict=True)]
