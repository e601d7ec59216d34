"""PlayCanvas' compressed PLY: to the letter of its layout, as near as its codes allow, read from anybody."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
import torch
from gaussians import random_model, shared_file
from plyfile import PlyData, PlyElement
from test_ksplat import differences, nearest

from splat.errors import UserError
from splat.io import compressed_ply as compressed
from splat.io.compressed_ply import read_compressed_ply, write_compressed_ply
from splat.io.formats import read_model, write_model
from splat.io.locality import block_bounds, local_rows
from splat.io.plain import PlainSplats, plain_of
from splat.model.filter2d import FILTERS_2D

NAME = "m.compressed.ply"


def as_written(model) -> PlainSplats:
    """The rows in the order of the file."""
    plain = plain_of(model)
    return plain.taken(local_rows(plain.means))


@pytest.mark.parametrize(("count", "sh_degree"), [(1, 3), (255, 0), (256, 1), (257, 2), (700, 3)])
def test_every_number_is_within_half_a_step(tmp_path, count, sh_degree):
    model = random_model(count, sh_degree=sh_degree)
    write_compressed_ply(model, tmp_path / NAME)
    back, expected = plain_of(read_compressed_ply(tmp_path / NAME)[0]), as_written(model)
    assert (back.count, back.sh_degree) == (count, sh_degree)
    steps = np.array([2**11 - 1, 2**10 - 1, 2**11 - 1])
    for name, levels in {"means": steps, "log_scales": steps, "sh0": 255}.items():
        values = getattr(expected, name)
        low, high = block_bounds(values.astype(np.float64))
        half = np.repeat((high - low) / levels / 2, 256, axis=0)[:count]
        assert (np.abs(getattr(back, name) - values) <= half + 2e-6).all(), name
    assert np.abs(back.opacities - expected.opacities).max() <= 0.5 / 255 + 1e-6
    assert np.abs(back.sh_rest - expected.sh_rest).max(initial=0) <= 1 / 64 + 1e-6
    turns = np.abs((back.quats.astype(np.float64) * expected.quats).sum(axis=1)).clip(0, 1)
    assert np.degrees(2 * np.arccos(turns)).max() < 0.3


def test_the_bytes_are_playcanvas_layout(tmp_path):
    model = random_model(300, sh_degree=2, filter2d="aa")
    write_compressed_ply(model, tmp_path / NAME, {"up_axis": [0, 0, 1], "provenance": {"scene": "garden"}})
    ply = PlyData.read(tmp_path / NAME)
    assert [(element.name, element.count) for element in ply] == [("chunk", 2), ("vertex", 300), ("sh", 300)]
    corners = [f"{end}_{axis}" for end in ("min", "max") for axis in "xyz"]
    sizes = [f"{end}_scale_{axis}" for end in ("min", "max") for axis in "xyz"]
    colors = [f"{end}_{axis}" for end in ("min", "max") for axis in "rgb"]
    assert list(ply["chunk"].data.dtype.names) == corners + sizes + colors
    packed = ["packed_position", "packed_rotation", "packed_scale", "packed_color"]
    assert ply["vertex"].data.dtype == np.dtype([(name, "<u4") for name in packed])
    assert ply["sh"].data.dtype == np.dtype([(f"f_rest_{i}", "u1") for i in range(24)])
    assert {"SplatRenderMode: mip", "Vertical axis: 0 0 1", "SH degree: 2", "scene: garden"} <= set(ply.comments)
    plain = as_written(model)
    chunk, vertex = ply["chunk"].data, ply["vertex"].data
    assert (
        chunk["min_y"][1] == plain.means[256:, 1].min() and chunk["max_scale_z"][0] == plain.log_scales[:256, 2].max()
    )
    span = chunk["max_x"][0] - chunk["min_x"][0]
    assert vertex["packed_position"][7] >> 21 == round((plain.means[7, 0] - chunk["min_x"][0]) / span * 2047)
    assert vertex["packed_color"][7] & 255 == round(plain.opacities[7] * 255)
    green = np.floor((plain.sh_rest[7, 0, 1] / 8 + 0.5) * 256)  # after the eight reds
    assert ply["sh"].data["f_rest_8"][7] == green
    turned = plain.quats[7] * np.sign(plain.quats[7][largest := np.abs(plain.quats[7]).argmax()])
    others = [round((part / np.sqrt(2) + 0.5) * 1023) for part in np.delete(turned, largest)]
    word = largest << 30 | others[0] << 20 | others[1] << 10 | others[2]
    assert vertex["packed_rotation"][7] == word


def test_sh_bytes_are_the_nearest_codes():
    values = np.linspace(-4.5, 4.5, 9_001, dtype=np.float32)[:, None]
    decoded = np.array([-4, *(((b + 0.5) / 256 - 0.5) * 8 for b in range(1, 255)), 4])
    found = np.abs(decoded[compressed._pack_sh(values)[:, 0]] - values[:, 0])
    best = np.abs(decoded[None] - values).min(axis=1)
    assert np.abs(found - best).max() < 1e-6
    assert np.allclose(compressed._sh_values(), decoded)


def test_reading_and_writing_again_gives_the_same_bytes(tmp_path):
    model = random_model(5000, sh_degree=1)
    torch.manual_seed(0)
    model.rows["quats"][:2500] = torch.randint(-1, 2, (2500, 4)) + 1e-4 * torch.randn(2500, 4)  # ties
    for count in range(3):
        write_compressed_ply(model, tmp_path / f"{count}.compressed.ply")
        model = read_compressed_ply(tmp_path / f"{count}.compressed.ply")[0]
    first, second, third = ((tmp_path / f"{count}.compressed.ply").read_bytes() for count in range(3))
    assert first == second == third


def test_neighbours_share_chunks_and_a_local_order_is_kept():
    means = random_model(3000).rows["means"].numpy()
    order = local_rows(means)
    assert sorted(order) == list(range(3000))

    def edges(values):
        return np.subtract(*block_bounds(values)[::-1]).mean()

    assert edges(means[order]) < 0.7 * edges(means)
    assert np.array_equal(local_rows(means[order]), np.arange(3000))


def test_bands_without_a_coefficient_are_left_out(tmp_path):
    """Zero has no code: every decoder would make 1/64 of it."""
    model = random_model(20)
    model.rows["sh_rest"][:, 3:] = 0
    write_compressed_ply(model, tmp_path / NAME)
    back = read_compressed_ply(tmp_path / NAME)[0]
    assert back.sh_degree == 1 and (back.rows["sh_rest"] - model.rows["sh_rest"][:, :3]).abs().max() < 0.016
    model.rows["sh_rest"][:] = 0
    write_compressed_ply(model, tmp_path / NAME)
    assert (
        read_compressed_ply(tmp_path / NAME)[0].sh_degree == 0 and b"element sh" not in (tmp_path / NAME).read_bytes()
    )


def test_extremes_are_taken_at_their_limits(tmp_path):
    model = random_model(3, sh_degree=0)
    model.rows["means"][0] = torch.tensor([3e38, -3e38, 0])
    model.rows["log_scales"][1] = 80
    model.rows["logit_opacities"][:2] = torch.tensor([-90.0, 90.0])
    model.rows["quats"][2] = 0
    write_compressed_ply(model, tmp_path / NAME)
    back, header = read_compressed_ply(tmp_path / NAME)
    assert header["warnings"] == [] and torch.equal(back.rows["means"][0], model.rows["means"][0])
    assert back.rows["log_scales"][1].tolist() == [20, 20, 20]
    assert back.opacities[0] < 1e-8 and back.opacities[1] == 1


@pytest.mark.parametrize("filter2d", FILTERS_2D)
def test_the_filter_is_recorded(tmp_path, filter2d):
    write_model(random_model(2, filter2d=filter2d), tmp_path / NAME, header={"up_axis": [0, -1, 0]})
    loaded = read_model(tmp_path / NAME)
    assert loaded.model.filter2d == filter2d and loaded.header["up_axis"] == [0, -1, 0]


def rewritten(path, *, names=compressed._BOUNDS, **options) -> None:
    """The file as another program might lay it out."""
    ply = PlyData.read(path, mmap=False)
    chunks = ply["chunk"].data
    table = np.zeros(len(chunks), [(name, chunks.dtype[name]) for name in names])
    for name in names:
        table[name] = chunks[name]
    elements = [ply["vertex"], PlyElement.describe(table, "chunk"), ply["sh"]]
    PlyData(elements, **{"text": False, "byte_order": "<", **options}).write(path)


def test_other_orders_of_elements_columns_and_bytes(tmp_path):
    model = random_model(300, sh_degree=1)
    write_compressed_ply(model, tmp_path / NAME)
    expected = read_compressed_ply(tmp_path / NAME)[0]
    rewritten(tmp_path / NAME, names=compressed._BOUNDS[::-1], byte_order=">")
    back = read_compressed_ply(tmp_path / NAME)[0]
    assert all(torch.equal(back.rows[name], expected.rows[name]) for name in expected.rows)


def test_the_older_variant_has_colours_in_bytes(tmp_path):
    model = random_model(10, sh_degree=1)
    model.rows["sh0"][0], model.rows["sh0"][1] = -0.5 / compressed.C0, 0.5 / compressed.C0
    model.rows["sh0"].clamp_(-0.5 / compressed.C0, 0.5 / compressed.C0)
    write_compressed_ply(model, tmp_path / NAME)
    expected = read_compressed_ply(tmp_path / NAME)[0]
    rewritten(tmp_path / NAME, names=compressed._BOUNDS[:12])
    torch.testing.assert_close(read_compressed_ply(tmp_path / NAME)[0].rows["sh0"], expected.rows["sh0"])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"little_endian", b"middle_endian", "no byte order"),
        (b"binary_little_endian", b"ascii", "in text form"),
        (b"element chunk 2", b"element chunk 1", "1 chunks of 256 splats do not cover"),
        (b"element chunk 2", b"element chunk 99999999999", "cut short: element 'chunk' with 99,999,999,999 rows"),
        (b"element vertex 300", b"element vertex 999999999999", "cut short"),
        (b"element vertex 300", b"element vertex 9999999999999999999999", "has '9999999999999999999999' rows"),
        (b"element vertex 300", b"element vertex -1", "has '-1' rows"),
        (b"element sh 300", b"element sh 299", "299 rows of SH for 300 splats"),
        (b"element sh 300", b"element vertex 300", "two elements 'vertex'"),
        (b"float min_x", b"float max_x", "names a property twice"),
        (b"float min_x", b"list uchar float min_x", "'list uchar float min_x', not a number"),
        (b"float min_x", b"float near_x", "'chunk' misses min_x"),
        (b"uint packed_scale", b"float packed_scale", "not whole numbers"),
        (b"uchar f_rest_8", b"uchar f_rest_9", "numbered from 0"),
        (b"uchar f_rest_8", b"char f_rest_8", "are not bytes"),
        (b"end_header", b"and_header", "without its end"),
        (b"comment SH", b"remark SH", "a line 'remark SH"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, old, new, words):
    write_compressed_ply(random_model(300, sh_degree=1), tmp_path / NAME)
    data = (tmp_path / NAME).read_bytes()
    assert old in data
    (tmp_path / NAME).write_bytes(data.replace(old, new, 1))
    with pytest.raises(UserError, match=words):
        read_compressed_ply(tmp_path / NAME)


def test_bounds_that_are_no_numbers_cost_their_chunk_only(tmp_path):
    write_compressed_ply(random_model(300, sh_degree=1), tmp_path / NAME)
    data = (tmp_path / NAME).read_bytes()
    start = data.index(b"end_header\n") + 11
    (tmp_path / NAME).write_bytes(data[:start] + np.float32(np.nan).tobytes() + data[start + 4 :])
    model, header = read_compressed_ply(tmp_path / NAME)
    assert model.count == 44 and "256 of 300 splats" in header["warnings"][0]


def test_it_is_told_from_a_plain_ply_by_its_header(tmp_path):
    write_model(random_model(3), tmp_path / "m.ply", format="compressed-ply")
    write_model(random_model(3), tmp_path / NAME, format="ply")
    assert read_model(tmp_path / "m.ply").header["format"] == "compressed-ply"
    assert read_model(tmp_path / NAME).header["format"] == "ply"


def test_a_real_file_against_the_ply_it_was_made_from():
    reference = plain_of(read_model(shared_file("splats/converted/playbot31k_sh2.ply")).model)
    plain = plain_of(read_model(shared_file("splats/converted/playbot31k.compressed.ply")).model)
    assert (plain.count, plain.sh_degree) == (31_000, 2)
    low, high = block_bounds(plain.means)
    steps = np.repeat((high - low).max(axis=1) / 1023, 256)[:31_000:40]
    plain = plain.taken(slice(None, None, 40))
    matched = reference.taken(nearest(plain.means, reference.means))
    assert (np.abs(plain.means - matched.means).max(axis=1) <= 0.51 * steps + 1e-6).all()
    sure = np.abs(plain.log_scales - matched.log_scales).max(axis=1) < 0.01  # the rest have a twin in the same place
    assert sure.mean() > 0.98
    found = differences(plain.taken(sure), matched.taken(sure))
    assert found["opacities"] <= 0.51 / 255 and found["sh_rest"] <= 1 / 64 + 1e-6 and found["quats"] < 0.003


def test_a_real_file_written_again_is_as_large_and_the_same_model(tmp_path):
    path = shared_file("splats/playcanvas/guitar.compressed.ply")
    model = read_model(path).model
    write_model(model, tmp_path / NAME)
    assert abs((tmp_path / NAME).stat().st_size - path.stat().st_size) < 1000
    back, before = (plain_of(one) for one in (read_model(tmp_path / NAME).model, model))
    low, high = block_bounds(back.means)
    steps = np.repeat((high - low).max(axis=1) / 1023, 256)[: back.count : 900]
    back = back.taken(slice(None, None, 900))
    found = np.abs(before.means[nearest(back.means, before.means)] - back.means).max(axis=1)
    assert (found <= 0.51 * steps + 1e-6).all()


@pytest.mark.slow  # gsply compiles itself
def test_gsply_reads_what_we_read(tmp_path):
    try:
        import gsply
    except ImportError as error:  # the package or its numba
        pytest.skip(f"gsply is not installed ({error})")
    write_model(random_model(600), tmp_path / NAME)
    ours, other = read_model(tmp_path / NAME).model.rows, gsply.plyread(str(tmp_path / NAME))
    for name, values in {
        "means": other.means,
        "log_scales": other.scales,
        "quats": other.quats,
        "sh0": other.sh0,
    }.items():
        assert np.abs(ours[name].numpy() - np.asarray(values)).max() < 1e-5, name
    assert np.abs(ours["sh_rest"].numpy() - np.asarray(other.shN).reshape(600, 15, 3)).max() < 1e-5


@pytest.mark.slow
def test_splat_transform_reads_what_we_read(tmp_path):
    tool = shutil.which("splat-transform")
    if tool is None:
        pytest.skip("splat-transform is not installed (npm install -g @playcanvas/splat-transform)")
    write_model(random_model(600), tmp_path / NAME)
    subprocess.run([tool, "-w", NAME, "out.ply"], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    ours, other = read_model(tmp_path / NAME).model.rows, read_model(tmp_path / "out.ply").model.rows
    for name in ours:
        torch.testing.assert_close(other[name], ours[name], rtol=1e-5, atol=1e-5)
