"""SOG: every attribute within half a step of its quantiser, both versions, other people's files and readers."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import torch
from gaussians import random_model, shared_file

from splat.errors import UserError
from splat.io.codebook import fit_codebook
from splat.io.formats import FORMATS, read_model, sniff, write_model
from splat.io.plain import PlainSplats, plain_of
from splat.io.sog_turns import bytes_of_turns, turns_of_bytes
from splat.io.sog_write import palette_size
from splat.io.webp import webp_pixels
from splat.model.gaussian import GaussianPrimitive
from splat.model.splat_model import SplatModel

QUAT_HALF_STEP = 0.5 * 2 / 255 / 2**0.5
TURN = 2 * (3 + 9) ** 0.5 * QUAT_HALF_STEP
"""Radians: three components off by half a step each, the largest by three half steps; twice the quaternion's."""


def squeezed(means: np.ndarray) -> np.ndarray:
    return np.sign(means) * np.log1p(np.abs(means.astype(np.float64)))


def matched(original: PlainSplats, decoded: PlainSplats) -> PlainSplats:
    """``decoded`` in the order of ``original``: positions are the most exact attribute."""
    apart = torch.cdist(torch.from_numpy(squeezed(original.means)), torch.from_numpy(squeezed(decoded.means)))
    rows = apart.argmin(dim=1).numpy()
    assert len(np.unique(rows)) == original.count == decoded.count
    return decoded.taken(rows)


def check_close(original: PlainSplats, decoded: PlainSplats) -> None:
    """Within half a step of every attribute; scales and colours within half the widest gap of their codebook."""
    span = np.ptp(squeezed(original.means), axis=0)
    off = np.abs(squeezed(decoded.means) - squeezed(original.means))
    assert (off <= 0.501 * span / 65_535 + 1e-6).all()
    dots = np.abs((original.quats.astype(np.float64) * decoded.quats).sum(axis=1))
    assert (2 * np.arccos(np.clip(dots, 0, 1)) <= TURN).all()
    assert np.abs(decoded.opacities - original.opacities).max() <= 0.5 / 255 + 1e-6
    for values, found in ((original.log_scales, decoded.log_scales), (original.sh0, decoded.sh0)):
        book = fit_codebook(values).astype(np.float64)
        assert np.abs(values - found).max() <= 0.5 * np.diff(book).max() + np.ptp(values) * 0.02 + 1e-6
        nearest = np.abs(values[..., None] - book).min(axis=-1)
        assert np.abs(np.abs(values - found) - nearest).max() < 1e-5


def round_trip(model: SplatModel, path, **header) -> PlainSplats:
    write_model(model, path, header=header)
    return plain_of(read_model(path).model)


@pytest.mark.parametrize("name", ["sog", "sog-folder"])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_every_attribute_comes_back_within_half_a_step(tmp_path, name, degree):
    model = random_model(333, sh_degree=degree)
    path = tmp_path / f"m{FORMATS[name].suffixes[0]}"
    original = plain_of(model)
    decoded = matched(original, round_trip(model, path))
    check_close(original, decoded)
    assert decoded.sh_degree == degree
    # 333 splats have a palette entry each: only the codebook of 256 values rounds their higher bands.
    if degree:
        book = fit_codebook(original.sh_rest)
        assert np.abs(original.sh_rest - decoded.sh_rest).max() <= np.diff(book).max()
        assert np.sqrt(((original.sh_rest - decoded.sh_rest) ** 2).mean()) < 0.004


@pytest.mark.parametrize("count", [1, 2, 3, 15, 17, 255, 257])
def test_any_number_of_splats(tmp_path, count):
    model = random_model(count, sh_degree=1)
    check_close(plain_of(model), matched(plain_of(model), round_trip(model, tmp_path / "m.sog")))


def test_no_splats_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(UserError, match="no splats"):
        write_model(random_model(0), tmp_path / "m.sog")
    assert not list(tmp_path.iterdir())


