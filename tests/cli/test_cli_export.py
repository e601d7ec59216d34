"""``splat export``: files, their table, and what the options leave of a model."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from splat.cli.commands import convert, export, info
from splat.cli.exporting import with_values_joined
from splat.cli.format_help import format_purposes
from splat.cli.main import main
from splat.cli.opening import run_model
from splat.errors import UserError
from splat.io.formats import FORMATS, read_model, write_model
from splat.io.placement import Placement, write_placement

SHORT = ["--preset", "cpu", "--steps", "12", "--rasterizer", "reference", "--densifier", "none", "--max-splats", "30"]
BOTH = ["native", "ply"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    from helpers import make_tiny_scene

    folder = tmp_path_factory.mktemp("export")
    scene = make_tiny_scene(folder / "tiny")
    assert main(["train", str(scene), "-o", str(folder / "run"), *SHORT, "-q", "--export", "ply,native"]) == 0
    return folder / "run"


def table_of(argv: list[str], path: Path) -> dict:
    assert main([*argv, "--json", str(path)]) == 0
    return json.loads(path.read_text())


def test_help_pages_list_the_formats_as_they_are():
    listed = format_purposes()
    assert list(listed) == list(FORMATS)
    understood = [row.matches for row in FORMATS.values() if row.read is not None]
    for name, row in FORMATS.items():
        assert listed[name].startswith(row.purpose)
        assert listed[name].endswith("(only written)") == (row.matches not in understood)
        assert listed[name].endswith("(only read)") == (row.write is None)
        assert name in export.HELP and name in convert.HELP
        assert (f"\n  {name} " in info.HELP) == (row.read is not None)


def test_several_formats_go_into_a_folder_with_one_table(run, tmp_path, capsys):
    out = tmp_path / "out"
    table = table_of(["export", str(run), "-o", str(out), "--format", "native,ply"], tmp_path / "t.json")
    told = capsys.readouterr()
    assert told.out.split() == [str(out / "run.safetensors"), str(out / "run.ply")]
    assert [row["format"] for row in table["formats"]] == BOTH
    scores = json.loads((run / "per_view.json").read_text())["mean"]
    assert table["drawn"]["model"]["psnr"] == pytest.approx(scores["psnr"])
    for row in table["formats"]:
        size = Path(row["path"]).stat().st_size
        assert (row["size_bytes"], row["bits_per_splat"]) == (size, pytest.approx(8 * size / 30))
        assert row["psnr"] == pytest.approx(scores["psnr"], abs=1e-3) and row["lost"] == []
        assert row["ssim"] == pytest.approx(scores["ssim"], abs=1e-4)
        assert row["encode_secs"] >= 0 and row["decode_secs"] >= 0
    assert "held-out views (1), against the photographs" in told.err and f"{scores['psnr']:.2f}" in told.err


@pytest.fixture
def few_formats():
    """Native and PLY, one that is only written, one that refuses the model, one that is only read."""

    def write_mute(model, path, header):
        path.write_bytes(b"anything")

    def refuse(model, path, header):
        raise UserError("no room for splats")

    all_of_them, ply = dict(FORMATS), FORMATS["ply"]
    few = [
        *(FORMATS[name] for name in BOTH),
        replace(ply, name="mute", suffixes=(".mute",), write=write_mute, read=None, matches=lambda *_: False),
        replace(ply, name="odd", suffixes=(".odd",), write=refuse),
        replace(ply, name="in", suffixes=(".in",), write=None),
    ]
    FORMATS.clear()
    FORMATS.update({row.name: row for row in few})
    yield
    FORMATS.clear()
    FORMATS.update(all_of_them)  # its order counts


def test_all_writes_every_format_that_can_be_written(run, tmp_path, capsys, few_formats):
    table = table_of(["export", str(run), "-o", str(tmp_path), "--format", "all"], tmp_path / "t.json")
    rows = {row["format"]: row for row in table["formats"]}
    assert list(rows) == [*BOTH, "mute", "odd"]
    assert rows["mute"]["lost"] == ["only written"] and rows["mute"]["psnr"] is None
    assert rows["odd"]["lost"] == ["not written: no room for splats"] and rows["odd"]["path"] is None
    assert capsys.readouterr().out.split() == [str(tmp_path / f"run{end}") for end in (".safetensors", ".ply", ".mute")]
    assert main(["export", str(run), "-o", str(tmp_path), "--format", "ply,odd"]) == 2  # named: an error
    assert "no room" in capsys.readouterr().err


def test_every_format_is_drawn_in_its_place(run, tmp_path):
    """A wrong frame, order or activation on the way would cost far more than rounding does."""
    argv = ["export", str(run), "-o", str(tmp_path / "out"), "--format", "all", "--up", "y", "-q"]
    table = table_of(argv, tmp_path / "t.json")
    own = table["drawn"]["model"]["psnr"]
    rows = {row["format"]: row for row in table["formats"]}
    assert rows["ply"]["psnr"] == pytest.approx(own, abs=1e-3)
    read = [row for row in rows.values() if row["lost"] != ["only written"]]
    assert [row for row in read if row["psnr"] is None or row["psnr"] < own - 1.5 or row["splats"] != 30] == []
    assert {name for name, row in FORMATS.items() if row.read and row.write} <= {row["format"] for row in read}
    assert all(Path(row["path"]).exists() for row in rows.values())


def test_names_of_files(run, tmp_path, capsys):
    ply = tmp_path / "cloud.ply"
    assert main(["export", str(run), "-o", str(ply), "-q"]) == 0
    assert main(["export", str(ply), "--format", "native,ply", "-o", str(tmp_path / "two"), "-q"]) == 0
    assert main(["export", str(ply), "--format", "native", "-q"]) == 0
    assert main(["export", str(run), "-o", f"{tmp_path}/new/", "-q"]) == 0
    assert main(["export", str(run), "-q"]) == 0
    names = [Path(line) for line in capsys.readouterr().out.split()]
    two, beside = tmp_path / "two", tmp_path / "cloud.safetensors"
    assert names == [ply, two / "cloud.safetensors", two / "cloud.ply", beside, tmp_path / "new/run.ply",
                     run / "export.ply"]  # fmt: skip
    (run / "export.ply").unlink()
    assert main(["export", str(run), "--format", "native,ply", "-o", str(ply)]) == 2
    assert "several formats need a folder" in capsys.readouterr().err


def test_all_beside_a_file_leaves_its_own_format_alone(run, tmp_path, few_formats):
    native = tmp_path / "m.safetensors"
    shutil.copy(run / "model.safetensors", native)
    before = native.read_bytes()
    table = table_of(["export", str(native), "--format", "all", "-q", "--no-measure"], tmp_path / "t.json")
    assert native.read_bytes() == before
    assert [row["format"] for row in table["formats"]] == ["ply", "mute", "odd"]
    assert all(row["psnr"] is None for row in table["formats"]) and table["views"] == "" and table["drawn"] == {}


def test_options_shape_what_is_written_and_the_loss_is_told(run, tmp_path, capsys):
    argv = ["export", str(run), "-o", str(tmp_path / "m.ply"), "--max-splats", "12", "--sh-degree", "0", "--up", "-z"]
    table = table_of(argv, tmp_path / "t.json")
    err = capsys.readouterr().err
    assert "18 of 30 splats left out: they matter less than the best 12" in err
    loaded = read_model(tmp_path / "m.ply")
    assert (loaded.model.count, loaded.model.sh_degree, loaded.header["up_axis"]) == (12, 0, [0, 0, -1])
    drawn, (row,) = table["drawn"], table["formats"]
    assert drawn["model"]["psnr"] > drawn["selection"]["psnr"] + 0.1
    assert row["psnr"] == pytest.approx(drawn["selection"]["psnr"], abs=1e-3)
    assert len(table["left_out"]) == 2 and table["splats"] == 12 and run_model(run, print).model.count == 30


def test_the_capture_says_which_splats_matter(run, tmp_path):
    """Large and opaque behind every camera: without views these would be kept first."""
    source = tmp_path / "run"
    shutil.copytree(run, source)
    loaded = read_model(run)
    loaded.model.rows["means"][:10] = torch.tensor([0.0, 0, -90])
    loaded.model.rows["log_scales"][:10] = 1.0
    loaded.model.rows["logit_opacities"][:10] = 9.0
    write_model(loaded.model, source / "model.safetensors", header=loaded.header)
    shutil.rmtree(source / "checkpoints")
    for flags, unseen in (([], 0), (["--scene", str(run.parent / "tiny")], 0)):
        argv = ["export", str(source), "-o", str(tmp_path / "m.safetensors"), "--max-splats", "20", "-q", *flags]
        assert main(argv) == 0
        assert (read_model(tmp_path / "m.safetensors").model.rows["means"][:, 2] < -80).sum() == unseen
    alone = tmp_path / "alone" / "m.safetensors"
    alone.parent.mkdir()
    shutil.copy(source / "model.safetensors", alone)
    assert main(["export", str(alone), "-o", str(tmp_path / "n.safetensors"), "--max-splats", "20", "-q"]) == 0
    assert (read_model(tmp_path / "n.safetensors").model.rows["means"][:, 2] < -80).sum() == 10


def test_the_box_is_in_the_frame_the_files_have(run, tmp_path, capsys):
    assert main(["export", str(run), "-o", str(tmp_path / "m.ply"), "-q"]) == 0
    means = read_model(tmp_path / "m.ply").model.rows["means"].numpy()
    x, y, _ = np.median(means, axis=0)
    for source in (str(run), str(tmp_path / "m.ply")):
        argv = ["export", source, "-o", str(tmp_path / "c.ply"), "-q", "--crop", f"-99,-99,-99,{x},{y},99"]
        assert main(argv) == 0
        kept = read_model(tmp_path / "c.ply").model.rows["means"].numpy()
        assert np.allclose(kept, means[(means[:, :2] <= (x, y)).all(1)], atol=1e-6) and 0 < len(kept) < 30
    assert main(["export", str(run), "--crop", "90,90,90,91,91,91", "-o", str(tmp_path / "no.ply")]) == 2
    assert "no splat would be left" in capsys.readouterr().err and not (tmp_path / "no.ply").exists()


@pytest.mark.parametrize(("flags", "reason"), [
    (["--up", "north"], "choices: x, -x"), (["--crop", "1,2"], "six numbers"), (["--sh-degree", "4"], "0 to 3"),
    (["--min-opacity", "2"], "0 to 1"), (["--max-splats", "0"], "1 at least"), (["--format", ","], "choices"),
])  # fmt: skip
def test_wrong_values_are_one_line_and_nothing_is_read(tmp_path, capsys, flags, reason):
    assert main(["export", str(tmp_path / "nothing"), *flags]) == 2
    err = capsys.readouterr().err
    assert reason in err and len(err.splitlines()) == 1


def test_values_may_begin_with_a_dash():
    argv = ["a", "--up", "-y", "--crop", "-1,2", "--up", "--quiet", "-q"]
    assert with_values_joined(argv) == ["a", "--up=-y", "--crop=-1,2", "--up", "--quiet", "-q"]


def test_a_stopped_run_exports_into_the_frame_of_its_capture(run, tmp_path):
    stopped = tmp_path / "stopped"
    shutil.copytree(run, stopped)
    (stopped / "model.safetensors").unlink()
    for source, name in ((run, "a.ply"), (stopped, "b.ply")):
        assert main(["export", str(source), "-o", str(tmp_path / name), "-q", "--up", "z"]) == 0
    ours, theirs = (read_model(tmp_path / name) for name in ("a.ply", "b.ply"))
    assert torch.allclose(ours.model.rows["means"], theirs.model.rows["means"], atol=1e-6)
    assert ours.header["up_axis"] == theirs.header["up_axis"] == [0, 0, 1]


def test_a_run_that_cannot_be_opened_is_exported_all_the_same(run, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / "config.toml").write_text("nonsense = 3\n")
    assert main(["export", str(broken / "model.safetensors"), "-o", str(tmp_path / "m.ply")]) == 0
    assert "warning: what was lost was not measured" in capsys.readouterr().err
    assert read_model(tmp_path / "m.ply").model.count == 30


def test_a_training_writes_the_formats_it_was_asked_for(tiny_scene, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", str(tiny_scene), "-o", str(run), *SHORT, "--export", "ply,compressed-ply"]) == 0
    err = capsys.readouterr().err
    assert f"wrote {run / 'export.compressed.ply'}" in err and "bits/splat" in err
    assert read_model(run / "export.compressed.ply").model.count == 30
    assert not (run / "export.ply").exists() and (run / "point_cloud" / "iteration_12" / "point_cloud.ply").exists()


def test_formats_nobody_knows_are_told_before_the_training(tiny_scene, tmp_path, capsys):
    assert main(["train", str(tiny_scene), "-o", str(tmp_path / "run"), *SHORT, "--export", "ply,sog9"]) == 2
    assert "sog9" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_an_empty_model_is_written_and_told(tmp_path):
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "io"))
    from gaussians import random_model

    write_model(random_model(0), tmp_path / "none.ply")
    table = table_of(["export", str(tmp_path / "none.ply"), "-o", str(tmp_path / "n.safetensors"), "-q"],
                     tmp_path / "t.json")  # fmt: skip
    (row,) = table["formats"]
    assert row["bits_per_splat"] is None and row["psnr"] is None and row["splats"] == 0
    assert not any(isinstance(value, float) and math.isnan(value) for value in row.values())


def test_scale_and_up_from_the_viewer_go_into_files_unless_told_otherwise(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    placed = Placement(up=(0.0, 0.0, 1.0), scale=4.0, why="0.5 of the capture are 2")
    write_placement(copy / "placement.json", placed)
    for name, flags in (("a", []), ("b", ["--as-captured"])):
        assert main(["export", str(copy), "-o", str(tmp_path / f"{name}.ply"), "--no-measure", *flags]) == 0
        told = "scale 4 (0.5 of the capture are 2) and up (0.000, 0.000, 1.000), as set in the viewer"
        assert (told in capsys.readouterr().err) == (not flags)
    grown, plain = (read_model(tmp_path / f"{name}.ply").model.rows["means"] for name in "ab")
    torch.testing.assert_close(grown, plain * 4, rtol=1e-4, atol=1e-5)
    assert read_model(tmp_path / "a.ply").header["up_axis"] == [0, 0, 1]
    assert main(["export", str(copy / "model.safetensors"), "-o", str(tmp_path / "c.ply"), "--no-measure"]) == 0
    torch.testing.assert_close(read_model(tmp_path / "c.ply").model.rows["means"], plain)  # a file, not the run
