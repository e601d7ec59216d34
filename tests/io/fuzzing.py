"""Damaged files for every reader, the same ones every time, and the judgement on what a reader makes of them.

A reader may end in a model of finite numbers or in one ``UserError`` of one line, soon and without much memory.
Run as a program for many files: ``python tests/io/fuzzing.py FORMAT COUNT``.
"""

from __future__ import annotations

import io
import json
import random
import re
import resource
import signal
import sys
import tempfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fuzzing_layers import opened
from gaussians import SHARED, model_of, random_model
from ksplat_files import ksplat_bytes

from splat.errors import UserError
from splat.io.cameras_json import read_cameras_json
from splat.io.formats import FORMATS
from splat.io.plain import plain_of

CPU_SECS = 2.0
"""Time of the processor, not of the clock: a busy machine is no fault."""
FREE_BYTES, BYTES_PER_BYTE = 2**26, 1024
"""A reader may hold so much, and so much more per byte of the file."""
_WORDS = [
    bytes.fromhex(word)
    for word in ("00000000 ffffffff ffffff7f 00000080 0000c07f 0000807f 000080ff ffff7f7f "
                 "01000000 00000001 00000100 ffff0000 00000010").split()
]  # fmt: skip
"""Extreme integers and floats, of either byte order."""
_NUMBERS = [b"0", b"-1", b"1", b"255", b"65536", b"4294967295", b"4294967296", b"999999999999", b"18446744073709551616",
            b"1e308", b"1e999", b"-0.0", b"nan", b"0x10", b"1" * 5000]  # fmt: skip
_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 3, 255, 65_536, 2**31, 2**32, 2**53, 2**63, 2**64, -(2**70), 1e308, -0.5, float("nan"),
    float("inf"), "", "x", "../../etc/passwd", "/etc/passwd", "means_l.webp", "\0", "\ud800", [], {}, [[]], [1, 2, 3],
    [0] * 300, {"": None}, "a" * 3000,
]  # fmt: skip


class TooSlowError(BaseException):
    """Not an Exception, so that no reader can take it for a fault of the file."""


@dataclass(frozen=True)
class Target:
    """One reader with whole files to start from."""

    name: str
    seeds: list[bytes]
    place: Callable[[Path, bytes], Path]
    """Lays a file out in an empty folder and says what to read."""
    read: Callable[[Path], Any]


def target_names() -> list[str]:
    """Every reader of ``FORMATS``, and that of ``cameras.json``."""
    return [*(name for name, row in FORMATS.items() if row.read is not None), "cameras"]


@cache
def target_of(name: str) -> Target:
    """By name; its whole files are made once."""
    if name == "cameras":
        return _cameras()
    if name == "sog-folder":
        return replace(target_of("sog"), name=name, place=_unzipped, read=FORMATS[name].read)
    row = FORMATS[name]
    assert row.read is not None
    return Target(name, _seeds(name), lambda folder, data: _placed(folder / f"m{row.suffixes[0]}", data), row.read)


def _cameras() -> Target:
    view = {"id": 0, "img_name": "a.jpg", "width": 40, "height": 30, "position": [0, 1, 2], "fx": 30.5, "fy": 31.0}
    seed = json.dumps([{**view, "rotation": np.eye(3).tolist()}, {**view, "rotation": np.eye(3).tolist(), "cx": 20}])
    return Target("cameras", [seed.encode()], lambda folder, data: _placed(folder / "c.json", data), read_cameras_json)


def mutated(target: Target, index: int) -> bytes:
    """Damaged file ``index`` of a target; the same bytes in every run."""
    rng = random.Random(f"{target.name} {index}")
    data = rng.choice(target.seeds)
    return _mutated(data, rng, target.seeds, depth=0)


