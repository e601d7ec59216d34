"""Inria's PLY layout: written exactly, read from anybody."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gaussians import random_model, shared_file
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from plyfile import PlyData, PlyElement

from splat.errors import UserError
from splat.io import ply as ply_module
from splat.io.ply import column_names, read_comments, read_ply, write_ply
from splat.model.filter2d import FILTERS_2D
from splat.model.filter3d import filtered

INRIA_SH3 = (
    ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    + [f"f_rest_{i}" for i in range(45)]
    + ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
)


@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
@pytest.mark.parametrize("filter2d", ["classic", "aa", "mip"])
def test_round_trip_is_exact(tmp_path, sh_degree, filter2d):
    model = random_model(sh_degree=sh_degree, filter2d=filter2d)
    write_ply(model.requires_grad_(), tmp_path / "m.ply", {"up_axis": [0, -1, 0.5], "provenance": {"scene": "garden"}})
    back, header = read_ply(tmp_path / "m.ply")
    assert all(torch.equal(back.rows[name], model.rows[name].detach()) for name in model.rows)
    assert (back.sh_degree, back.filter2d) == (sh_degree, filter2d)
    assert header["up_axis"] == [0, -1, 0.5] and header["provenance"]["scene"] == "garden"
    assert header["warnings"] == []


def test_the_bytes_are_inrias_layout(tmp_path):
    model = random_model(3)
    write_ply(model, tmp_path / "m.ply")
    data = (tmp_path / "m.ply").read_bytes()
    head, body = data.split(b"end_header\n", 1)
    lines = head.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    assert [line for line in lines if line.startswith("property")] == [f"property float {n}" for n in INRIA_SH3]
    assert {"element vertex 3", "comment SplatRenderMode: default", "comment SH degree: 3"} <= set(lines)
    values = np.frombuffer(body, "<f4").reshape(3, 62)
    rows = model.rows
    assert np.array_equal(values[:, 3:6], np.zeros((3, 3)))
    assert np.array_equal(values[:, 9:24], rows["sh_rest"][:, :, 0].numpy())  # all red before green before blue
    assert np.array_equal(values[:, 39:54], rows["sh_rest"][:, :, 2].numpy())
    assert np.array_equal(values[:, 54], rows["logit_opacities"].numpy())
    assert np.array_equal(values[:, 58:], rows["quats"].numpy())


def test_compensated_filters_are_marked_for_viewers(tmp_path):
    for filter2d, mode in {"classic": "default", "aa": "mip", "mip": "mip"}.items():
        write_ply(random_model(1, filter2d=filter2d), tmp_path / "m.ply")
        assert f"SplatRenderMode: {mode}" in PlyData.read(tmp_path / "m.ply").comments


def test_the_3d_filter_is_folded_in(tmp_path):
    model = random_model()
    model.filter3d = torch.rand(model.count) * 0.1
    write_ply(model, tmp_path / "m.ply")
    back, _ = read_ply(tmp_path / "m.ply")
    scales, opacities = filtered(model.scales, model.opacities, model.filter3d)
    torch.testing.assert_close(back.scales, scales)
    torch.testing.assert_close(back.opacities, opacities)
    assert back.filter3d is None


def test_blocks_join_seamlessly_and_no_splats_is_a_file_too(tmp_path, monkeypatch):
    model = random_model(10)
    model.filter3d = torch.rand(10) * 0.1
    write_ply(model, tmp_path / "one.ply")
    monkeypatch.setattr(ply_module, "ROWS_PER_WRITE", 3)
    write_ply(model, tmp_path / "many.ply")
    assert (tmp_path / "one.ply").read_bytes() == (tmp_path / "many.ply").read_bytes()
    write_ply(random_model(0, sh_degree=1), tmp_path / "none.ply")
    assert read_ply(tmp_path / "none.ply")[0].count == 0


def foreign(path, model, names, *, text=False, byte_order="<", dtype="f4", comments=()):
    """The model as another program might write it: its own column order, encoding and precision."""
    parts = {"x": ("means", 0), "y": ("means", 1), "z": ("means", 2), "opacity": ("logit_opacities", None)}
    parts |= {f"f_dc_{i}": ("sh0", i) for i in range(3)} | {f"scale_{i}": ("log_scales", i) for i in range(3)}
    parts |= {f"rot_{i}": ("quats", i) for i in range(4)}
    rest = model.rows["sh_rest"].transpose(1, 2).reshape(model.count, -1)
    table = np.zeros(model.count, [(name, dtype) for name in names])
    for name in names:
        if name.startswith("f_rest_"):
            table[name] = rest[:, int(name[7:])].numpy()
        elif name in parts:
            field, column = parts[name]
            values = model.rows[field].numpy()
            table[name] = values if column is None else values[:, column]
    data = PlyData([PlyElement.describe(table, "vertex")], text=text, byte_order=byte_order, comments=list(comments))
    data.write(str(path))


@pytest.mark.parametrize("layout", ["shuffled", "no normals", "extra columns", "ascii", "big endian", "double"])
def test_files_of_others(tmp_path, layout):
    model = random_model(12, sh_degree=2)
    names = column_names(2)
    options = {"ascii": {"text": True}, "big endian": {"byte_order": ">"}, "double": {"dtype": "f8"}}.get(layout, {})
    if layout == "shuffled":
        names = list(np.random.default_rng(1).permutation(names))
    elif layout == "no normals":
        names = [name for name in names if name not in ("nx", "ny", "nz")]
    elif layout == "extra columns":
        names = ["label", *names, "confidence"]
    foreign(tmp_path / "f.ply", model, names, **options)
    back, header = read_ply(tmp_path / "f.ply")
    for name in model.rows:
        torch.testing.assert_close(back.rows[name], model.rows[name], rtol=1e-5, atol=1e-6)
    assert back.sh_degree == 2 and header["warnings"] == []


def test_antialiasing_comments_of_others(tmp_path):
    for comment, filter2d in {"SplatRenderMode: mip": "aa", "antialiased 1": "aa", "antialiased 0": "classic"}.items():
        foreign(tmp_path / "f.ply", random_model(2), column_names(3), comments=[comment, "Vertical axis: -z"])
        model, header = read_ply(tmp_path / "f.ply")
        assert model.filter2d == filter2d and header["up_axis"] == [0, 0, -1]


@pytest.mark.parametrize("filter2d", FILTERS_2D)
def test_the_filter_is_recorded_for_us_and_as_closely_as_can_be_for_others(tmp_path, filter2d):
    write_ply(random_model(2, filter2d=filter2d), tmp_path / "m.ply")
    model, header = read_ply(tmp_path / "m.ply")
    assert model.filter2d == header["filter2d"] == filter2d
    others = [comment for comment in header["comments"] if not comment.startswith("SplatFilter2d")]
    assert f"SplatRenderMode: {'default' if filter2d == 'classic' else 'mip'}" in others
    assert read_comments(others)["filter2d"] == ("classic" if filter2d == "classic" else "aa")


def test_a_filter_of_a_later_version_is_told_and_replaced_by_the_closest(tmp_path):
    comments = ["SplatRenderMode: mip", "SplatFilter2d: exact"]
    foreign(tmp_path / "f.ply", random_model(2), column_names(3), comments=comments)
    model, header = read_ply(tmp_path / "f.ply")
    assert model.filter2d == "aa" and "'exact' is not known here; aa is the closest" in header["warnings"][0]
    assert "unknown_filter2d" not in header


def test_rows_that_cannot_be_drawn_are_counted_and_left_out(tmp_path):
    model = random_model(10)
    model.rows["means"][2, 1] = torch.nan
    model.rows["sh_rest"][5, 3, 0] = torch.inf
    model.rows["logit_opacities"][7] = torch.inf  # what converters write for an opacity of 1
    model.rows["log_scales"][8, 2] = -torch.inf  # flat
    model.rows["quats"][9] = 0
    write_ply(model, tmp_path / "m.ply")
    back, header = read_ply(tmp_path / "m.ply")
    kept = [0, 1, 3, 4, 6, 7, 8, 9]
    assert torch.equal(back.rows["means"], model.rows["means"][kept])
    assert all(torch.isfinite(table).all() for table in back.rows.values())
    assert back.opacities[5] == 1.0 and back.scales[6, 2] < 1e-12 and back.rows["quats"][7].tolist() == [1, 0, 0, 0]
    assert any("2 of 10 splats" in text for text in header["warnings"])
    assert any("3 splats" in text for text in header["warnings"])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["x", "y", "z", "red", "green", "blue"], "a plain point cloud, not splats: .* f_dc_0, .*opacity, scale_0"),
        (["a", "b"], "no 3DGS file"),
        ([n for n in column_names(0) if n != "scale_2"], "2DGS"),
        ([*column_names(0), *(f"f_rest_{i}" for i in range(10))], "10 f_rest columns"),
        ([*column_names(0), *(f"f_rest_{i}" for i in range(1, 10))], "9 f_rest columns"),
        ([*column_names(0), "packed_position"], "without its element 'chunk'"),
    ],
)
def test_what_is_no_splat_file_is_refused_with_the_reason(tmp_path, names, words):
    foreign(tmp_path / "f.ply", random_model(4), names)
    with pytest.raises(UserError, match=words):
        read_ply(tmp_path / "f.ply")


def test_cut_and_lying_files(tmp_path):
    path = tmp_path / "m.ply"
    write_ply(random_model(5), path)
    whole = path.read_bytes()
    for length in (0, 3, 20, 400, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            read_ply(path)
    path.write_bytes(whole.replace(b"element vertex 5", b"element vertex 999999999999"))
    with pytest.raises(UserError, match="cut short"):
        read_ply(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_ply(tmp_path / "absent.ply")


OTHER_LINES = """ply
format ascii 1.0
format binary_little_endian 1.0
element vertex 3
element vertex -1
element face 2
property list uchar int f_dc_0
property float
comment SH degree: x
obj_info
end_header""".splitlines()
words = st.sampled_from(OTHER_LINES + [f"property float {name}" for name in column_names(0)])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(words, max_size=30), body=st.binary(max_size=64), ending=st.sampled_from(["\n", "\r\n", "\r"]))
def test_garbage_headers_are_user_errors(tmp_path, lines, body, ending):
    path = tmp_path / "g.ply"
    path.write_bytes(ending.join(["ply", *lines, "end_header", ""]).encode() + body)
    with pytest.raises(UserError):
        read_ply(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    full=st.sampled_from(["ascii", "binary_little_endian", "binary_big_endian", "morse"]),
    count=st.one_of(st.integers(-2, 6), st.sampled_from(["", "x", "1e3", "99999999999999999999"])),
    kind=st.sampled_from(["float", "double", "uchar", "list uchar float", "quaternion"]),
    body=st.binary(max_size=300) | st.text("0123456789.- \nnaif", max_size=300).map(str.encode),
)
@example(full="ascii", count=1, kind="list uchar float", body=b"0")
def test_whole_headers_with_garbage_behind_load_or_are_user_errors(tmp_path, full, count, kind, body):
    path = tmp_path / "g.ply"
    columns = "".join(f"property {kind} {name}\n" for name in column_names(0))
    path.write_bytes(f"ply\nformat {full} 1.0\nelement vertex {count}\n{columns}end_header\n".encode() + body)
    try:
        model, _ = read_ply(path)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert all(torch.isfinite(table).all() for table in model.rows.values())


def test_a_real_model_of_the_original_code():
    model, header = read_ply(shared_file("splats/fixtures/test-splat.3-points-from-train.ply"))
    assert (model.count, model.sh_degree, header["warnings"]) == (3, 3, [])
    assert torch.isfinite(model.scales).all() and 0 < model.opacities.min() < model.opacities.max() < 1


def test_a_real_model_with_unusual_columns_survives_our_own_writer(tmp_path):
    model, header = read_ply(shared_file("splats/converted/playbot31k_sh2.ply"))
    assert (model.count, model.sh_degree, header["warnings"]) == (31_000, 2, [])
    write_ply(model, tmp_path / "m.ply")
    back, _ = read_ply(tmp_path / "m.ply")
    assert all(torch.equal(back.rows[name], model.rows[name]) for name in model.rows)


def test_gsply_reads_the_same_numbers(tmp_path):
    try:
        import gsply
    except ImportError as error:  # the package or its numba
        pytest.skip(f"gsply is not installed ({error})")
    for sh_degree in (0, 3):
        model = random_model(50, sh_degree=sh_degree)
        write_ply(model, tmp_path / "m.ply", {"provenance": {"scene": "x"}})
        other = gsply.plyread(str(tmp_path / "m.ply"))
        pairs = {"means": other.means, "log_scales": other.scales, "quats": other.quats}
        pairs |= {"logit_opacities": other.opacities, "sh0": other.sh0}
        for name, values in pairs.items():
            assert np.array_equal(model.rows[name].numpy(), np.asarray(values)), name
        if sh_degree:
            assert np.array_equal(model.rows["sh_rest"].numpy(), np.asarray(other.shN))
