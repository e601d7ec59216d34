"""Which edits a model holds already: so that a log is not done twice to it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EDIT_LOG = "edits.json"
"""The log of a run, in its folder."""
KEY = "edits"
"""Of the provenance in a file's header."""


@dataclass(frozen=True)
class EditMark:
    """How many operations were done to a model since it was trained or opened, and a fingerprint of them in order."""

    count: int = 0
    digest: str = ""

    def after(self, lines: Sequence[str]) -> EditMark:
        """With the operations of ``lines`` (``json_ops.op_line``) done as well. The fingerprint is a chain: that of the
        first operations does not depend on later ones."""
        digest = self.digest
        for line in lines:
            same = json.dumps(json.loads(line, parse_int=float))  # 0 and 0.0 are one number
            digest = hashlib.sha256(f"{digest}\n{same}".encode()).hexdigest()[:16]
        return EditMark(self.count + len(lines), digest)

    def held_of(self, lines: Sequence[str]) -> int:
        """How many of the first ``lines`` the model holds: ``count`` where they are what was done, else 0."""
        return self.count if EditMark().after(lines[: self.count]) == self else 0

    def in_header(self, header: Mapping[str, Any]) -> dict[str, Any]:
        """``header`` of a file of the model; itself where nothing was done."""
        if not self.count:
            return dict(header)
        return {**header, "provenance": {**(header.get("provenance") or {}), KEY: f"{self.count} {self.digest}"}}


def mark_of_header(header: Mapping[str, Any]) -> EditMark:
    """What a file says of its model; nothing done where it says nothing that can be read."""
    provenance = header.get("provenance")
    text = provenance.get(KEY) if isinstance(provenance, Mapping) else None
    found = re.fullmatch(r"([1-9]\d{0,8}) ([0-9a-f]{16})", text) if isinstance(text, str) else None
    return EditMark(int(found[1]), found[2]) if found else EditMark()


def mark_of_log(log: Path, count: int) -> EditMark:
    """That of a training whose rows show the first ``count`` operations of its log."""
    from splat.edit.json_ops import op_line, read_log

    if not count or not log.exists():
        return EditMark()
    return EditMark().after([op_line(op) for op in read_log(log)[:count]])
