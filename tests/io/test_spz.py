"""SPZ: every attribute within half a step of its quantiser, every version, every writer's files, and hostile ones."""

from __future__ import annotations

import gzip
import io
import struct
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard
from gaussians import random_model, shared_file
from hypothesis import example, given, settings
from hypothesis import strategies as st

from splat.errors import UserError
from splat.io import spz as spz_module
from splat.io.formats import FORMATS, read_model, write_model
from splat.io.plain import PlainSplats, plain_of
from splat.io.spz import looks_like_spz, plain_from_spz, read_spz, spz_bytes
from splat.io.spz_rows import SpzHead, fitting_fractional_bits, packed

NOWHERE = Path("file.spz")
ALPHA_STEP, COLOR_STEP, SCALE_STEP = 1 / 255, 1 / (0.15 * 255), 1 / 16
SH_HALF_STEPS = (4.5 / 128, 8.5 / 128)
"""Band 1 and the others: half a bucket of 8 or 16, and half a step of the rounding before it."""
QUAT_HALF_STEP = 0.5 * 0.5**0.5 / 511
TURN = 2 * (3 + 9) ** 0.5 * QUAT_HALF_STEP
"""Radians between two rotations whose three smaller components are off by half a step each: the largest is off by at
most three half steps, as it is no smaller than the others, and a rotation turns by twice the quaternion's change."""


