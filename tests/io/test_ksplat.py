"""``.ksplat`` files: of its own writer, and built here to the letter of the layout."""

from __future__ import annotations

import numpy as np
import pytest
from gaussians import random_model, shared_file
from ksplat_files import ksplat_bytes

from splat.errors import UserError
from splat.io.formats import read_model
from splat.io.ksplat import read_ksplat
from splat.io.plain import PlainSplats, plain_of


def parts(*counts: int, sh_degree: int = 2) -> list[PlainSplats]:
    return [plain_of(random_model(n, sh_degree=sh_degree, seed=i)) for i, n in enumerate(counts)]


def joined(pieces: list[PlainSplats], name: str) -> np.ndarray:
    return np.concatenate([getattr(piece, name) for piece in pieces])


def differences(plain: PlainSplats, other: PlainSplats) -> dict[str, float]:
    """Largest difference by attribute; rotations up to sign."""
    sign = np.sign((plain.quats * other.quats).sum(axis=1, keepdims=True))
    pairs = {name: getattr(plain, name) - getattr(other, name) for name in ("means", "log_scales", "opacities", "sh0")}
    degree = min(plain.sh_degree, other.sh_degree)
    kept = (degree + 1) ** 2 - 1
    pairs |= {"quats": plain.quats - sign * other.quats, "sh_rest": plain.sh_rest[:, :kept] - other.sh_rest[:, :kept]}
    return {name: float(np.abs(values).max(initial=0)) for name, values in pairs.items()}


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("sh_degree", [0, 1, 2])
def test_sections_of_every_level_and_degree(tmp_path, level, sh_degree):
    pieces = parts(9, 1, 8, sh_degree=sh_degree)
    (tmp_path / "m.ksplat").write_bytes(ksplat_bytes(pieces, level, spare=3))
    model, header = read_ksplat(tmp_path / "m.ksplat")
    assert (model.count, model.sh_degree, header["warnings"]) == (18, sh_degree, [])
    names = ("means", "quats", "log_scales", "opacities", "sh0", "sh_rest")
    expected = PlainSplats(*(joined(pieces, name) for name in names), sh_degree=sh_degree)
    found = differences(plain_of(model), expected)
    half = 2.5 / 32_767 / 2 + 1e-6
    assert found["means"] <= (half if level else 0)
    assert found["log_scales"] < (2**-10 if level else 1e-6) and found["quats"] < (2**-10 if level else 1e-6)
    assert found["opacities"] <= 0.5 / 255 + 1e-6 and found["sh0"] > 0.5 / 255  # colours leave 0..1 and are cut
    assert found["sh_rest"] <= {0: 0, 1: 1e-3, 2: 1.5 / 255 + 1e-6}[level]


def test_sections_of_different_degrees_share_the_highest(tmp_path):
    pieces = [*parts(5, sh_degree=2), *parts(6, sh_degree=0)]
    (tmp_path / "m.ksplat").write_bytes(ksplat_bytes(pieces, 0))
    rest = read_ksplat(tmp_path / "m.ksplat")[0].rows["sh_rest"].numpy()
    assert np.array_equal(rest[:5], pieces[0].sh_rest) and not rest[5:].any()


def test_the_range_of_sh_bytes_is_the_files(tmp_path):
    pieces = parts(7)
    (tmp_path / "m.ksplat").write_bytes(ksplat_bytes(pieces, 2, sh_limit=0.75))
    rest = read_ksplat(tmp_path / "m.ksplat")[0].rows["sh_rest"].numpy()
    expected = np.clip(pieces[0].sh_rest, -0.75, 0.75)
    assert np.abs(rest - expected).max() <= 0.75 / 255 + 1e-6


@pytest.mark.parametrize("name", ["m.ksplat", "m.bin", "m.splat", "m.spz"])
def test_it_is_known_by_its_header_under_any_name(tmp_path, name):
    (tmp_path / name).write_bytes(ksplat_bytes(parts(5), 1))
    assert read_model(tmp_path / name).header["format"] == "ksplat"