def verdict(target: Target, data: bytes, folder: Path) -> str:
    """ "model" or "refused"; AssertionError with what went wrong otherwise."""
    path = target.place(folder, data)
    limit = FREE_BYTES + BYTES_PER_BYTE * len(data)
    tracing = tracemalloc.is_tracing()
    if tracing:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
    try:
        with _limited_time(), warnings.catch_warnings():
            warnings.simplefilter("error")
            result = target.read(path)
        outcome = "model"
    except UserError as error:
        text = str(error)
        assert "\n" not in text and len(text) < 10_000, f"not one short line: {text[:300]!r}"
        assert str(folder) in text, f"does not name the file: {text[:300]!r}"
        outcome = "refused"
    except TooSlowError as error:
        raise AssertionError(f"took more than {CPU_SECS} s") from error
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {str(error)[:300]}") from error
    if tracing:
        peak = tracemalloc.get_traced_memory()[1] - before
        assert peak <= limit, f"took {peak:,} bytes for a file of {len(data):,}"
    if outcome == "model" and target.name != "cameras":
        model = result[0]
        for name, table in model.rows.items():
            assert len(table) == model.count, f"{name} has {len(table)} rows, not {model.count}"
            if target.name != "native":  # keeps rows as they are
                assert table.isfinite().all(), f"{name} is not finite"
    return outcome


def _placed(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _unzipped(folder: Path, data: bytes) -> Path:
    """The members as files of a folder, whose ``meta.json`` is read."""
    for old in folder.iterdir():
        old.unlink()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:  # whatever is wrong with it, there are no members
        members = {}
    for name, content in {"meta.json": data[:2000], **members}.items():
        if re.fullmatch(r"[\w.]{1,40}", name) and name not in (".", ".."):
            (folder / name).write_bytes(content)
    return folder / "meta.json"


def _seeds(name: str) -> list[bytes]:
    """Small files of a format: our own, and other people's where they are at hand."""
    row = FORMATS[name]
    files = []
    with tempfile.TemporaryDirectory() as folder:
        for variant in FORMATS.values():
            if variant.write is None or (variant.matches != row.matches):
                continue
            models = [random_model(2, sh_degree=0), random_model(12, sh_degree=3, filter2d="aa")]
            if row.frame == "training":
                models.append(model_of("gef", 6))
            for model in models:
                path = Path(folder) / f"m{row.suffixes[0]}"
                variant.write(model, path, {"up_axis": [0, -1, 0], "provenance": {"scene": "x"}})
                files.append(path.read_bytes())
    if name == "ksplat":
        parts = [plain_of(random_model(n, sh_degree=2)) for n in (9, 5)]
        files += [ksplat_bytes(parts, level) for level in (0, 1, 2)]
    for path in sorted((SHARED / "splats/fixtures").glob(f"*{row.suffixes[0]}")):
        if path.stat().st_size < 10_000:
            files.append(path.read_bytes())
    return files


def _mutated(data: bytes, rng: random.Random, seeds: list[bytes], *, depth: int) -> bytes:
    """One damaged copy: of the bytes as they are, or of what lies inside, sealed again so that it gets further."""
    if depth < 3 and rng.random() < 0.7 and (layer := opened(data)) is not None and layer.parts:
        parts = list(layer.parts)
        at = rng.randrange(len(parts))
        parts[at] = _mutated(parts[at], rng, [parts[at], *layer.parts], depth=depth + 1)
        try:
            return layer.sealed(parts)
        except Exception:  # what was damaged cannot be sealed: leave it open
            pass
    if data[:1] in (b"{", b"[") and rng.random() < 0.7:
        try:
            return json.dumps(_damaged_json(json.loads(data), rng)).encode("utf-8", "surrogatepass")
        except ValueError:
            pass
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        data = rng.choice(_OPERATIONS)(data, rng, seeds)
    return data


def _flip(data: bytes, rng: random.Random, seeds: list[bytes]) -> bytes:
    out = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 2, 16))):
        out[_place(len(out), rng)] ^= 1 << rng.randrange(8)
    return bytes(out)