def turns_between(quats: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Angles in radians between rotations [N,4] of any length; exact for small ones."""
    unit, other = (
        values.astype(np.float64) / np.linalg.norm(values, axis=1, keepdims=True) for values in (quats, others)
    )
    other = np.where((unit * other).sum(axis=1, keepdims=True) < 0, -other, other)
    return 4 * np.arcsin(np.clip(np.linalg.norm(unit - other, axis=1) / 2, 0, 1))


def splats_of(means: np.ndarray, size: float = 0.05) -> PlainSplats:
    """Round grey splats at ``means [N,3]``."""
    count = len(means)
    return PlainSplats(
        np.asarray(means, np.float32), np.tile(np.array((1, 0, 0, 0), np.float32), (count, 1)),
        np.full((count, 3), np.log(size), np.float32), np.full(count, 0.5, np.float32),
        np.zeros((count, 3), np.float32), np.zeros((count, 0, 3), np.float32), 0,
    )  # fmt: skip


def back(plain: PlainSplats, version: int = 3) -> PlainSplats:
    return plain_from_spz(NOWHERE, spz_bytes(plain, NOWHERE, version=version))[0]


def ranged(plain: PlainSplats) -> PlainSplats:
    """With every number inside the format's range."""
    return replace(
        plain, log_scales=plain.log_scales.clip(-10, 5.9), sh0=plain.sh0.clip(-3.3, 3.3),
        sh_rest=plain.sh_rest.clip(-1, 0.99),
    )  # fmt: skip


@pytest.mark.parametrize("version", [2, 3, 4])
@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
def test_every_attribute_stays_within_half_a_step(version, sh_degree):
    plain = ranged(plain_of(random_model(256, sh_degree=sh_degree, seed=version)))
    found = back(plain, version)
    assert found.count == 256 and found.sh_degree == sh_degree and found.sh_rest.shape == plain.sh_rest.shape
    for name, step in (
        ("means", 2.0**-12), ("opacities", ALPHA_STEP), ("sh0", COLOR_STEP), ("log_scales", SCALE_STEP),
    ):  # fmt: skip
        error = np.abs(getattr(found, name) - getattr(plain, name)).max()
        assert 0.3 * step < error <= 0.5001 * step, name
    for rest, half_step in zip((slice(0, 3), slice(3, None)), SH_HALF_STEPS, strict=True):
        error = np.abs(found.sh_rest[:, rest] - plain.sh_rest[:, rest]).max(initial=0)
        assert error <= half_step and (error > half_step / 2 or plain.sh_rest[:, rest].size == 0)
    if version > 2:
        assert TURN / 4 < turns_between(found.quats, plain.quats).max() <= TURN
    else:  # w follows from x, y, z, badly where it is small
        xyz = plain.quats[:, 1:] * np.where(plain.quats[:, :1] < 0, -1, 1)
        assert np.abs(found.quats[:, 1:] - xyz).max() <= 0.5001 / 127.5 and (found.quats[:, 0] >= 0).all()


def test_rotations_of_every_kind_come_back(tmp_path):
    """Quaternions of any length and sign; ones with ties for the largest component; none."""
    rng = np.random.default_rng(3)
    ties = np.array([[1, 1, 1, 1], [1, -1, 0, 0], [0, 0, 1, 1], [-1, 0, 0, 0], [0, 0, 0, -1], [0.7, 0.7, 0.1, 0.1]])
    quats = np.concatenate([ties, rng.normal(size=(3000, 4)) * 10 ** rng.uniform(-6, 6, (3000, 1))])
    model = random_model(len(quats), sh_degree=0)
    model.rows["quats"] = torch.tensor(quats, dtype=torch.float32)
    model.rows["means"][:, :] = torch.linspace(-1, 1, len(quats))[:, None]  # an order that is kept
    write_model(model, tmp_path / "m.spz")
    found = read_spz(tmp_path / "m.spz")[0].rows["quats"].numpy()
    assert turns_between(found, quats).max() < 1.2 * TURN  # a tie may settle a step away
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_higher_bands_stand_by_coefficient_then_colour():
    plain = plain_of(random_model(1, sh_degree=1))
    red = np.zeros((1, 3, 3), np.float32)
    red[0, :, 0] = (0.25, 0.5, -0.75)
    plain = replace(plain, sh_rest=red)
    head = SpzHead(3, 1, 1, 12, False, False)
    assert (packed(plain, head)["sh"] == [160, 128, 128, 192, 128, 128, 32, 128, 128]).all()
    np.testing.assert_array_equal(back(plain).sh_rest, red)


def test_the_file_has_y_and_z_the_other_way_round():
    """RUB axes: what splat-transform and SuperSplat write and read."""
    plain = splats_of(np.array([[1.0, 2.0, 3.0]]))
    content = gzip.decompress(spz_bytes(plain, NOWHERE, version=3))
    stored = np.frombuffer(content[16:25], np.uint8).reshape(3, 3).astype(int) @ (1, 256, 65536)
    assert (np.where(stored >= 2**23, stored - 2**24, stored) / 4096 == (1, -2, -3)).all()
    np.testing.assert_array_equal(back(plain).means, [[1, 2, 3]])


@pytest.mark.parametrize(
    ("axes", "means"), [(4, (1, -2, -3)), (6, (1, 2, 3)), (0, (1, -2, -3)), (3, (-1, -2, -3)), (16, (1, -2, -3))]
)
@pytest.mark.parametrize("version", [3, 4])
def test_axes_named_in_an_extension_are_honoured(version, axes, means):
    """RUB, RDF, unspecified, LUB; z-up ones are said not to be known."""
    plain = splats_of(np.array([[1.0, -2.0, -3.0]]))  # stands in the file as 1, 2, 3
    records = struct.pack("<II5s", 0xADBE0002, 5, b"other") + struct.pack("<III", 0xADBE0003, 4, axes)
    data = spz_bytes(plain, NOWHERE, version=version)
    if version == 3:
        content = bytearray(gzip.decompress(data))
        content[14] |= 2
        data = gzip.compress(bytes(content) + records)
    else:
        data = (
            data[:14] + b"\2" + data[15:16] + struct.pack("<I", 32 + len(records)) + data[20:32] + records + data[32:]
        )
    found, facts = plain_from_spz(NOWHERE, data)
    np.testing.assert_array_equal(found.means, [means])
    assert [("axes are number 16" in warning) for warning in facts["warnings"]] == [True] * (axes == 16)


def test_opacities_of_0_and_1_and_numbers_out_of_range_stay_at_the_limit(tmp_path):
    model = random_model(2, sh_degree=3)
    model.rows["logit_opacities"] = torch.tensor([-60.0, 60.0])
    for name in ("sh0", "sh_rest", "log_scales"):
        model.rows[name][0], model.rows[name][1] = 50, -50
    model.rows["log_scales"][0] = 20
    write_model(model, tmp_path / "m.spz")
    found = read_spz(tmp_path / "m.spz")[0]
    assert all(table.isfinite().all() for table in found.rows.values())
    assert found.opacities.tolist() == pytest.approx([0, 1], abs=1e-6)
    high, low = found.rows["sh_rest"]
    assert (high >= 127 / 128).all() and (low <= -127 / 128).all()  # -1 is there, 1 is not; axes change signs
    torch.testing.assert_close(found.rows["sh0"][:, 0], torch.tensor([10 / 3, -10 / 3]))
    assert (found.rows["log_scales"][0] == 255 / 16 - 10).all() and (found.rows["log_scales"][1] == -10).all()


@pytest.mark.parametrize(
    ("largest", "size", "bits"),
    [(1.0, 0.05, 12), (2047.9, 0.05, 12), (3000.0, 0.05, 11), (100_000.0, 5.0, 6), (4e6, 1.0, 1),
     (1e-3, 1e-3, 21), (1.0, 1e-3, 12), (1.0, 1e-4, 16), (100.0, 1e-4, 16), (1000.0, 1e-4, 13)],
)  # fmt: skip
def test_coordinates_get_as_many_fractional_bits_as_fit_and_help(largest, size, bits):
    means = np.linspace(-largest, largest, 33)[:, None] * (1.0, 0.5, -0.25)
    plain = splats_of(means, size)
    assert fitting_fractional_bits(plain) == bits
    for version in (2, 4):
        assert np.abs(back(plain, version).means - plain.means).max() <= 0.5**bits / 2 + largest * 1e-7


def test_what_cannot_be_held_is_said(tmp_path):
    with pytest.raises(UserError, match=r"m\.spz: a splat lies 5,000,000 units out; SPZ reaches 4,194,304"):
        spz_bytes(splats_of(np.array([[0, 5e6, 0]])), Path("m.spz"), version=3)
    with pytest.raises(UserError, match="no splats to write"):
        write_model(random_model(0), tmp_path / "m.spz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["spz", "spz2", "spz4"])
@pytest.mark.parametrize("filter2d", ["classic", "aa", "mip"])
def test_one_splat_and_its_flag(tmp_path, format, filter2d):
    written = write_model(random_model(1, sh_degree=2, filter2d=filter2d), tmp_path / "m.spz", format=format)
    loaded = read_model(tmp_path / "m.spz")
    assert written.fidelity == "lossy" and loaded.model.count == 1
    assert loaded.model.filter2d == ("classic" if filter2d == "classic" else "aa")
    assert loaded.header["format_version"] == {"spz": 3, "spz2": 2, "spz4": 4}[format]
    assert loaded.header["warnings"] == []


@pytest.mark.parametrize("version", [2, 3, 4])
def test_writing_is_repeatable_and_writing_again_changes_nothing(version):
    plain = plain_of(random_model(3000, sh_degree=2))
    data = spz_bytes(plain, NOWHERE, version=version)
    assert data == spz_bytes(plain, NOWHERE, version=version)
    assert spz_bytes(plain_from_spz(NOWHERE, data)[0], NOWHERE, version=version) == data
    if version < 4:
        assert data[4:8] == b"\0\0\0\0"  # the gzip member's date


def test_other_versions_are_read():
    """Version 1 has half-precision positions; degree 4 has a band too many; a body may stand without its gzip."""
    plain = plain_of(random_model(3, sh_degree=0))
    content = gzip.decompress(spz_bytes(plain, NOWHERE, version=2))
    halves = (plain.means * (1, -1, -1)).astype("<f2")
    first = content[:4] + struct.pack("<I", 1) + content[8:16] + halves.tobytes() + content[16 + 27 :]
    for data in (gzip.compress(first), first):
        np.testing.assert_array_equal(plain_from_spz(NOWHERE, data)[0].means, halves * np.float32((1, -1, -1)))
    bands = np.arange(3 * 24 * 3, dtype=np.uint8)
    fourth = content[:12] + b"\4" + content[13:] + bands.tobytes()
    found, facts = plain_from_spz(NOWHERE, fourth)
    assert found.sh_degree == 3 and "fourth band was left out" in facts["warnings"][0]
    np.testing.assert_array_equal(
        np.abs(found.sh_rest), np.abs((bands.reshape(3, 24, 3)[:, :15].astype(np.float32) - 128) / 128)
    )


def test_recognition_needs_the_magic_word_inside():
    data = spz_bytes(splats_of(np.zeros((1, 3))), NOWHERE, version=3)
    assert looks_like_spz(data[:4096], Path("m.bin")) and looks_like_spz(b"NGSP", Path("m.bin"))
    assert not looks_like_spz(gzip.compress(b"something else"), Path("m.gz"))
    assert looks_like_spz(b"\x1f\x8bdamaged", Path("m.spz")) and not looks_like_spz(b"", Path("m.spz"))


# --- files of strangers ----------------------------------------------------------------------------------------


def ngsp(version=3, count=4, degree=0, bits=12, flags=0) -> bytes:
    return struct.pack("<4sIIBBBB", b"NGSP", version, count, degree, bits, flags, 0)


def version4(streams=5, table=32, sizes=None, count=4, body=b"") -> bytes:
    frames = [
        zstandard.ZstdCompressor().compress(b"\0" * size) for size in (9 * count, count, *[3 * count] * 2, 4 * count)
    ]
    claimed = sizes or [9 * count, count, 3 * count, 3 * count, 4 * count]
    toc = b"".join(struct.pack("<QQ", len(frame), size) for frame, size in zip(frames, claimed, strict=True))
    return ngsp(4, count)[:15] + struct.pack("<BI12x", streams, table) + toc + (body or b"".join(frames))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"NGSP", "cut short: the header needs 16 bytes, 4 are there"),
        (ngsp(), "cut short: positions of 4 splats needs 36 bytes, 0 are there"),
        (gzip.compress(ngsp()), "cut short: positions"),
        (gzip.compress(ngsp(count=2**32 - 1)), "claims 4,294,967,295 splats"),
        (gzip.compress(ngsp(count=2_000_000) + b"\0" * 100), "claims 2,000,000 splats"),
        (gzip.compress(ngsp(version=9)), "SPZ version 9; this version reads 1 to 4"),
        (gzip.compress(ngsp(degree=5)), "SH degree 5"),
        (gzip.compress(ngsp(bits=200)), "200 fractional bits"),
        (gzip.compress(b"hello"), "not an SPZ file"),
        (gzip.compress(ngsp() + b"\0" * 80)[:30], "gzip data ends early"),
        (gzip.compress(ngsp() + b"\0" * 80)[:-8] + b"\1\2\3\4\5\6\7\x08", "gzip data is damaged"),
        (b"\x1f\x8b" + b"\0" * 50, "not an SPZ file"),
        (ngsp(4), "cut short: the header needs 32 bytes"),
        (version4(streams=6), "6 streams where 5 are expected"),
        (version4(table=4), "starts at byte 4"),
        (version4(table=2**32 - 1), "cut short: the table of streams"),
        (version4(sizes=[2**60, 4, 12, 12, 16]), "stream positions is said to hold 1,152,921,504,606,846,976 bytes"),
        (version4()[:-3], "cut short: stream rotations"),
        (version4(body=b"\1" * 500), "stream positions is damaged"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused_in_one_line(data, words):
    with pytest.raises(UserError, match=words) as caught:
        plain_from_spz(NOWHERE, data)
    assert str(caught.value).startswith("file.spz: ") and "\n" not in str(caught.value)


def test_bombs_take_no_more_memory_than_their_header_explains():
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = b"\0" * 2**20
    bomb = squeeze.compress(ngsp()) + b"".join(squeeze.compress(zeros) for _ in range(64)) + squeeze.flush()
    frame = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(frame, closefd=False) as stream:  # does not say how long it is
        for _ in range(64):
            stream.write(zeros)
    lengths = zstandard.ZstdCompressor().compress(zeros * 64)  # does
    for data, words in ((bomb, "decompresses to more"), (frame.getvalue(), "holds more"), (lengths, "holds more")):
        if words == "holds more":
            start, rest = version4()[:32], version4()[48:]
            data = start + struct.pack("<QQ", len(data), 36) + rest[:64] + data  # noqa: PLW2901
        tracemalloc.start()
        with pytest.raises(UserError, match=words):
            plain_from_spz(NOWHERE, data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 * 2**20


@settings(max_examples=150, deadline=None)
@given(
    at=st.integers(0, 2**31), value=st.integers(0, 255), cut=st.integers(0, 2**31), version=st.sampled_from([2, 3, 4])
)
@example(at=8, value=255, cut=0, version=4)
def test_a_changed_or_cut_file_is_a_model_or_one_error(at, value, cut, version):
    data = bytearray(BASE[version])
    data[at % len(data)] = value
    data = data[: len(data) - cut % 40]
    try:
        found, _ = plain_from_spz(NOWHERE, bytes(data))
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert found.count < 2**20


BASE = {version: spz_bytes(plain_of(random_model(5, sh_degree=1)), NOWHERE, version=version) for version in (2, 3, 4)}
BASE[2] = gzip.decompress(BASE[2])  # its body is mutated rather than its checksum


# --- other readers and writers ---------------------------------------------------------------------------------


def gsply_module():
    try:
        import gsply
    except Exception as error:  # it compiles at import
        pytest.skip(f"gsply is not installed ({error})")
    return gsply


@pytest.mark.slow  # it compiles on first use
@pytest.mark.parametrize("version", [3, 4])
def test_gsply_reads_our_files_and_we_read_its(tmp_path, version):
    gsply = gsply_module()
    plain = ranged(plain_of(random_model(200, sh_degree=3)))
    (tmp_path / "m.spz").write_bytes(spz_bytes(plain, NOWHERE, version=version))
    theirs, ours = (
        gsply.read_spz(str(tmp_path / "m.spz")),
        plain_from_spz(NOWHERE, (tmp_path / "m.spz").read_bytes())[0],
    )
    axes = np.float32((1, -1, -1))  # it keeps the file's axes
    np.testing.assert_allclose(theirs.means * axes, ours.means, atol=1e-6)
    np.testing.assert_allclose(theirs.scales, ours.log_scales, atol=1e-6)
    np.testing.assert_allclose(theirs.sh0, ours.sh0, atol=1e-5)
    np.testing.assert_allclose(np.abs(theirs.shN), np.abs(ours.sh_rest), atol=1e-6)
    np.testing.assert_allclose(1 / (1 + np.exp(-theirs.opacities.reshape(-1))), ours.opacities, atol=1e-4)
    assert turns_between(theirs.quats * (1, 1, -1, -1), ours.quats).max() < 1e-5
    gsply.write_spz(str(tmp_path / "g.spz"), theirs, version=version)
    again = read_spz(tmp_path / "g.spz")[0].rows
    np.testing.assert_allclose(again["means"], ours.means, atol=1e-6)
    np.testing.assert_allclose(again["log_scales"], ours.log_scales, atol=1e-6)
    np.testing.assert_allclose(again["sh0"], ours.sh0, atol=1e-5)
    np.testing.assert_allclose(again["sh_rest"], ours.sh_rest, atol=1e-6)
    assert turns_between(again["quats"].numpy(), ours.quats).max() < TURN


@pytest.mark.parametrize("name", ["playbot31k_v3.spz", "playbot31k_v4.spz"])
def test_splat_transforms_file_is_its_ply(name):
    """The same splats in the same order, written by somebody else from a PLY: in its frame, within the steps."""
    loaded = read_model(shared_file(f"splats/converted/{name}"))
    found = plain_of(loaded.model)
    plain = plain_of(read_model(shared_file("splats/converted/playbot31k_sh2.ply")).model)
    assert loaded.header["warnings"] == [] and loaded.header["fractional_bits"] == 12
    inside = ranged(plain)
    assert np.abs(found.means - plain.means).max() <= 2.0**-13 + 1e-7
    assert np.abs(found.log_scales - inside.log_scales).max() <= SCALE_STEP / 2 + 1e-6
    assert np.abs(found.opacities - plain.opacities).max() <= ALPHA_STEP / 2 + 1e-6
    assert np.abs(found.sh0 - plain.sh0.clip(-10 / 3, 10 / 3)).max() <= COLOR_STEP / 2 + 1e-6
    error = np.abs(found.sh_rest - plain.sh_rest.clip(-1, 127 / 128))
    assert error[:, :3].max() <= SH_HALF_STEPS[0] + 1e-6 and error[:, 3:].max() <= SH_HALF_STEPS[1] + 1e-6
    assert turns_between(found.quats, plain.quats).max() <= TURN


def test_our_file_is_no_larger_than_splat_transforms():
    plain = plain_of(read_model(shared_file("splats/converted/playbot31k_sh2.ply")).model)
    for version in (3, 4):
        size = shared_file(f"splats/converted/playbot31k_v{version}.spz").stat().st_size
        assert len(spz_bytes(plain, NOWHERE, version=version)) <= size


def test_the_tiny_fixtures():
    """Four splats of one size and opacity, at the origin and one unit along each axis."""
    for name, version in (("raw", 2), ("v2", 2), ("v3", 3), ("v4", 4)):
        model, header = read_spz(shared_file(f"splats/fixtures/minimal-{name}.spz"))
        assert model.count == 4 and header["format_version"] == version and header["warnings"] == []
        assert model.opacities.tolist() == pytest.approx([230 / 255] * 4)
        assert sorted(model.rows["means"].abs().sum(1).tolist())[3] > 0


def test_a_published_pair_of_files_agrees():
    """The same scene as SPZ 4 and as PlayCanvas' compressed PLY, in one order and one frame."""
    spz = plain_of(read_model(shared_file("splats/playcanvas/biker.spz")).model)
    ply = plain_of(read_model(shared_file("splats/playcanvas/biker.compressed.ply")).model)
    assert spz.count == ply.count == 152_746
    assert np.abs(spz.means - ply.means).max() < 2e-4
    assert np.abs(spz.opacities - ply.opacities).max() < 0.003
    assert np.median(turns_between(spz.quats, ply.quats)) < TURN
    assert np.abs(spz.log_scales - ply.log_scales.clip(-10, 5.9)).max() <= SCALE_STEP / 2 + 1e-5


def test_the_rows_of_the_table():
    assert [name for name, row in FORMATS.items() if row.matches is looks_like_spz and row.read] == ["spz"]
    assert spz_module._STORED == "RUB"