def edited(data: bytes, at: int, value: int, width: int = 4) -> bytes:
    return data[:at] + value.to_bytes(width, "little") + data[at + width :]


@pytest.mark.parametrize(
    ("at", "value", "width", "words"),
    [
        (1, 0, 1, "version 0.0; 0.1 is read"),
        (4, 2**32 - 1, 4, "cut short: headers of 4,294,967,295 sections"),
        (20, 3, 2, "compression level 3"),
        (4096, 2**31, 4, "section 0 holds 2,147,483,648 splats in room for 9"),
        (4100, 2**32 - 1, 4, "cut short: section 0 with 4,294,967,295 splats"),
        (4104, 2**32 - 1, 4, "buckets for"),
        (4108, 2**32 - 1, 4, "cut short: section 0"),
        (4116, 16, 2, "16 bytes per bucket"),
        (4128, 2**32 - 1, 4, "buckets for"),
        (4132, 2**32 - 1, 4, "cut short"),
        (4128, 0, 4, "buckets for 1 of"),
        (4136, 3, 2, "SH degree 3"),
        (4136, 65535, 2, "SH degree 65535"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, at, value, width, words):
    (tmp_path / "m.ksplat").write_bytes(edited(ksplat_bytes(parts(9), 1), at, value, width))
    with pytest.raises(UserError, match=words):
        read_ksplat(tmp_path / "m.ksplat")


def test_cut_files_and_other_files_are_refused(tmp_path):
    whole = ksplat_bytes(parts(9), 1)
    for length in (0, 1, 100, 4095, 4096, 5119, 5200, len(whole) - 1):
        (tmp_path / "m.ksplat").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut short|is empty"):
            read_model(tmp_path / "m.ksplat")
    (tmp_path / "m.ksplat").write_bytes(b"hello world")
    with pytest.raises(UserError, match="not a splat model"):
        read_model(tmp_path / "m.ksplat")


def test_a_count_that_disagrees_is_told(tmp_path):
    (tmp_path / "m.ksplat").write_bytes(edited(ksplat_bytes(parts(9), 0), 16, 500))
    model, header = read_ksplat(tmp_path / "m.ksplat")
    assert model.count == 9 and "500 splats, its sections 9" in header["warnings"][0]


def test_the_fixture_of_splat_transform():
    model, header = read_ksplat(shared_file("splats/fixtures/minimal.ksplat"))
    assert header["warnings"] == [] and model.sh_degree == 0
    assert model.rows["means"].tolist() == [[-1, 0, -1], [0, 0, -1], [-1, 0, 0], [0, 0, 0]]
    assert np.allclose(model.scales, 0.1) and np.allclose(model.opacities, 230 / 255)


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("c0_sh2", {"means": 0, "quats": 1e-6, "log_scales": 1e-4, "sh_rest": 0}),
        ("c1_sh2", {"means": 1.3 * 2.5 / 32_767 / 2, "quats": 1e-3, "log_scales": 0.4, "sh_rest": 2e-3}),
        ("c2_sh1", {"means": 1.3 * 2.5 / 32_767 / 2, "quats": 1e-3, "log_scales": 0.4, "sh_rest": 6 / 255}),
    ],
)
def test_files_of_the_original_writer_against_the_ply_they_were_made_from(name, bounds):
    """Its scales are halves, whose smallest numbers are coarse; its bytes of SH are cut, not rounded."""
    reference = plain_of(read_model(shared_file("splats/converted/playbot31k_sh2.ply")).model)
    plain = plain_of(read_model(shared_file(f"splats/converted/playbot31k_{name}.ksplat")).model)
    assert plain.count == reference.count == 31_000
    plain = plain.taken(slice(None, None, 100))
    found = differences(plain, reference.taken(nearest(plain.means, reference.means)))
    for attribute, bound in bounds.items():
        assert found[attribute] <= bound, attribute
    assert found["opacities"] <= 1.01 / 255


def nearest(means: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For every row of ``means`` the row of ``others`` nearest to it."""
    return np.array([((others - mean) ** 2).sum(axis=1).argmin() for mean in means])
