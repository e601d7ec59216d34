"""The export panel in a browser: files that read back, what they hold, and nothing outside the run folder."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import serving
import torch
from hands import choose, press, tab, type_into

from splat.edit.ops import Mark, Select
from splat.edit.shapes import AttributeRange
from splat.errors import UserError
from splat.geometry.rotations import matrix_from_quat
from splat.io.formats import FORMATS, read_model, sniff
from splat.io.placement import Placement, placed_header
from splat.io.selection import Selection
from splat.model.labels import HIDDEN
from splat.viewer.output.exports import download_of, export_path, exported_model, formats, size_text, write_export
from splat.viewer.serving import jobs

TURN = matrix_from_quat(torch.tensor([0.9, 0.1, -0.3, 0.2], dtype=torch.float64)).numpy()
WORLD_FROM_INPUT = np.block([[2 * TURN, np.array([[1.0], [2.0], [3.0]])], [np.zeros((1, 3)), np.ones((1, 1))]])


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    header = {"world_from_input": WORLD_FROM_INPUT.tolist()}
    with serving.serve(serving.ball(300), run_dir=tmp_path_factory.mktemp("ball"), header=header) as found:
        yield found


@pytest.fixture
def panel(page):
    tab(page, "Export")
    page.get_by_role("button", name="Write the file").wait_for()
    return page


def test_a_file_is_written_shown_downloaded_and_reads_back(panel, served):
    folder, model = served.desk.run_dir / "exports", served.desk.snapshot.model
    type_into(panel, "Name", "mine")
    press(panel, "Write the file")
    panel.get_by_role("button", name="Download the last file").wait_for()
    panel.get_by_text(f"ply, {size_text((folder / 'mine.ply').stat().st_size)}").wait_for()
    with panel.expect_download() as got:
        press(panel, "Download the last file")
    assert got.value.suggested_filename == "mine.ply"
    assert Path(got.value.path()).read_bytes() == (folder / "mine.ply").read_bytes()
    back = read_model(folder / "mine.ply").model
    placed = back.rows["means"].double().numpy() @ WORLD_FROM_INPUT[:3, :3].T + WORLD_FROM_INPUT[:3, 3]
    np.testing.assert_allclose(
        placed, model.rows["means"].double().numpy(), atol=1e-4
    )  # it lies in the capture's frame


def test_every_format_and_the_web_page(panel, served):
    folder = served.desk.run_dir / "exports"
    for number, name in enumerate(["sog", "native", "sog-folder"]):
        choose(panel, "Format", name)
        type_into(panel, "Name", f"f{number}")
        press(panel, "Write the file")
        panel.get_by_text(f"{name}, ").wait_for()
    press(panel, "Publish as a web page")
    panel.get_by_text("html, ").wait_for()
    assert (folder / "f2.html").read_bytes().lower().startswith(b"<!doctype html")
    files = (folder / "f0.sog", folder / "f1.safetensors", folder / "f2-sog-folder" / "meta.json")
    assert [sniff(file).name for file in files] == ["sog", "native", "sog-folder"]
    assert np.allclose(read_model(folder / "f1.safetensors").header["world_from_input"], WORLD_FROM_INPUT)


def test_names_cannot_lead_out_of_the_run(panel, served):
    before = {path for path in served.desk.run_dir.parent.rglob("*")}
    for name in ("../outside", "/etc/outside", ".hidden", "a/b"):
        type_into(panel, "Name", name)
        press(panel, "Write the file")
        panel.get_by_text(f"a file cannot be called '{name}'").first.wait_for()
    assert {path for path in served.desk.run_dir.parent.rglob("*")} == before


def test_a_refusal_that_comes_at_once_leaves_nothing_that_waits(panel, monkeypatch):
    class AtOnce(threading.Thread):
        """Over before its start returns."""

        def start(self) -> None:
            super().start()
            self.join()

    monkeypatch.setattr(jobs, "threading", SimpleNamespace(Thread=AtOnce, Event=threading.Event))
    type_into(panel, "Name", "../elsewhere")
    press(panel, "Write the file")
    panel.get_by_text("a file cannot be called").first.wait_for()
    panel.get_by_text("nothing was written").wait_for()
    assert panel.get_by_text("writing ply ...").count() == 0 and panel.get_by_role("progressbar").count() == 0


def test_the_list_of_edits_is_saved(panel, served):
    served.desk.submit(Select(AttributeRange("x", 0.0, 9.0))).result(serving.PATIENCE_SECS)
    served.desk.submit(Mark("hide")).result(serving.PATIENCE_SECS)
    with panel.expect_download() as got:
        press(panel, "Save the list of edits")
    log = json.loads(Path(got.value.path()).read_text())
    assert log["format"] == "splat-edits" and [op["kind"] for op in log["ops"]][-2:] == ["select", "mark"]
    shown = int(((served.host.snapshot().labels.flags & HIDDEN) == 0).sum())
    assert 0 < shown < 300
    choose(panel, "Splats", "without hidden ones")
    type_into(panel, "Name", "shown")
    press(panel, "Write the file")
    panel.get_by_text(f"{300 - shown} of 300 splats left out").wait_for()
    assert read_model(served.desk.run_dir / "exports" / "shown.ply").model.count == shown


# --- without a browser -----------------------------------------------------------------------------------------------


def snapshot():
    from splat.viewer.serving.standing import StandingHost

    return StandingHost(serving.ball(50)).snapshot()


@pytest.mark.parametrize("name", list(formats()))
def test_every_format_is_written(name, tmp_path):
    model, told = exported_model(snapshot(), "all")
    done = write_export(model, export_path(tmp_path, "model", name), name, {})
    assert told == [] and done.splats == 50 and done.size_bytes > 300
    if FORMATS[name].read is not None:
        assert read_model(done.path).model.count == 50
    file, content = download_of(done)
    assert len(content) > 300
    if name == "sog-folder":
        assert file.endswith(".zip") and "meta.json" in zipfile.ZipFile(io.BytesIO(content)).namelist()


def test_what_goes_into_a_file():
    from dataclasses import replace

    some = snapshot()
    flags = some.labels.flags.clone()
    flags[:20], flags[20:30] = 2, 1
    some = replace(some, labels=replace(some.labels, flags=flags))
    assert [exported_model(some, which)[0].count for which in ("all", "shown", "selection")] == [50, 30, 10]
    model, told = exported_model(some, "selection", Selection(sh_degree=0))
    assert model.sh_degree == 0 and len(told) == 2
    assert some.model.count == 50 and some.model.sh_degree == 1
    with pytest.raises(UserError, match="no splat would be in the file"):
        exported_model(snapshot(), "selection")


def test_scale_and_up_go_into_the_header(tmp_path):
    header = {"world_from_input": WORLD_FROM_INPUT.tolist(), "start_view": {
        "position": [0, 0, -3], "target": [0, 0, 0], "up": [0, -1, 0], "fov": 50.0}}  # fmt: skip
    placement = Placement(up=(0.0, 0.0, 1.0), scale=4.0)
    some = snapshot()
    plain = write_export(some.model, tmp_path / "a.ply", "ply", placed_header(header, Placement()))
    placed = write_export(some.model, tmp_path / "b.ply", "ply", placed_header(header, placement))
    turned = write_export(some.model, tmp_path / "c.ply", "ply", placed_header(header, placement, "y"))
    a, b, c = (read_model(done.path).model for done in (plain, placed, turned))
    np.testing.assert_allclose(b.rows["means"].numpy(), 4 * a.rows["means"].numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(c.rows["means"][:, 1].numpy(), b.rows["means"][:, 2].numpy(), rtol=1e-3, atol=1e-4)
    assert placed_header(header, placement)["start_view"]["position"] == [0, 0, -12]
    assert placed_header(header, Placement()) == header


def test_a_link_in_the_folder_leads_nowhere(tmp_path):
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "x-sog-folder").symlink_to("/tmp")
    with pytest.raises(UserError, match="leads out of"):
        export_path(tmp_path / "exports", "x", "sog-folder")