def test_a_constant_axis_saturated_opacities_and_any_length_of_quaternion(tmp_path):
    model = random_model(50, sh_degree=0)
    model.rows["means"][:, 1] = 3000.0
    model.rows["quats"] *= torch.logspace(-3, 3, 50)[:, None]
    model.rows["quats"][7] = 0
    model.rows["logit_opacities"][:2] = torch.tensor([-200.0, 200.0])
    original = plain_of(model)
    decoded = matched(original, round_trip(model, tmp_path / "m.sog"))
    check_close(original, decoded)
    assert np.allclose(decoded.means[:, 1], 3000, rtol=1e-6)
    assert decoded.opacities[0] < 1e-6 and decoded.opacities[1] > 1 - 1e-6


def test_rows_that_are_not_finite_are_left_out(tmp_path):
    model = random_model(20)
    model.rows["sh_rest"][3, 2, 1] = torch.nan
    assert round_trip(model, tmp_path / "m.sog").count == 19


def test_channels_and_coefficients_keep_their_places(tmp_path):
    model = random_model(30, sh_degree=2)
    model.rows["sh_rest"].zero_()
    model.rows["sh_rest"][:, 1, 0] = torch.linspace(-1, 1, 30)  # red, second coefficient of band 1
    decoded = matched(plain_of(model), round_trip(model, tmp_path / "m.sog"))
    assert np.abs(decoded.sh_rest[:, 1, 0] - np.linspace(-1, 1, 30)).max() < 1e-6
    decoded.sh_rest[:, 1, 0] = 0
    assert not decoded.sh_rest.any()


def test_the_archive_is_what_readers_expect(tmp_path):
    model = random_model(70, sh_degree=1, filter2d="mip")
    header = {"up_axis": [0, -1, 0], "provenance": {"scene": "x"}}
    write_model(model, tmp_path / "a.sog", header=header)
    with zipfile.ZipFile(tmp_path / "a.sog") as archive:
        entries = archive.infolist()
        meta = json.loads(archive.read("meta.json"))
        pixels = webp_pixels(tmp_path, "sh0.webp", archive.read("sh0.webp"))
    assert all(entry.compress_type == zipfile.ZIP_STORED and entry.date_time[0] == 1980 for entry in entries)
    assert meta["version"] == 2 and meta["count"] == 70 and meta["model"] == "antialiased"
    assert meta["asset"]["generator"].startswith("splat ") and pixels.shape == (8, 12, 4)
    loaded = read_model(tmp_path / "a.sog")
    assert loaded.model.filter2d == "mip" and loaded.header["up_axis"] == [0, -1, 0]
    assert loaded.header["provenance"] == {"scene": "x"} and loaded.header["format"] == "sog"
    write_model(model, tmp_path / "b.sog", header=header)
    assert (tmp_path / "a.sog").read_bytes() == (tmp_path / "b.sog").read_bytes()


@pytest.mark.parametrize("count", [300, 3000])
def test_writing_what_was_read_changes_nothing(tmp_path, count):
    write_model(random_model(count, sh_degree=1), tmp_path / "a.sog")
    write_model(read_model(tmp_path / "a.sog").model, tmp_path / "b.sog")
    write_model(read_model(tmp_path / "b.sog").model, tmp_path / "c.sog")
    assert (tmp_path / "b.sog").read_bytes() == (tmp_path / "c.sog").read_bytes()


def test_rotations_round_to_the_nearest_and_stay():
    rng = np.random.default_rng(0)
    quats = rng.normal(size=(50_000, 4))
    quats[:2000] = 0.5 + rng.normal(size=(2000, 4)) * 0.004  # all four about as large
    quats = (quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32)
    packed = bytes_of_turns(quats)
    decoded, invalid = turns_of_bytes(packed)
    assert invalid == 0 and np.array_equal(bytes_of_turns(decoded), packed)
    angles = np.degrees(2 * np.arccos(np.clip(np.abs((quats * decoded).sum(axis=1)), 0, 1)))
    assert angles.mean() < 0.36  # cut instead of rounded: 0.68