def _set_byte(data: bytes, rng: random.Random, seeds: list[bytes]) -> bytes:
    out = bytearray(data or b"\0")
    out[_place(len(out), rng)] = rng.choice((0, 1, 2, 3, 4, 127, 128, 254, 255))
    return bytes(out)


def _set_word(data: bytes, rng: random.Random, seeds: list[bytes]) -> bytes:
    """A length or a float, aligned or not, of 4 or 8 bytes."""
    word = rng.choice(_WORDS) * rng.choice((1, 1, 2))
    at = _place(len(data) or 1, rng)
    at -= at % rng.choice((1, 4, 4))
    return data[:at] + word + data[at + len(word) :]


def _cut(data: bytes, rng: random.Random, seeds: list[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _remove(data: bytes, rng: random.Random, seeds: list[bytes]) -> bytes:
    at = _place(len(data) or 1, rng)
    return data[:at] + data[at + rng.choice((1, 4, 17, 256)) :]


def _repeat(data: bytes, rng: random.Random, seeds: list[bytes]) -> bytes:
    at, length = _place(len(data) or 1, rng), rng.choice((1, 4, 32, 500))
    return data[: at + length] + data[at : at + length] * rng.choice((1, 3)) + data[at + length :]


def _splice(data: bytes, rng: random.Random, seeds: list[bytes]) -> bytes:
    other = rng.choice(seeds)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _renumber(data: bytes, rng: random.Random, seeds: list[bytes]) -> bytes:
    """Another number for one that is written out."""
    found = list(re.finditer(rb"\d+", data[:8192]))
    if not found:
        return _set_word(data, rng, seeds)
    match = rng.choice(found)
    return data[: match.start()] + rng.choice(_NUMBERS) + data[match.end() :]


def _swap_words(data: bytes, rng: random.Random, seeds: list[bytes]) -> bytes:
    """As a writer of the other byte order would have it."""
    at = _place(len(data) or 1, rng) & ~3
    size = rng.choice((4, 32, len(data)))
    words = data[at : at + size - size % 4]
    swapped = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
    return data[:at] + swapped + data[at + len(words) :]


_OPERATIONS = (
    _flip,
    _set_byte,
    _set_word,
    _set_word,
    _cut,
    _remove,
    _repeat,
    _splice,
    _renumber,
    _renumber,
    _swap_words,
)


def _place(size: int, rng: random.Random) -> int:
    """Any byte, half of the time one of the first: headers are short."""
    return rng.randrange(min(size, rng.choice((16, 64, size))))


def _damaged_json(value: Any, rng: random.Random) -> Any:
    """A copy in which one place, anywhere, holds something else or nothing."""
    inside = isinstance(value, dict | list) and len(value) > 0
    if not inside or rng.random() < 0.1:
        return rng.choice(_VALUES)
    copy = dict(value) if isinstance(value, dict) else list(value)
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    if rng.random() < 0.15:
        del copy[key]
    else:
        copy[key] = _damaged_json(value[key], rng)
    return copy


@contextmanager
def _limited_time() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def main(name: str, count: int, keep: Path | None = None) -> int:
    """Read ``count`` damaged files within limits on memory; print outcomes and what went wrong as JSON."""
    target = target_of(name)
    outcomes, faults = {"model": 0, "refused": 0}, {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in target.seeds:  # everything lazily imported is, before memory is limited
            assert verdict(target, seed, Path(folder)) == "model" or target.name in ("spz", "sog-folder")
        start_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + 2**30, resource.getrlimit(resource.RLIMIT_AS)[1]))
        for index in range(count):
            data = mutated(target, index)
            try:
                outcomes[verdict(target, data, Path(folder))] += 1
            except AssertionError as error:
                faults[index] = str(error)
                if keep is not None:
                    (keep / f"{name}-{index}").write_bytes(data)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start_kb) * 1024
    print(json.dumps({"target": name, **outcomes, "grown_bytes": grown, "faults": faults}))
    return len(faults)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    kept = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    sys.exit(min(main(sys.argv[1], int(sys.argv[2]), kept), 100))
