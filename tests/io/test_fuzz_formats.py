"""Damaged and hostile files: every reader ends in a model or in one clear error, soon and in little memory."""

from __future__ import annotations

import concurrent.futures
import gzip
import io
import json
import os
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import fuzzing
import numpy as np
import pytest
from fuzzing import BYTES_PER_BYTE, FREE_BYTES, mutated, target_names, target_of, verdict
from gaussians import random_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ksplat_files import ksplat_bytes

from splat.errors import UserError
from splat.io.formats import FORMATS, read_model, write_model
from splat.io.plain import plain_of

NAMES = target_names()
QUICK, MANY = 40, 100_000
"""Damaged files per reader in the quick suite, and of all readers together in the slow one."""


@pytest.fixture
def traced():
    """Memory of numpy and Python is counted."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files(tmp_path, traced, name):
    target = target_of(name)
    outcomes = [verdict(target, mutated(target, index), tmp_path) for index in range(QUICK)]
    assert "refused" in outcomes  # the damage is felt
    assert [verdict(target, seed, tmp_path) for seed in target.seeds[:2]].count("model") >= 1


def test_the_same_damage_every_time():
    target = target_of("ksplat")
    assert [mutated(target, index) for index in range(20)] == [mutated(target, index) for index in range(20)]
    assert len({mutated(target, index) for index in range(20)}) > 15


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(NAMES), start=st.integers(0, 120), body=st.binary(max_size=400), cut=st.booleans())
def test_a_true_beginning_with_anything_behind(tmp_path, name, start, body, cut):
    seed = target_of(name).seeds[-1]
    verdict(target_of(name), seed[:start] + body + (b"" if cut else seed[start + len(body) :]), tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(sorted({s for row in FORMATS.values() for s in row.suffixes})), body=st.binary(max_size=200)
)
def test_anything_under_any_name(tmp_path, suffix, body):
    path = tmp_path / f"m{suffix}"
    path.write_bytes(body)
    try:
        read_model(path)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("cameras", "sog-folder")])
@pytest.mark.parametrize("field", ["means", "log_scales", "quats"])
def test_numbers_that_are_none_become_no_rows(tmp_path, name, field):
    """Whatever was written of NaN and infinity by hand in a float format, nothing of it comes back."""
    target, word = target_of(name), np.array([np.nan, np.inf, -np.inf, 3e38], "<f4")
    for at in range(4):
        seed = target.seeds[at % len(target.seeds)]
        for start in range(len(seed) % 4 + len(seed) // 2, len(seed) - 16, max(len(seed) // 12, 1)):
            verdict(target, seed[:start] + word[at].tobytes() + seed[start + 4 :], tmp_path)


def spz_header(count: int, version: int = 3) -> bytes:
    return struct.pack("<4sIIBBBB", b"NGSP", version, count, 3, 12, 0, 0)


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", compression) as archive:
        warnings.simplefilter("ignore")  # names that stand twice
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return stream.getvalue()


def misnamed(archive: bytes) -> bytes:
    """Its first name said to be UTF-8, in both places, and none in the place that is read last."""
    data, central = bytearray(archive), archive.index(b"PK\1\2")
    data[7] |= 8
    data[central + 9] |= 8
    data[30] = 0xFF
    return bytes(data)


def sog_meta(**changes) -> bytes:
    meta = {
        "version": 2, "count": 4,
        "means": {"mins": [0] * 3, "maxs": [1] * 3, "files": ["means_l.webp", "means_u.webp"]},
        "scales": {"codebook": [0.0] * 256, "files": ["scales.webp"]}, "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": [0.0] * 256, "files": ["sh0.webp"]},
    }  # fmt: skip
    return json.dumps({**meta, **changes}).encode()


def picture(width: int, height: int) -> bytes:
    """A lossless WebP of one colour: a few dozen bytes whatever its size."""
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGBA", (width, height)).save(stream, "WEBP", lossless=True)
    return stream.getvalue()


def glb(facts: dict, body: bytes = b"") -> bytes:
    text = json.dumps(facts).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(body), b"BIN\0") + body
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def glb_of(count: int, *, uri: str | None = None) -> bytes:
    names = ["POSITION", "KHR_gaussian_splatting:ROTATION", "KHR_gaussian_splatting:SCALE",
             "KHR_gaussian_splatting:OPACITY", "KHR_gaussian_splatting:SH_DEGREE_0_COEF_0"]  # fmt: skip
    kinds = ["VEC3", "VEC4", "VEC3", "SCALAR", "VEC3"]
    accessors = [{"componentType": 5126, "count": count, "type": kind, "bufferView": 0} for kind in kinds]
    splats = {"KHR_gaussian_splatting": {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}}
    primitive = {"mode": 0, "attributes": {name: i for i, name in enumerate(names)}, "extensions": splats}
    return glb(
        {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
         "meshes": [{"primitives": [primitive]}], "accessors": accessors,
         "bufferViews": [{"buffer": 0, "byteOffset": 0, "byteLength": 16 * count}],
         "buffers": [{"byteLength": 16 * count, **({"uri": uri} if uri else {})}],
         "extensionsUsed": ["KHR_gaussian_splatting"]}
    )  # fmt: skip


def hostile() -> dict[str, tuple[str, bytes]]:
    """Small files that promise much, hide much or point elsewhere: name of the case -> suffix, content."""
    plain = [plain_of(random_model(9, sh_degree=2))]
    ksplat = ksplat_bytes(plain, 1)
    ply = b"ply\nformat binary_little_endian 1.0\nelement vertex %d\n"
    tensors = json.dumps(
        {"rows.means": {"dtype": "F32", "shape": [2**40, 3], "data_offsets": [0, 12 * 2**40]}}
    ).encode()
    zeros = bytes(2**26)
    bomb = zipped({"meta.json": sog_meta(), **dict.fromkeys(
        ("means_l.webp", "means_u.webp", "scales.webp", "quats.webp", "sh0.webp"), zeros)})  # fmt: skip
    flat = picture(16_383, 16_383)
    wide = zipped({"meta.json": sog_meta(), **dict.fromkeys(
        ("means_l.webp", "means_u.webp", "scales.webp", "quats.webp", "sh0.webp"), flat)})  # fmt: skip
    return {
        "ply with rows for terabytes": (".ply", ply % 10**12 + b"property float x\nend_header\n"),
        "compressed ply with rows for terabytes": (
            ".compressed.ply", ply % 10**11 + b"property uint packed_position\nelement chunk 1\nend_header\n"),
        "spz with four billion splats": (".spz", gzip.compress(spz_header(2**32 - 1))),
        "spz 4 with four billion splats": (
            ".spz", struct.pack("<4sIIBBBBI12x", b"NGSP", 4, 2**32 - 1, 3, 12, 0, 6, 32) + bytes(96)),
        "spz that unpacks to zeros without end": (".spz", gzip.compress(spz_header(10) + zeros)),
        "spz of the other byte order": (".spz", gzip.compress(b"PSGN" + bytes(60))),
        "ksplat of the other byte order": (
            ".ksplat", np.frombuffer(ksplat[: len(ksplat) & ~3], ">u4").astype("<u4").tobytes()),
        "ksplat with sections for gigabytes": (".ksplat", ksplat[:4] + b"\xff" * 4 + ksplat[8:]),
        "safetensors with rows for terabytes": (".safetensors", len(tensors).to_bytes(8, "little") + tensors),
        "safetensors with a header of exabytes": (".safetensors", (2**63 - 1).to_bytes(8, "little") + b"{}"),
        "spack with a header of gigabytes": (".spack", b"SPLATPK1\xff\xff\xff\xff{}"),
        "spack of deeply nested JSON": (
            ".spack", b"SPLATPK1" + (200_000).to_bytes(4, "little") + b"[" * 200_000),
        "sog of a deflate bomb": (".sog", bomb),
        "sog with huge pictures of nothing": (".sog", wide),
        "sog with more splats than pixels": (".sog", zipped({"meta.json": sog_meta(count=10**12)})),
        "sog with a path": (".sog", zipped({"meta.json": sog_meta(quats={"files": ["../../../etc/passwd"]})})),
        "sog with an absolute path": (".sog", zipped({"meta.json": sog_meta(quats={"files": ["/etc/passwd"]})})),
        "sog with a name that no file can have": (
            ".sog", zipped({"meta.json": sog_meta(quats={"files": ["\ud800"]})})),
        "sog with a name that is no text": (".sog", misnamed(zipped({"meta.json": sog_meta()}))),
        "sog with JSON without end": (".sog", zipped({"meta.json": b"[" * 500_000})),
        "sog with a huge meta.json": (".sog", zipped({"meta.json": b" " * 2**27})),
        "sog with meta.json last and cut": (".sog", zipped({"meta.json": sog_meta()})[:-30]),
        "glb with rows for terabytes": (".glb", glb_of(10**12)),
        "glb with a buffer in another file": (".glb", glb_of(4, uri="../../../etc/passwd")),
        "glb of the other byte order": (".glb", b"glTF" + struct.pack(">II", 2, 100) + bytes(88)),
        "splat that is no whole rows": (".splat", bytes(100)),
    }  # fmt: skip


@pytest.mark.parametrize("case", hostile())
def test_hostile_files_cost_little_and_say_what_is_wrong(tmp_path, traced, case):
    suffix, data = HOSTILE[case]
    path = tmp_path / f"m{suffix}"
    path.write_bytes(data)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    with pytest.raises(UserError) as caught:
        read_model(path)
    assert tracemalloc.get_traced_memory()[1] - before < FREE_BYTES + BYTES_PER_BYTE * min(len(data), 10_000)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert "root:" not in str(caught.value)  # nothing of a file elsewhere


HOSTILE = hostile()


def test_a_folder_of_sog_reads_nothing_outside_of_it(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.webp").write_bytes(picture(4, 4))
    for name in ("means_l", "means_u", "scales", "sh0"):
        (tmp_path / f"in/{name}.webp").write_bytes(picture(4, 4))
    for name in ("../secret.webp", "\ud800.webp"):
        (tmp_path / "in/meta.json").write_bytes(sog_meta(quats={"files": [name]}))
        with pytest.raises(UserError, match="only plain names"):
            read_model(tmp_path / "in")


def test_limits_are_noticed(tmp_path, monkeypatch):
    """What judges the readers can itself say no."""
    monkeypatch.setattr(fuzzing, "CPU_SECS", 0.1)
    target = target_of("ply")

    def judged(read):
        return verdict(type(target)("ply", target.seeds, target.place, read), b"ply", tmp_path)

    def spins(path):
        while True:
            pass

    def raises(error):
        def read(path):
            raise error

        return read

    for read, words in {
        spins: "more than 0.1", raises(KeyError("x")): "KeyError", raises(UserError("a\nb")): "one short line",
        raises(UserError("what?")): "does not name",
    }.items():  # fmt: skip
        with pytest.raises(AssertionError, match=words):
            judged(read)


def test_memory_is_noticed(tmp_path, traced):
    target = target_of("ply")

    def hoards(path):
        np.zeros(2**25, np.float32)
        raise UserError(str(path))

    with pytest.raises(AssertionError, match="took"):
        verdict(type(target)("ply", target.seeds, target.place, hoards), b"ply", tmp_path)


@pytest.mark.slow
def test_a_hundred_thousand_damaged_files(tmp_path):
    """Each reader in a process of its own that may not take a gigabyte more than it has, nor an hour."""
    root = Path(__file__).resolve().parents[2]
    paths = os.pathsep.join([str(root), str(root / "tests/io"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    count = str(-(-MANY // len(NAMES)))

    def run(name: str) -> dict:
        command = [sys.executable, fuzzing.__file__, name, count, str(tmp_path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600, check=False)
        assert done.stdout, f"{name}: died with {done.returncode}: {done.stderr[-2000:]}"
        return json.loads(done.stdout.splitlines()[-1])

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(run, NAMES))
    print(*results, sep="\n")
    assert not {result["target"]: result["faults"] for result in results if result["faults"]}
    assert all(result["model"] and result["refused"] for result in results)
    assert sum(result["model"] + result["refused"] for result in results) >= MANY
    assert all(result["grown_bytes"] < 2**29 for result in results), results


def test_the_files_we_start_from_are_many(tmp_path):
    write_model(random_model(1), tmp_path / "m.ply")
    assert all(target_of(name).seeds for name in NAMES)
    assert set(NAMES) >= {name for name, row in FORMATS.items() if row.read is not None}