def test_a_killed_writer_leaves_no_folder_that_can_be_read(tmp_path, monkeypatch):
    from splat.io import sog_write

    path = tmp_path / "meta.json"
    write_model(random_model(20, sh_degree=0), path)
    calls = []

    def killed(target, data):
        if calls:
            raise KeyboardInterrupt
        calls.append(target.write_bytes(data))

    monkeypatch.setattr(sog_write, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        write_model(random_model(30, sh_degree=0, seed=1), path)
    with pytest.raises(UserError):
        read_model(tmp_path)


def test_palettes_are_as_large_as_the_reference_writers():
    assert [palette_size(n) for n in (1, 1023, 1024, 20_000, 31_000, 250_000)] == [
        1,
        1023,
        1024,
        16_384,
        16_384,
        65_536,
    ]


@pytest.mark.parametrize(("name", "count", "degree"), [("playbot_lod_3_0", 31_000, 2), ("playcanvas-logo", 307_128, 0)])
def test_reads_published_folders(name, count, degree):
    folder = shared_file(f"splats/playcanvas/{name}/meta.json").parent
    assert sniff(folder / "meta.json").name == "sog-folder"
    loaded = read_model(folder)
    assert (loaded.model.count, loaded.model.sh_degree, loaded.header["warnings"]) == (count, degree, [])
    assert (loaded.model.rows["means"].abs() < 3).all() and (loaded.model.rows["log_scales"] < 0).all()


def test_reads_a_folder_as_another_reader_does():
    """The PLY was made from the folder by splat-transform."""
    ours = read_model(shared_file("splats/playcanvas/playbot_lod_3_0/meta.json").parent).model
    theirs = read_model(shared_file("splats/converted/playbot31k_sh2.ply")).model
    for field, table in theirs.rows.items():
        assert torch.allclose(ours.rows[field], table, atol=1e-5), field


def test_a_real_model_is_smaller_than_the_reference_writers(tmp_path):
    theirs = shared_file("splats/converted/playbot31k.sog")
    model = read_model(shared_file("splats/converted/playbot31k_sh2.ply")).model
    written = write_model(model, tmp_path / "m.sog")
    assert written.size_bytes < theirs.stat().st_size
    original = np.sort(plain_of(model).means, axis=0)
    errors = [
        np.abs(np.sort(plain_of(read_model(file).model).means, axis=0) - original).mean()
        for file in (tmp_path / "m.sog", theirs)
    ]
    assert errors[0] <= errors[1]


@pytest.mark.slow  # its functions are compiled at the first call
def test_gsply_reads_ours(tmp_path, monkeypatch):
    """Its own decoding; only the pixels come from Pillow where imagecodecs is absent."""
    pytest.importorskip("gsply")
    from gsply import sog_reader

    class Pixels:
        @staticmethod
        def webp_decode(data: bytes) -> np.ndarray:
            return webp_pixels(tmp_path, "picture", data).copy()

    monkeypatch.setattr(sog_reader, "imagecodecs", Pixels)
    model = random_model(300, sh_degree=3)
    ours = round_trip(model, tmp_path / "m.sog")
    theirs = sog_reader.sogread(tmp_path / "m.sog")
    assert np.allclose(theirs.means, ours.means, atol=1e-5) and np.allclose(theirs.quats, ours.quats, atol=1e-5)
    assert np.array_equal(theirs.scales, ours.log_scales) and np.array_equal(theirs.sh0, ours.sh0)
    assert np.array_equal(np.asarray(theirs.shN).reshape(ours.sh_rest.shape), ours.sh_rest)
    assert np.allclose(1 / (1 + np.exp(-theirs.opacities)), ours.opacities, atol=2e-6)


def test_other_primitives_are_written_as_gaussians(tmp_path):
    assert read_model(_written(tmp_path, "ges")).model.primitive.kind == GaussianPrimitive.kind


def _written(tmp_path, kind: str):
    from gaussians import model_of

    write_model(model_of(kind), tmp_path / "m.sog")
    return tmp_path / "m.sog"
