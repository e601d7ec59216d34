"""The JSON file of a camera path.

``{"format": "splat-path", "version": 1, "frame": "capture", "keys": [...], ...}``. Keys stand in the capture's own
frame, so that one file fits every run of a capture and the files exported from them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splat.errors import UserError
from splat.geometry.keyframes import EASES, FOV_DEG, TIMINGS, CameraPath, Keyframe, LookValue

FORMAT, VERSION, FRAME = "splat-path", 1, "capture"
LONGEST_SECS = 3600.0
MOST_KEYS, MOST_LOOKS, LONGEST_WORD = 1000, 30, 200
MOST_BYTES = 4_000_000
"""Of a file: 1000 keys take a tenth of it."""
SIDES_PX = (16, 8192)
FASTEST_FPS = 240.0


def path_to_text(path: CameraPath) -> str:
    """The file's text."""
    keys = [{"name": key.name, "position": key.position, "wxyz": key.wxyz, "fov_deg": key.fov_deg, "secs": key.secs,
             "hold_secs": key.hold_secs, "look": dict(key.look)} for key in path.keys]  # fmt: skip
    whole = {"format": FORMAT, "version": VERSION, "frame": FRAME, "loop": path.loop, "tension": path.tension,
             "timing": path.timing, "ease": path.ease, "fps": path.fps, "size": path.size, "keys": keys}  # fmt: skip
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def read_path(file: str | Path) -> CameraPath:
    """UserError naming file, place, value and choices where it is no camera path."""
    file = Path(file)
    try:
        with open(file, "rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error
    return path_from_bytes(data, str(file))


def path_from_bytes(data: bytes, where: str) -> CameraPath:
    """As ``read_path`` for a file's content; ``where`` stands before every complaint."""
    if len(data) > MOST_BYTES:
        raise UserError(f"{where}: too large for a camera path (more than {MOST_BYTES:,} bytes)")
    try:
        whole = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: no JSON ({error})") from error
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise UserError(f'{where}: no camera path: it needs "format": "{FORMAT}"')
    return _path(whole, where)


def _path(whole: dict[str, Any], where: str) -> CameraPath:
    reader = _Reader(whole, where)
    reader.word("version", [VERSION])
    reader.word("frame", [FRAME], FRAME)
    keys = reader.take("keys", [])
    if not isinstance(keys, list) or not 1 <= len(keys) <= MOST_KEYS:
        raise reader.wrong("keys", f"a list of 1 to {MOST_KEYS} keys")
    reader.known.add("format")
    path = CameraPath(
        tuple(_key(key, f"{where}: keys[{i}]") for i, key in enumerate(keys)),
        loop=reader.flag("loop", False),
        tension=reader.number("tension", -1, 1, 0.0),
        timing=reader.word("timing", list(TIMINGS), "keys"),
        ease=reader.word("ease", list(EASES), "ends"),
        fps=reader.number("fps", 0.01, FASTEST_FPS, 30.0),
        size=reader.size("size"),
    )
    reader.done()
    return path


def _key(value: Any, where: str) -> Keyframe:
    if not isinstance(value, dict):
        raise UserError(f"{where} is {_shown(value)}: an object with position and wxyz is needed")
    reader = _Reader(value, where)
    name = reader.take("name", "")
    if not isinstance(name, str) or len(name) > LONGEST_WORD:
        raise reader.wrong("name", f"at most {LONGEST_WORD} letters")
    key = Keyframe(
        reader.numbers("position", 3),
        reader.numbers("wxyz", 4),
        reader.number("fov_deg", *FOV_DEG, 50.0),
        reader.number("secs", 0.01, LONGEST_SECS, 2.0),
        reader.number("hold_secs", 0, LONGEST_SECS, 0.0),
        _look(reader),
        name,
    )
    if math.hypot(*key.wxyz) < 1e-6:
        raise reader.wrong("wxyz", "four numbers that are not all 0")
    reader.done()
    return key


def _look(reader: _Reader) -> dict[str, LookValue]:
    look = reader.take("look", {})
    if not isinstance(look, dict) or len(look) > MOST_LOOKS or any(len(name) > LONGEST_WORD for name in look):
        raise reader.wrong("look", f"an object of at most {MOST_LOOKS} settings")
    return {name: _look_value(name, value, reader) for name, value in look.items()}


def _look_value(name: str, value: Any, reader: _Reader) -> LookValue:
    if value is None or isinstance(value, bool) or (isinstance(value, str) and len(value) <= LONGEST_WORD):
        return value
    if _finite(value):
        return float(value)
    if isinstance(value, list) and len(value) <= 16 and all(map(_finite, value)):
        return tuple(map(float, value))
    raise reader.wrong("look", f"{name!r} must be a word, yes or no, a number or at most 16 numbers")


class _Reader:
    """One object of the file; what nobody asked for is an error at the end."""

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self.data, self.where = data, where
        self.known: set[str] = set()

    def take(self, name: str, default: Any = None) -> Any:
        self.known.add(name)
        return self.data.get(name, default)

    def wrong(self, name: str, needed: str) -> UserError:
        what = f"is {_shown(self.data[name])}" if name in self.data else "is missing"
        return UserError(f"{self.where}: {name} {what}; {needed}" if needed else f"{self.where}: {name} {what}")

    def number(self, name: str, low: float, high: float, default: float) -> float:
        value = self.take(name, default)
        if not _finite(value) or not low <= value <= high:
            raise self.wrong(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def numbers(self, name: str, count: int) -> tuple[Any, ...]:
        value = self.take(name)
        if not isinstance(value, list) or len(value) != count or not all(map(_finite, value)):
            raise self.wrong(name, f"{count} finite numbers")
        return tuple(map(float, value))

    def flag(self, name: str, default: bool) -> bool:
        value = self.take(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "choices: true, false")
        return value

    def word(self, name: str, choices: list[Any], default: Any = None) -> Any:
        value = self.take(name, default)
        if isinstance(value, bool) or value not in choices:
            raise self.wrong(name, f"choices: {', '.join(map(str, choices))}")
        return value

    def size(self, name: str) -> tuple[int, int] | None:
        value = self.take(name)
        low, high = SIDES_PX
        if value is None:
            return None
        whole = isinstance(value, list) and len(value) == 2 and all(type(side) is int for side in value)
        if not whole or not all(low <= side <= high for side in value):
            raise self.wrong(name, f"two whole numbers from {low} to {high}, or null")
        return value[0], value[1]

    def done(self) -> None:
        unknown = sorted(set(self.data) - self.known)
        if unknown:
            choices = ", ".join(sorted(self.known))
            raise UserError(f"{self.where}: {_shown(unknown[0])} is not known; choices: {choices}")


def _finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e15  # False for NaN and infinity, and for integers too long for a float


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
