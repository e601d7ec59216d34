"""Choosing formats, and the frame that files are in."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
import torch
from gaussians import camera_at, model_of, random_model, shared_file
from test_cameras_json import scene_of, similarity

from splat.errors import UserError
from splat.io.cameras_json import read_cameras_json, write_cameras_json
from splat.io.format_names import file_name, stored_bytes
from splat.io.formats import FORMATS, model_file, read_model, write_model
from splat.io.header import scene_header
from splat.model.filter2d import FILTERS_2D
from splat.model.primitives import PRIMITIVES
from splat.render.registry import rasterizer
from splat.render.types import CameraBatch, RenderOptions

EXACT = [row.name for row in FORMATS.values() if row.fidelity == "exact"]
LOSSY = [row.name for row in FORMATS.values() if row.fidelity == "lossy" and row.write is not None]


@pytest.mark.parametrize("filter2d", list(FILTERS_2D))
@pytest.mark.parametrize("name", EXACT)
def test_every_exact_format_draws_the_same_picture(tmp_path, name, filter2d):
    model = random_model(filter2d=filter2d)
    path = tmp_path / f"m{FORMATS[name].suffixes[0]}"
    written = write_model(model, path)
    assert written.fidelity == FORMATS[name].fidelity == "exact" and written.size_bytes == path.stat().st_size
    assert psnr_between(model, read_model(path).model, camera_at((0, 0, -4))) > 90


@pytest.mark.parametrize("name", LOSSY)
def test_every_other_format_draws_nearly_the_same_picture(tmp_path, name):
    """``.splat`` has no view-dependent colour, so this model has none either; test_format_contract asks for more."""
    model = random_model(sh_degree=0)
    written = write_model(model, tmp_path / file_name("m", name), format=name)
    assert written.fidelity == "lossy" and stored_bytes(written.path) > 5 * model.count
    if name != "html":  # only written
        assert psnr_between(model, read_model(written.path).model, camera_at((0, 0, -4))) > 32


@pytest.mark.parametrize("kind", PRIMITIVES)
def test_a_ply_of_any_primitive_holds_gaussians_and_says_so(tmp_path, kind):
    model = model_of(kind)
    written = write_model(model, tmp_path / "m.ply")
    assert written.fidelity == model.primitive.export
    loaded = read_model(tmp_path / "m.ply")
    assert loaded.model.primitive.kind == "gaussian" and loaded.model.count == model.count
    said = f"Converted from: {kind} ({model.primitive.export})"
    assert (said in loaded.header["comments"]) == (kind != "gaussian")
    found = psnr_between(model, loaded.model, camera_at((0, 0, -4)))
    assert found > 90 if model.primitive.export == "exact" else 18 < found < 60
    write_model(model, tmp_path / "m.safetensors")
    assert psnr_between(model, read_model(tmp_path / "m.safetensors").model, camera_at((0, 0, -4))) > 119


@pytest.mark.parametrize("kind", PRIMITIVES)
def test_a_row_that_is_not_finite_costs_only_itself(tmp_path, kind):
    for name in model_of(kind).rows:
        model = model_of(kind)
        model.rows[name][3] = torch.nan
        write_model(model, tmp_path / "m.ply")
        back = read_model(tmp_path / "m.ply").model
        assert back.count >= model.count - 1, name
        assert all(table.isfinite().all() for table in back.rows.values())


def test_a_ply_and_its_cameras_are_in_the_captures_frame_and_draw_the_same_picture(tmp_path):
    world_from_input = similarity()
    model, cameras = random_model(60), [camera_at((1.5, 0.2, -3.5)), camera_at((-3.0, -0.4, 2.0))]
    header = {"world_from_input": world_from_input.tolist()}
    write_model(model, tmp_path / "m.ply", header=header)
    loaded = read_model(tmp_path / "m.ply").model
    expected = model.rows["means"].double().numpy() - world_from_input[:3, 3]
    expected = expected @ np.linalg.inv(world_from_input[:3, :3]).T
    np.testing.assert_allclose(loaded.rows["means"].numpy(), expected, atol=1e-5)
    write_cameras_json(tmp_path / "c.json", scene_of(cameras, world_from_input))
    for camera, outside in zip(cameras, read_cameras_json(tmp_path / "c.json"), strict=True):
        assert psnr_between(model, loaded, camera, outside) > 70


def test_the_native_file_keeps_the_training_frame_and_remembers_the_way_back(tmp_path):
    model, input_from_world = random_model(), np.linalg.inv(similarity())
    write_model(model, tmp_path / "m.safetensors", input_from_world=input_from_world)
    loaded = read_model(tmp_path / "m.safetensors")
    assert torch.equal(loaded.model.rows["means"], model.rows["means"])
    np.testing.assert_allclose(loaded.header["world_from_input"], similarity(), atol=1e-12)
    write_model(loaded.model, tmp_path / "a.ply", header=loaded.header)
    write_model(model, tmp_path / "b.ply", input_from_world=input_from_world)
    a, b = (read_model(tmp_path / name).model.rows["means"] for name in ("a.ply", "b.ply"))
    torch.testing.assert_close(a, b)


def test_the_same_frame_is_left_untouched(tmp_path):
    model = random_model()
    write_model(model, tmp_path / "m.ply", header={"world_from_input": np.eye(4).tolist()})
    assert torch.equal(read_model(tmp_path / "m.ply").model.rows["quats"], model.rows["quats"])


def test_files_are_told_apart_by_content(tmp_path):
    write_model(random_model(), tmp_path / "really_native.ply", format="native")
    assert read_model(tmp_path / "really_native.ply").header["format"] == "splat-model"
    with pytest.raises(UserError, match=r"format 'spx' is not known; choices: native, .*ply"):
        write_model(random_model(), tmp_path / "m.ply", format="spx")
    with pytest.raises(UserError, match=r"format 'ksplat' is only read; choices: native, "):
        write_model(random_model(), tmp_path / "m.ksplat", format="ksplat")
    with pytest.raises(UserError, match=r"suffix '\.xyz'; choices: \.safetensors, .*\.ply"):
        write_model(random_model(), tmp_path / "m.xyz")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("a.gltf", b"{}", "glTF text file, not supported yet"), ("a.ply", b"", "is empty"),
     ("a.ply", b"hello world", "not a splat model"), ("m.pt", b"PK\3\4", "pickle")],
)  # fmt: skip
def test_unknown_content_is_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_model(tmp_path / name)


def test_a_run_folder_stands_for_its_best_model(tmp_path):
    with pytest.raises(UserError, match="neither model"):
        model_file(tmp_path)
    for iteration in (7000, 30000, 900):
        write_model(random_model(1), tmp_path / f"point_cloud/iteration_{iteration}/point_cloud.ply")
    assert model_file(tmp_path).parent.name == "iteration_30000"
    write_model(random_model(1), tmp_path / "model.safetensors")
    assert model_file(tmp_path).name == "model.safetensors"
    with pytest.raises(UserError, match="no such file"):
        model_file(tmp_path / "absent")


def test_every_shared_file_loads_or_is_refused_in_one_line():
    folder = shared_file("splats")
    outcomes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            try:
                outcomes[path.name] = read_model(path).model.count
            except UserError as error:
                assert "\n" not in str(error)
                outcomes[path.name] = None
    ours = {name: count for name, count in outcomes.items() if name.startswith("playbot31k")}
    assert len(ours) == 10 and set(ours.values()) == {31_000}
    assert outcomes["biker.compressed.ply"] == outcomes["biker.spz"] == 152_746
    refused = {name for name, count in outcomes.items() if count is None}
    assert not {name for name in refused if name.endswith((".ply", ".sog", ".spz", ".ksplat", ".splat", ".glb"))} - {
        "minimal-raw.spz"
    }


def psnr_between(model, other, camera, other_camera=None) -> float:
    """PSNR in dB of the pictures two models give."""
    pictures = []
    for one, view in ((model, camera), (other, other_camera or camera)):
        options = RenderOptions(sh_degree=one.sh_degree, filter2d=one.filter2d)
        with torch.no_grad():
            drawn = rasterizer("reference").render(one.render_inputs(), CameraBatch.of(view), options)
        pictures.append(drawn.color)
    assert pictures[0].std() > 0.05  # there is something to compare
    return float(-10 * torch.log10((pictures[0] - pictures[1]).square().mean().clamp_min(1e-12)))


def test_the_header_of_a_scene_names_frame_up_and_origin(tmp_path):
    scene = scene_of([camera_at((0, 0, -3))], similarity())  # upright in the training frame: up is -y
    header = scene_header(scene, step=7000)
    np.testing.assert_allclose(header["up_axis"], np.linalg.inv(similarity()[:3, :3] / 2.5) @ (0, -1, 0), atol=1e-12)
    view, into = header["start_view"], np.linalg.inv(similarity())
    np.testing.assert_allclose(view["position"], into[:3, :3] @ (0, 0, -3) + into[:3, 3], atol=1e-9)
    np.testing.assert_allclose(view["up"], header["up_axis"], atol=1e-9)
    ahead = np.subtract(view["target"], view["position"])
    np.testing.assert_allclose(ahead / np.linalg.norm(ahead), into[:3, :3] @ (0, 0, 2.5), atol=1e-9)
    camera = scene.cameras[0]
    assert np.tan(np.radians(view["fov"] / 2)) * camera.K[1, 1] == pytest.approx(camera.height / 2)
    write_model(random_model(), tmp_path / "m.ply", header=header)
    loaded = read_model(tmp_path / "m.ply")
    np.testing.assert_allclose(loaded.header["up_axis"], header["up_axis"], atol=1e-5)
    assert loaded.header["provenance"]["scene"] == "s" and loaded.header["provenance"]["step"] == "7000"


@pytest.mark.slow
def test_splat_transform_keeps_our_ply(tmp_path):
    """PlayCanvas' converter reads our file and writes the same numbers back."""
    tool = shutil.which("splat-transform")
    if tool is None:
        pytest.skip("splat-transform is not installed (npm install -g @playcanvas/splat-transform)")
    model = random_model(300)
    model.rows["quats"] /= model.rows["quats"].norm(dim=1, keepdim=True)
    write_model(model, tmp_path / "in.ply")
    subprocess.run([tool, "-w", "in.ply", "out.ply"], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    back = read_model(tmp_path / "out.ply").model
    for name, table in model.rows.items():
        torch.testing.assert_close(back.rows[name], table, rtol=1e-5, atol=1e-6)
