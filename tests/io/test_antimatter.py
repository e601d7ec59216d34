"""Antimatter's .splat: 32 bytes per splat, the most important first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gaussians import random_model, shared_file
from hypothesis import given, settings
from hypothesis import strategies as st

from splat.errors import UserError
from splat.io.antimatter import looks_like_splat, read_splat, write_splat
from splat.io.formats import read_model, write_model
from splat.io.plain import plain_of

C0 = 0.28209479177387814


def by_importance(plain):
    """In the order the format asks for: volume times opacity, descending."""
    weight = np.exp(plain.log_scales.astype(np.float64).sum(1)) * np.rint(plain.opacities * 255.0)
    return plain.taken(np.argsort(-weight, kind="stable"))


def unit(quats):
    return quats / np.linalg.norm(quats, axis=1, keepdims=True)


def signed(quats, like):
    """The same rotations with the signs of ``like``."""
    return quats * np.where((quats * like).sum(1, keepdims=True) < 0, -1, 1)


def test_every_attribute_stays_within_half_a_step(tmp_path):
    model = random_model(500, sh_degree=3, seed=4)
    model.rows["sh0"].clamp_(-1.7, 1.7)  # base colours within 0..1
    write_splat(model, tmp_path / "m.splat")
    assert (tmp_path / "m.splat").stat().st_size == 500 * 32
    loaded = read_model(tmp_path / "m.splat")
    plain, found = by_importance(plain_of(model)), plain_of(loaded.model)
    assert (loaded.header["format"], loaded.model.sh_degree, loaded.header["warnings"]) == ("splat", 0, [])
    np.testing.assert_array_equal(found.means, plain.means)
    np.testing.assert_allclose(found.log_scales, plain.log_scales, atol=1e-6)
    error = np.abs(found.opacities - plain.opacities).max()
    assert 0.4 / 255 < error <= 0.501 / 255
    error = np.abs(found.sh0 - plain.sh0).max()
    assert 0.4 / 255 / C0 < error <= 0.501 / 255 / C0
    stored = loaded.model.rows["quats"].numpy()  # as the bytes say, not of unit length
    error = np.abs(signed(stored, plain.quats) - plain.quats).max()
    assert 0.4 / 128 < error <= 0.501 / 128


def test_the_bytes_of_one_splat(tmp_path):
    model = random_model(1, sh_degree=1)
    rows = {"means": [[1.0, 2, 3]], "log_scales": [[0.0, 1, 2]], "quats": [[2.0, 0, 0, 0]],
            "logit_opacities": [0.0], "sh0": [[0.5 / C0, 0, -9]]}  # fmt: skip
    model.rows |= {name: torch.tensor(values) for name, values in rows.items()}
    write_splat(model, tmp_path / "m.splat")
    data = (tmp_path / "m.splat").read_bytes()
    np.testing.assert_allclose(np.frombuffer(data[:24], "<f4"), [1, 2, 3, 1, np.e, np.e**2], rtol=1e-6)
    assert list(data[24:]) == [255, 128, 0, 128, 0, 128, 128, 128]  # -1 0 0 0: +1 has no byte


def test_rotations_of_any_length_and_sign_and_opacities_of_0_and_1(tmp_path):
    rng = np.random.default_rng(5)
    axes = np.concatenate([np.eye(4), -np.eye(4), np.ones((1, 4))])
    quats = np.concatenate([axes, rng.normal(size=(500, 4)) * 10 ** rng.uniform(-5, 5, (500, 1))]).astype(np.float32)
    model = random_model(len(quats), sh_degree=0)
    model.rows["quats"] = torch.from_numpy(quats)
    model.rows["logit_opacities"][:2] = torch.tensor([60.0, -60.0])
    write_splat(model, tmp_path / "m.splat")
    plain, found = by_importance(plain_of(model)), plain_of(read_splat(tmp_path / "m.splat")[0])
    assert np.degrees(2 * np.arccos(np.clip(np.abs((found.quats * plain.quats).sum(1)), 0, 1))).max() < 0.9
    assert found.opacities.max() == pytest.approx(1, abs=1e-6) and found.opacities.min() == pytest.approx(0, abs=1e-6)
    exact = np.abs(plain.quats).max(1) == 1
    assert exact.sum() == 8 and np.array_equal(np.abs(found.quats[exact]), np.abs(plain.quats[exact]))


def test_writing_is_repeatable_and_writing_again_changes_nothing(tmp_path):
    model = random_model(500)
    for name in ("a", "b"):
        write_model(model, tmp_path / f"{name}.splat")
    write_model(read_model(tmp_path / "a.splat").model, tmp_path / "c.splat")
    first, second, third = ((tmp_path / f"{name}.splat").read_bytes() for name in "abc")
    assert first == second
    rows = [np.frombuffer(data, np.uint8).reshape(-1, 32) for data in (first, third)]
    np.testing.assert_array_equal(rows[0][:, :12], rows[1][:, :12])
    np.testing.assert_array_equal(rows[0][:, 24:], rows[1][:, 24:])
    sizes = [np.ascontiguousarray(table[:, 12:24]).view("<f4") for table in rows]  # through a logarithm
    np.testing.assert_allclose(sizes[0], sizes[1], rtol=1e-6)


def test_one_splat_none_and_sizes_that_are_no_rows(tmp_path):
    write_model(random_model(1), tmp_path / "m.splat")
    assert read_model(tmp_path / "m.splat").model.count == 1
    with pytest.raises(UserError, match="no splats to write"):
        write_model(random_model(0), tmp_path / "none.splat")
    (tmp_path / "bad.splat").write_bytes(b"\0" * 70)
    with pytest.raises(UserError, match="70 bytes are 6 more than whole rows of 32"):
        read_model(tmp_path / "bad.splat")
    (tmp_path / "empty.splat").write_bytes(b"")
    with pytest.raises(UserError, match="the file is empty"):
        read_model(tmp_path / "empty.splat")
    assert looks_like_splat(b"x", tmp_path / "a.SPLAT") and not looks_like_splat(b"x", tmp_path / "a.bin")


def test_rows_that_cannot_be_drawn_are_mended_or_left_out(tmp_path):
    write_model(random_model(5), tmp_path / "m.splat")
    rows = np.frombuffer((tmp_path / "m.splat").read_bytes(), np.uint8).reshape(5, 32).copy()
    rows[0, :4] = np.frombuffer(np.float32(np.nan).tobytes(), np.uint8)
    rows[1, 12:16] = 0  # no size along x
    rows[2, 12:16] = np.frombuffer(np.float32(-1).tobytes(), np.uint8)
    rows[3, 28:] = 128  # no rotation
    (tmp_path / "m.splat").write_bytes(rows.tobytes())
    model, header = read_splat(tmp_path / "m.splat")
    assert model.count == 3 and all(table.isfinite().all() for table in model.rows.values())
    assert "2 splats with" in header["warnings"][0] and "2 of 5 splats" in header["warnings"][1]


@settings(max_examples=100, deadline=None)
@given(data=st.binary(min_size=32, max_size=320))
def test_any_bytes_are_a_model_or_one_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.splat"
    path.write_bytes(data)
    try:
        model, _ = read_splat(path)
    except UserError as error:
        assert "\n" not in str(error) and len(data) % 32
    else:
        assert model.count <= len(data) // 32 and all(table.isfinite().all() for table in model.rows.values())


def test_the_original_converters_file_is_its_ply():
    """antimatter's own converter, which truncates where we round: a whole step, in the same order."""
    found = plain_of(read_model(shared_file("splats/converted/playbot31k.splat")).model)
    plain = by_importance(plain_of(read_model(shared_file("splats/converted/playbot31k_sh2.ply")).model))
    assert found.count == 31_000
    # Opacities that differ in the last bit swap neighbours: rows are matched by position.
    order, other = (np.lexsort(values.T) for values in (found.means, plain.means))
    assert (order == other).mean() > 0.9
    found, plain = found.taken(order), plain.taken(other)
    np.testing.assert_array_equal(found.means, plain.means)
    np.testing.assert_allclose(found.log_scales, plain.log_scales, atol=1e-5)
    assert np.abs(found.opacities - plain.opacities).max() <= 1.001 / 255
    assert np.abs(found.sh0 - plain.sh0.clip(-0.5 / C0, 0.5 / C0)).max() <= 1.001 / 255 / C0
    stored = read_splat(shared_file("splats/converted/playbot31k.splat"))[0].rows["quats"].numpy()[order]
    assert np.abs(signed(stored, plain.quats) - plain.quats).max() <= 1.001 / 128


@pytest.mark.parametrize(("name", "count"), [("OneSplat", 1), ("antimatter15_test", 2), ("minimal", 4)])
def test_the_tiny_fixtures(name, count):
    model, header = read_splat(shared_file(f"splats/fixtures/{name}.splat"))
    assert model.count == count and header["warnings"] == []
    if name == "OneSplat":
        assert model.rows["means"][0].tolist() == pytest.approx([-21.430897, -18.36314, -22.633759])
        assert model.scales[0].tolist() == pytest.approx([1.7718418, 0.9076175, 4.880865], rel=1e-6)
        assert model.opacities[0].item() == pytest.approx(1, abs=1e-6)
