"""Binary glTF: exact both ways, in glTF's axes, and as others write it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gaussians import random_model, shared_file
from gltf_files import KHR, SPZ, attributes, floats, put_together, taken_apart, written

from splat.errors import UserError
from splat.geometry.rotations import matrix_from_quat
from splat.geometry.sh import sh_basis
from splat.io.formats import read_model, write_model
from splat.io.gltf import read_gltf
from splat.io.gltf_scene import linear_from_srgb, srgb_from_linear
from splat.io.plain import plain_of
from splat.io.spz import plain_from_spz, spz_bytes
from splat.model.filter2d import FILTERS_2D
from splat.model.transform import transformed


@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
@pytest.mark.parametrize("filter2d", list(FILTERS_2D))
def test_round_trip_is_exact(tmp_path, sh_degree, filter2d):
    model = random_model(sh_degree=sh_degree, filter2d=filter2d)
    header = {"up_axis": [0, -1, 0.5], "provenance": {"scene": "garden", "step": 7}}
    write_model(model, tmp_path / "m.glb", header=header)
    back = read_model(tmp_path / "m.glb")
    assert (back.model.sh_degree, back.model.filter2d, back.header["warnings"]) == (sh_degree, filter2d, [])
    assert back.header["up_axis"] == [0, -1, 0.5]
    assert {"scene": "garden", "step": "7"}.items() <= back.header["provenance"].items()
    ours, theirs = plain_of(model), plain_of(back.model)
    for name in ("means", "sh0", "sh_rest"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    for name in ("quats", "log_scales", "opacities"):
        np.testing.assert_allclose(getattr(theirs, name), getattr(ours, name), atol=1e-6)


def test_the_bytes_are_the_extensions_layout(tmp_path):
    model = random_model(3, sh_degree=2)
    write_model(model, tmp_path / "m.glb")
    root, binary = taken_apart(tmp_path / "m.glb")
    assert root["extensionsUsed"] == [KHR] and "extensionsRequired" not in root
    primitive = root["meshes"][0]["primitives"][0]
    assert primitive["mode"] == 0 and primitive["extensions"][KHR] == {
        "kernel": "ellipse", "colorSpace": "srgb_rec709_display", "projection": "perspective",
        "sortingMethod": "cameraDistance",
    }  # fmt: skip
    bands = [f"{KHR}:SH_DEGREE_{band}_COEF_{n}" for band in range(3) for n in range(2 * band + 1)]
    shape = [f"{KHR}:ROTATION", f"{KHR}:SCALE", f"{KHR}:OPACITY"]
    assert list(attributes(root)) == ["POSITION", "COLOR_0", *shape, *bands]
    types = {name: root["accessors"][index]["type"] for name, index in attributes(root).items()}
    assert types[f"{KHR}:ROTATION"] == types["COLOR_0"] == "VEC4" and types[f"{KHR}:OPACITY"] == "SCALAR"
    assert all(view["byteOffset"] % 4 == 0 for view in root["bufferViews"])
    plain, positions = plain_of(model), floats(root, binary, "POSITION")
    assert np.array_equal(positions, plain.means * (-1, -1, 1))  # turned by 180 degrees about z
    described = root["accessors"][attributes(root)["POSITION"]]
    assert np.array_equal(np.float32(described["min"]), positions.min(0)) and described["count"] == 3
    np.testing.assert_allclose(floats(root, binary, f"{KHR}:SCALE"), np.exp(plain.log_scales), rtol=1e-6)
    np.testing.assert_array_equal(floats(root, binary, f"{KHR}:OPACITY")[:, 0], plain.opacities)
    np.testing.assert_array_equal(floats(root, binary, f"{KHR}:SH_DEGREE_0_COEF_0"), plain.sh0)


def test_the_turn_moves_ellipsoids_and_colours_alike(tmp_path):
    """In the file, a splat's covariance and what it shows in a direction are those of the model, turned."""
    model = random_model(5, sh_degree=3)
    write_model(model, tmp_path / "m.glb")
    root, binary = taken_apart(tmp_path / "m.glb")
    turn = np.diag((-1.0, -1.0, 1.0))
    plain = plain_of(model)
    rotation = matrix_from_quat(torch.from_numpy(plain.quats)).numpy() * np.exp(plain.log_scales)[:, None, :]
    xyzw = torch.from_numpy(floats(root, binary, f"{KHR}:ROTATION").copy())
    stored = matrix_from_quat(xyzw[:, [3, 0, 1, 2]]).numpy() * floats(root, binary, f"{KHR}:SCALE")[:, None, :]
    np.testing.assert_allclose(
        stored @ stored.transpose(0, 2, 1), turn @ rotation @ rotation.transpose(0, 2, 1) @ turn, atol=1e-6
    )
    names = [f"{KHR}:SH_DEGREE_{band}_COEF_{n}" for band in range(1, 4) for n in range(2 * band + 1)]
    coefficients = np.stack([floats(root, binary, name) for name in names], axis=1)
    directions = torch.nn.functional.normalize(torch.randn(20, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    here, there = (sh_basis(d, 3)[:, 1:].numpy() for d in (directions, directions * torch.tensor([-1.0, -1.0, 1.0])))
    np.testing.assert_allclose(
        np.einsum("dk,nkc->ndc", there, coefficients), np.einsum("dk,nkc->ndc", here, plain.sh_rest), atol=1e-5
    )


def test_red_alone_stays_red(tmp_path):
    model = random_model(1, sh_degree=1)
    model.rows["sh_rest"] = torch.tensor([[[0.25, 0, 0], [0.5, 0, 0], [-0.75, 0, 0]]])
    write_model(model, tmp_path / "m.glb")
    root, binary = taken_apart(tmp_path / "m.glb")
    red = [floats(root, binary, f"{KHR}:SH_DEGREE_1_COEF_{n}")[0].tolist() for n in range(3)]
    assert red == [[-0.25, 0, 0], [0.5, 0, 0], [0.75, 0, 0]]  # y, z, x


def test_rotations_opacities_and_places_of_every_kind(tmp_path):
    model = random_model(4, sh_degree=0)
    model.rows["quats"] = torch.tensor([[-3.0, 1, 2, 0], [0, 0, 0, 5], [1e-3, 0, 0, 0], [-1, -1, -1, 1]])
    model.rows["logit_opacities"] = torch.tensor([-60.0, 60, 0, 3])
    model.rows["means"] = torch.tensor([[3000.0, -3000, 3000], [1e-3, 2e-3, 1e-3], [0, 0, 0], [1e9, 0, 0]])
    write_model(model, tmp_path / "m.glb")
    root, binary = taken_apart(tmp_path / "m.glb")
    np.testing.assert_allclose(np.linalg.norm(floats(root, binary, f"{KHR}:ROTATION"), axis=1), 1, atol=1e-6)
    assert floats(root, binary, f"{KHR}:OPACITY")[:2, 0].tolist() == [pytest.approx(0, abs=1e-20), 1]
    back = read_gltf(tmp_path / "m.glb")[0]
    assert torch.equal(back.rows["means"], model.rows["means"]) and back.rows["logit_opacities"].isfinite().all()
    torch.testing.assert_close(back.rows["quats"], torch.nn.functional.normalize(model.rows["quats"], dim=1))


def test_points_show_linear_colours_to_viewers_that_know_no_splats(tmp_path):
    model = random_model(300, sh_degree=0)
    write_model(model, tmp_path / "m.glb")
    root, binary = taken_apart(tmp_path / "m.glb")
    view = root["bufferViews"][attributes(root)["COLOR_0"]]
    stored = np.frombuffer(binary, "<u2", 1200, view["byteOffset"]).reshape(-1, 4) / 65_535
    plain = plain_of(model)
    shown = (plain.sh0 * 0.28209479 + 0.5).clip(0, 1)
    np.testing.assert_allclose(srgb_from_linear(stored[:, :3]), shown, atol=2e-4)
    np.testing.assert_allclose(stored[:, 3], plain.opacities, atol=1e-5)
    assert linear_from_srgb(np.array([0, 0.04, 0.5, 1])) == pytest.approx([0, 0.04 / 12.92, 0.214041, 1], abs=1e-6)
    for name in (f"{KHR}:SH_DEGREE_0_COEF_0",):  # a file with nothing but these colours
        del attributes(root)[name]
    back = read_gltf(put_together(tmp_path / "c.glb", root, binary))[0]
    np.testing.assert_allclose(back.rows["sh0"] * 0.28209479 + 0.5, shown, atol=2e-4)


def test_the_same_model_gives_the_same_bytes_and_none_gives_an_error(tmp_path):
    for format in ("glb", "glb-spz"):
        for name in ("a", "b"):
            write_model(random_model(300), tmp_path / f"{name}.glb", format=format)
        assert (tmp_path / "a.glb").read_bytes() == (tmp_path / "b.glb").read_bytes()
        write_model(random_model(1, sh_degree=0), tmp_path / "one.glb", format=format)
        assert read_model(tmp_path / "one.glb").model.count == 1
        with pytest.raises(UserError, match="no splats to write"):
            write_model(random_model(0), tmp_path / "none.glb", format=format)


def test_writing_what_was_read_gives_the_same_file(tmp_path):
    write_model(random_model(300, filter2d="aa"), tmp_path / "a.glb", format="glb-spz")
    first = read_model(tmp_path / "a.glb")
    write_model(first.model, tmp_path / "b.glb", format="glb-spz", header=first.header)
    first_bytes, second_bytes = (taken_apart(tmp_path / name)[1] for name in ("a.glb", "b.glb"))
    assert first_bytes == second_bytes


# --- SPZ inside ------------------------------------------------------------------------------------------------


def test_spz_inside_is_an_ordinary_spz_file(tmp_path):
    model = random_model(100, sh_degree=3, filter2d="aa")
    write_model(model, tmp_path / "m.glb", format="glb-spz", header={"up_axis": [0, -1, 0]})
    root, binary = taken_apart(tmp_path / "m.glb")
    assert root["extensionsRequired"] == root["extensionsUsed"] == [KHR, SPZ]
    extension = root["meshes"][0]["primitives"][0]["extensions"][KHR]
    view = root["bufferViews"][extension["extensions"][SPZ]["bufferView"]]
    assert extension["kernel"] == "ellipse" and view["buffer"] == 0
    payload = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    assert payload == spz_bytes(plain_of(model), Path("x"), version=3)
    assert not any("bufferView" in accessor for accessor in root["accessors"])
    assert {accessor["count"] for accessor in root["accessors"]} == {100}
    coefficients = [name for name in attributes(root) if "SH_DEGREE" in name]
    assert len(coefficients) == 15 and not any("SH_DEGREE_0" in name for name in coefficients)
    back = read_model(tmp_path / "m.glb")
    assert back.model.filter2d == "aa" and back.header["up_axis"] == [0, -1, 0]
    expected, _ = plain_from_spz(Path("x"), payload)
    found = plain_of(back.model)
    np.testing.assert_array_equal(found.means, expected.means)
    np.testing.assert_array_equal(found.sh_rest, expected.sh_rest)
    np.testing.assert_allclose(found.quats, expected.quats, atol=1e-6)


# --- other writers' files --------------------------------------------------------------------------------------


def test_nodes_place_their_splats(tmp_path):
    """A child of a moved parent; in a capture's axes, moved by the same similarity turned."""
    root, binary = written(tmp_path, count=20, sh_degree=2)
    half = 0.5**0.5
    root["nodes"] = [
        {"children": [1], "translation": [1, 2, 3], "rotation": [0, half, 0, half], "scale": [2, 2, 2]},
        {"mesh": 0, "matrix": [0, 1, 0, 0, -1, 0, 0, 0, 0, 0, 1, 0, 4, 5, 6, 1]},  # by columns: 90 degrees about z
    ]
    model, _ = read_gltf(put_together(tmp_path / "n.glb", root, binary))
    parent = np.array([[0, 0, 2, 1], [0, 2, 0, 2], [-2, 0, 0, 3], [0, 0, 0, 1.0]])
    child = np.array([[0, -1, 0, 4], [1, 0, 0, 5], [0, 0, 1, 6], [0, 0, 0, 1.0]])
    turn = np.diag((-1.0, -1.0, 1.0, 1.0))
    plain = read_gltf(tmp_path / "m.glb")[0]
    expected = transformed(plain, torch.from_numpy(turn @ parent @ child @ turn))
    for name, table in expected.rows.items():
        torch.testing.assert_close(model.rows[name], table, atol=1e-6, rtol=1e-6)
    root["nodes"][0]["scale"] = [1, 2, 1]
    with pytest.raises(UserError, match=r"node's transform cannot be applied.*scale all axes alike"):
        read_gltf(put_together(tmp_path / "n.glb", root, binary))


def test_all_splats_of_the_scene_are_joined_and_other_meshes_left_out(tmp_path):
    root, binary = written(tmp_path, count=6, sh_degree=1)
    low = {name: index for name, index in attributes(root).items() if "DEGREE_1" not in name}
    extensions = root["meshes"][0]["primitives"][0]["extensions"]
    root["meshes"].append({"primitives": [{"attributes": low, "mode": 0, "extensions": extensions},
                                          {"attributes": {"POSITION": 0}, "mode": 0}]})  # fmt: skip
    root["nodes"] = [{"mesh": 0}, {"mesh": 1, "translation": [10, 0, 0]}]
    root["scenes"] = [{"nodes": [0, 1]}]
    model, header = read_gltf(put_together(tmp_path / "two.glb", root, binary))
    assert model.count == 12 and model.sh_degree == 1
    assert header["warnings"] == [f"{tmp_path / 'two.glb'}: 1 meshes that are no splats were left out"]
    assert (model.rows["sh_rest"][6:] == 0).all() and (model.rows["sh_rest"][:6] != 0).all()
    torch.testing.assert_close(model.rows["means"][6:], model.rows["means"][:6] - torch.tensor([10.0, 0, 0]))
    del root["scenes"], root["scene"]
    assert read_gltf(put_together(tmp_path / "two.glb", root, binary))[0].count == 12


def test_normalised_integers_and_strides_are_read(tmp_path):
    model = random_model(8, sh_degree=0)
    write_model(model, tmp_path / "m.glb")
    root, binary = taken_apart(tmp_path / "m.glb")
    plain = plain_of(read_gltf(tmp_path / "m.glb")[0])
    rotation = floats(root, binary, f"{KHR}:ROTATION")
    table = np.zeros(
        8, [("rotation", "<i2", 4), ("opacity", "u1"), ("gap", "u1", 3), ("size", "<u2", 3), ("end", "u2")]
    )
    table["rotation"], table["opacity"] = np.rint(rotation * 32_767), np.rint(plain.opacities * 255)
    table["size"] = np.rint(np.exp(plain.log_scales) * 65_535)
    start = len(binary)
    for name, component, kind, offset in ((f"{KHR}:ROTATION", 5122, "VEC4", 0), (f"{KHR}:OPACITY", 5121, "SCALAR", 8),
                                          (f"{KHR}:SCALE", 5123, "VEC3", 12)):  # fmt: skip
        attributes(root)[name] = len(root["accessors"])
        root["accessors"].append({"bufferView": len(root["bufferViews"]), "byteOffset": offset, "count": 8,
                                  "componentType": component, "type": kind, "normalized": True})  # fmt: skip
    view = {"buffer": 0, "byteOffset": start, "byteLength": table.nbytes, "byteStride": 20}
    root["bufferViews"].append(view)
    found = plain_of(read_gltf(put_together(tmp_path / "i.glb", root, binary + table.tobytes()))[0])
    np.testing.assert_allclose(np.abs((found.quats * plain.quats).sum(1)), 1, atol=1e-7)
    np.testing.assert_allclose(found.opacities, plain.opacities, atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(np.exp(found.log_scales), np.exp(plain.log_scales), atol=0.6 / 65_535)
    np.testing.assert_array_equal(found.means, plain.means)


def test_what_is_guessed_is_said(tmp_path):
    root, binary = written(tmp_path, count=5)
    extension = root["meshes"][0]["primitives"][0]["extensions"][KHR]
    extension |= {"colorSpace": "lin_rec709_display", "kernel": "cube"}
    scale = root["accessors"][attributes(root)[f"{KHR}:SCALE"]]
    values = bytearray(binary)
    start, size = (root["bufferViews"][scale["bufferView"]][key] for key in ("byteOffset", "byteLength"))
    values[start : start + size] = np.log(np.frombuffer(binary, "<f4", size // 4, start)).tobytes()
    model, header = read_gltf(put_together(tmp_path / "g.glb", root, bytes(values)))
    said = "\n".join(header["warnings"])
    assert all(words in said for words in ("kernel 'cube'", "lin_rec709_display", "taken as logarithms"))
    torch.testing.assert_close(model.rows["log_scales"], read_gltf(tmp_path / "m.glb")[0].rows["log_scales"])


def test_splat_transforms_file_is_its_ply():
    """Every number of somebody else's file, written from a PLY, comes back as in the PLY."""
    loaded = read_model(shared_file("splats/converted/playbot31k.glb"))
    found = plain_of(loaded.model)
    plain = plain_of(read_model(shared_file("splats/converted/playbot31k_sh2.ply")).model)
    assert loaded.header["warnings"] == [] and loaded.header["provenance"]["generator"] == "splat-transform 2.7.1"
    for name in ("means", "sh0", "sh_rest"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
    np.testing.assert_allclose(found.log_scales, plain.log_scales, atol=1e-6)
    np.testing.assert_allclose(found.opacities, plain.opacities, atol=1e-6)
    assert np.abs(found.quats - plain.quats).max() < 1e-6  # signs too
