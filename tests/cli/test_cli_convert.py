"""``splat convert``: file to file, without a run, telling what the new file does not keep."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from splat.cli.main import main
from splat.io.format_names import file_name, format_names
from splat.io.formats import FORMATS, in_capture_frame, read_model, write_model
from splat.model.splat_model import SplatModel

sys.path.insert(0, str(Path(__file__).parents[1] / "io"))
from gaussians import model_of, random_model
from test_cameras_json import similarity

HEADER = {"up_axis": [0.0, 0.0, 1.0], "provenance": {"scene": "garden", "step": "300"}}


@pytest.fixture(autouse=True)
def small_ring(monkeypatch):
    monkeypatch.setattr("splat.evaluate.conversion.RING_SIZE_PX", (64, 48))
    monkeypatch.setattr("splat.evaluate.conversion.RING_VIEWS", 2)


def made(path: Path, model: SplatModel, **header) -> Path:
    write_model(model, path, header={**HEADER, **header})
    return path


def test_to_native_and_back_keeps_rows_and_facts(tmp_path, capsys):
    source = made(tmp_path / "a.ply", random_model(filter2d="mip"))
    for out in ("b.safetensors", "c.ply"):
        assert main(["convert", str(source), str(tmp_path / out), "-q"]) == 0
        loaded = read_model(tmp_path / out)
        assert all(torch.equal(loaded.model.rows[name], table) for name, table in read_model(source).model.rows.items())
        assert loaded.header["up_axis"] == [0, 0, 1] and loaded.header["provenance"]["scene"] == "garden"
        assert loaded.model.filter2d == "mip" and "comments" not in (tmp_path / "b.safetensors").read_text("latin-1")
        source = tmp_path / out
    told = capsys.readouterr()
    assert told.out.split() == [str(tmp_path / "b.safetensors"), str(tmp_path / "c.ply")] and told.err == ""


@pytest.mark.parametrize("name", format_names("all"))
def test_every_format_and_what_its_table_says(tmp_path, capsys, name):
    source = made(tmp_path / "a.ply", random_model(60))
    out = tmp_path / file_name("b", name)
    assert main(["convert", str(source), str(out), "--format", name, "--json", str(tmp_path / "t.json")]) == 0
    table = json.loads((tmp_path / "t.json").read_text())
    (row,) = table["formats"]
    assert row["format"] == name and row["size_bytes"] > 0
    if row["lost"] == ["only written"]:
        assert FORMATS[name].read is None
        return
    loaded = read_model(out)
    assert ("rounded" in row["lost"]) == (FORMATS[name].fidelity == "lossy")
    assert any("SH degree" in words for words in row["lost"]) == (loaded.model.sh_degree != 3)
    assert ("up axis" in row["lost"]) == (not loaded.header.get("up_axis"))
    assert row["psnr"] > 25 and "views from a ring around it (2), against the model's own pictures" in table["views"]


def test_a_file_of_a_run_comes_in_the_frame_of_its_capture(tmp_path):
    model = random_model(30)
    source = made(tmp_path / "a.safetensors", model, world_from_input=similarity().tolist())
    assert main(["convert", str(source), str(tmp_path / "b.ply"), "-q"]) == 0
    captured = in_capture_frame(model, np.linalg.inv(similarity()))
    assert torch.allclose(read_model(tmp_path / "b.ply").model.rows["means"], captured.rows["means"], atol=1e-6)


def test_the_box_stands_in_the_frame_of_the_capture(tmp_path):
    source = made(tmp_path / "a.safetensors", random_model(60), world_from_input=similarity().tolist())
    means = in_capture_frame(random_model(60), np.linalg.inv(similarity())).rows["means"]
    x, y, _ = means.median(0).values.tolist()
    assert main(["convert", str(source), str(tmp_path / "b.ply"), "-q", "--crop", f"-99,-99,-99,{x},{y},99"]) == 0
    inside = (means[:, 0] <= x) & (means[:, 1] <= y)
    kept = read_model(tmp_path / "b.ply").model.rows["means"]
    assert 0 < len(kept) < 60 and torch.allclose(kept, means[inside], atol=1e-6)


def test_other_primitives_say_what_becomes_of_them(tmp_path, capsys):
    source = made(tmp_path / "a.safetensors", model_of("gef"))
    assert main(["convert", str(source), str(tmp_path / "b.ply"), "--sh-degree", "0", "--up", "-x"]) == 0
    err = capsys.readouterr().err
    assert "gef as gaussian, approximately" in err and "SH degree 1 becomes 0" in err
    assert read_model(tmp_path / "b.ply").header["up_axis"] == [-1, 0, 0]


def test_several_inputs_become_one_in_the_frame_of_the_capture(tmp_path, capsys):
    first = made(tmp_path / "a.safetensors", random_model(5), world_from_input=similarity().tolist())
    second = made(tmp_path / "b.ply", random_model(7, sh_degree=1, seed=1))
    assert main(["convert", str(first), str(second), str(tmp_path / "c.ply")]) == 0
    assert "12 splats from 2 files" in capsys.readouterr().err
    both = read_model(tmp_path / "c.ply").model
    captured = in_capture_frame(random_model(5), np.linalg.inv(similarity()))
    assert torch.allclose(both.rows["means"][:5], captured.rows["means"], atol=1e-6)
    assert torch.equal(both.rows["means"][5:], random_model(7, seed=1, sh_degree=1).rows["means"])
    other = made(tmp_path / "d.safetensors", replace(random_model(3), filter2d="aa"))
    assert main(["convert", str(first), str(other), str(tmp_path / "e.ply")]) == 2
    assert "cannot be merged" in capsys.readouterr().err


@pytest.mark.parametrize("again", ["a.ply", "../{here}/a.ply"])
def test_sources_are_never_written_onto(tmp_path, capsys, again):
    source = made(tmp_path / "a.ply", random_model())
    other = made(tmp_path / "b.ply", random_model())
    before = source.read_bytes()
    out = tmp_path / again.format(here=tmp_path.name)
    assert main(["convert", str(other), str(source), str(out)]) == 2
    assert "source itself" in capsys.readouterr().err and source.read_bytes() == before


@pytest.mark.parametrize(("argv", "reason"), [
    ([], "name a file"), (["a.ply"], "name a file"), (["a.ply", "b.nothing"], "suffix"),
    (["a.ply", "b.ply", "--format", "odd"], "choices"), (["missing.ply", "b.ply"], "missing.ply: no such file"),
    (["a.ply", "b.ply", "--up", "w"], "choices: x"), (["a.ply", "b.ply", "--json"], "expected one argument"),
])  # fmt: skip
def test_what_is_wrong_is_one_line(tmp_path, monkeypatch, capsys, argv, reason):
    monkeypatch.chdir(tmp_path)
    made(Path("a.ply"), random_model())
    assert main(["convert", *argv]) == 2
    err = capsys.readouterr().err
    assert reason in err and len(err.splitlines()) == 1 and not Path("b.ply").exists()


def test_what_a_reader_warns_of_is_told(tmp_path, capsys):
    model = random_model()
    model.rows["means"][2] = torch.nan
    source = made(tmp_path / "a.ply", model)
    assert main(["convert", str(source), str(tmp_path / "b.ply"), "--no-measure"]) == 0
    told = capsys.readouterr().err
    assert "1 of 40 splats have non-finite numbers" in told and "PSNR and SSIM" not in told


@pytest.mark.parametrize("facts", [
    {"up_axis": "north"}, {"up_axis": [0, 0, 0]}, {"up_axis": [1, 2]}, {"world_from_input": [[1, 2], [3, 4]]},
    {"world_from_input": np.zeros((4, 4)).tolist()}, {"provenance": 3},
])  # fmt: skip
def test_a_header_that_makes_no_sense_is_one_line(tmp_path, capsys, facts):
    from safetensors import safe_open
    from safetensors.torch import save_file

    source = made(tmp_path / "a.safetensors", random_model(5))
    with safe_open(source, "pt") as stream:
        tables = {name: stream.get_tensor(name) for name in stream.keys()}
        ((key, text),) = stream.metadata().items()
    save_file(tables, source, {key: json.dumps({**json.loads(text), **facts})})
    assert main(["convert", str(source), str(tmp_path / "b.ply"), "--up", "y"]) == 2
    err = capsys.readouterr().err
    assert next(iter(facts)) in err and len(err.splitlines()) == 1
