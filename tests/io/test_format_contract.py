"""What every format keeps to, whoever wrote it: one test per promise, over every row of the table."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from gaussians import model_of, random_model, shared_file

from splat.errors import UserError
from splat.io.formats import FORMATS, Format, read_model, write_model
from splat.model.primitives import PRIMITIVES
from splat.model.splat_model import SplatModel

WRITERS = [name for name, row in FORMATS.items() if row.write is not None]
READERS = {row.matches: name for name, row in FORMATS.items() if row.read is not None}
BOTH = [name for name in WRITERS if FORMATS[name].matches in READERS]
"""What can be written and read back, by its own row or by that of the same family."""
FAMILY = {name: READERS[FORMATS[name].matches] for name in BOTH}
SUFFIXES = {name: (row.suffixes or FORMATS[FAMILY[name]].suffixes)[0] for name, row in FORMATS.items() if name in BOTH}
SH0_ONLY = {"splat"}
IN_FLOATS = {"glb", "splat"}
"""Hold activated values in float32, which differ in the last bits when they are taken back and forth."""
NO_MAGIC = {"splat"}
"""Known by their names alone: there is nothing in them to tell them by."""
FOLDERS = {name for name, row in FORMATS.items() if any(not suffix.startswith(".") for suffix in row.suffixes)}


def place(folder: Path, name: str, stem: str = "m") -> Path:
    """Where a file of a format goes; formats that are a folder get one of their own."""
    suffix = SUFFIXES.get(name) or FORMATS[name].suffixes[0]
    return folder / f"{stem}{suffix}" if suffix.startswith(".") else folder / stem / suffix


def written(model: SplatModel, folder: Path, name: str, stem: str = "m") -> Path:
    path = place(folder, name, stem)
    write_model(model, path, format=name)
    return path


def contents(path: Path) -> dict[str, bytes]:
    """The file, or those beside a ``meta.json``."""
    if path.name == "meta.json":
        return {file.name: file.read_bytes() for file in path.parent.iterdir()}
    return {"": path.read_bytes()}


def test_every_row_is_told_from_the_others():
    assert set(FORMATS) == {row.name for row in FORMATS.values()}
    suffixes = [suffix for row in FORMATS.values() for suffix in row.suffixes]
    assert len(suffixes) == len(set(suffixes))
    assert all(row.read is not None or row.write is not None for row in FORMATS.values())


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_model_gives_the_same_bytes(tmp_path, name):
    model = random_model(300)
    before = {field: table.clone() for field, table in model.rows.items()}
    (tmp_path / "again").mkdir()
    assert contents(written(model, tmp_path, name)) == contents(written(model, tmp_path / "again", name))
    assert all(torch.equal(model.rows[field], table) for field, table in before.items())


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("count", [1, 300])
def test_writing_what_was_read_gives_the_same_bytes(tmp_path, name, count):
    first = read_model(written(random_model(count), tmp_path, name, "a")).model
    second = written(first, tmp_path, name, "b")
    last = read_model(second).model
    third = written(last, tmp_path, name, "c")
    if name in IN_FLOATS:  # logarithms and back: as near as float32 comes
        for field, table in first.rows.items():
            torch.testing.assert_close(last.rows[field], table, rtol=2e-6, atol=2e-6)
    else:
        assert contents(second) == contents(third)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
def test_every_sh_degree_comes_back(tmp_path, name, sh_degree):
    model = random_model(60, sh_degree=sh_degree)
    back = read_model(written(model, tmp_path, name)).model
    assert (back.count, back.sh_degree) == (60, 0 if name in SH0_ONLY else sh_degree)
    rows, ours = nearest_rows(back, model), back.rows["sh_rest"]
    assert (back.rows["means"] - model.rows["means"][rows]).abs().max() < 0.02
    assert (back.opacities - model.opacities[rows]).abs().max() < 0.02
    if back.sh_degree:
        wanted = model.rows["sh_rest"][rows]
        assert (ours - wanted).square().mean().sqrt() < 0.5 * wanted.square().mean().sqrt()
        # A mixed-up order of channels or coefficients is nowhere near.
        assert torch.corrcoef(torch.stack([ours.flatten(), wanted.flatten()]))[0, 1] > 0.85


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("count", [0, 1])
def test_few_splats_and_none(tmp_path, name, count):
    try:
        path = written(random_model(count), tmp_path, name)
    except UserError as error:
        assert count == 0 and "\n" not in str(error) and not place(tmp_path, name).exists()
    else:
        assert read_model(path).model.count == count


@pytest.mark.parametrize("name", [name for name in BOTH if name != "native"])  # that keeps rows as they are
@pytest.mark.parametrize("field", ["means", "quats", "log_scales", "logit_opacities", "sh0", "sh_rest"])
def test_rows_that_are_not_finite_are_left_out(tmp_path, name, field):
    model = random_model(30)
    model.rows[field].view(30, -1)[7, -1] = torch.nan
    back = read_model(written(model, tmp_path, name)).model
    assert back.count == 29 or (field == "sh_rest" and name in SH0_ONLY)
    assert all(table.isfinite().all() for table in back.rows.values())


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("kind", sorted(PRIMITIVES))
def test_every_primitive_converts(tmp_path, name, kind):
    model = model_of(kind, 30)
    path = place(tmp_path, name)
    lossless = write_model(model, path, format=name).fidelity == "exact"
    back = read_model(path).model
    assert back.count == 30 and back.primitive.kind == (kind if FORMATS[name].frame == "training" else "gaussian")
    assert lossless == (
        FORMATS[name].fidelity == "exact"
        and ("exact" in (model.primitive.export,) or FORMATS[name].frame == "training")
    )


@pytest.mark.parametrize("name", [name for name in WRITERS if name not in FOLDERS])
def test_a_writer_that_dies_leaves_what_was_there(tmp_path, name, monkeypatch):
    path = written(random_model(3), tmp_path, name)
    before, names = path.read_bytes(), set(tmp_path.iterdir())

    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        written(random_model(4), tmp_path, name)
    assert path.read_bytes() == before and set(tmp_path.iterdir()) == names
    with pytest.raises(KeyboardInterrupt):
        written(random_model(4), tmp_path, name, "other")
    assert set(tmp_path.iterdir()) == names


@pytest.mark.parametrize("name", BOTH)
def test_what_a_killed_writer_leaves_is_no_model(tmp_path, name, monkeypatch):
    """Killed before its last step, with no chance to clean up: nothing stands under the name that was asked for."""
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr("splat.io.atomic._unlink_quietly", lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        written(random_model(3), tmp_path, name)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left and all(path.name.startswith(".") and ".partial" in path.name for path in left)
    with pytest.raises(UserError):
        read_model(place(tmp_path, name))


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_a_folder_half_written_is_no_model(tmp_path, name, monkeypatch):
    """Its files cannot appear at once, so what explains them goes first and comes last."""
    path = written(random_model(3), tmp_path, name)
    replace, left = os.replace, [2]

    def dies(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        replace(*arguments)

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        written(random_model(4), tmp_path, name)
    with pytest.raises(UserError):
        read_model(path)


@pytest.mark.parametrize("name", BOTH)
def test_a_file_cut_anywhere_is_an_error(tmp_path, name):
    path = written(random_model(12), tmp_path, name)
    whole = path.read_bytes()
    for length in sorted({0, 1, 8, 40, *np.linspace(0, len(whole) - 1, 20, dtype=int).tolist()}):
        if name in NO_MAGIC and length and length % 32 == 0:
            continue  # whole rows of a format that does not say how many it has
        path.write_bytes(whole[:length])
        with pytest.raises(UserError) as caught:
            read_model(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("name", [name for name in BOTH if name not in NO_MAGIC | FOLDERS])
def test_content_counts_before_the_name(tmp_path, name):
    path = written(random_model(3), tmp_path, name)
    expected = read_model(path)
    for suffix in (".bin", *{suffix for row in FORMATS.values() for suffix in row.suffixes if suffix[0] == "."}):
        other = tmp_path / f"wrong{suffix}"
        other.write_bytes(path.read_bytes())
        assert read_model(other).header["format"] == expected.header["format"], suffix


@pytest.mark.parametrize("name", BOTH)
def test_the_capture_frame_is_where_files_for_others_are(tmp_path, name):
    shift = np.eye(4)
    shift[:3, 3] = (3, -2, 1)
    model, path = random_model(40), place(tmp_path, name)
    write_model(model, path, format=name, input_from_world=shift)
    means = read_model(path).model.rows["means"].mean(dim=0) - model.rows["means"].mean(dim=0)
    expected = torch.tensor([3.0, -2.0, 1.0]) * (FORMATS[name].frame == "capture")
    assert (means - expected).abs().max() < 0.02


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_cannot_be_written_to_is_a_user_error(tmp_path, name):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be written"):
        written(random_model(2), tmp_path / "file", name)


def test_every_shared_file_of_a_known_suffix_loads():
    folder, known = shared_file("splats/converted"), []
    for row in FORMATS.values():
        if row.read is not None:
            known += [(row, path) for suffix in row.suffixes for path in folder.glob(f"*{suffix}")]
    assert known
    for row, path in known:
        if not (row.name == "ply" and path.name.endswith(".compressed.ply")):
            assert read_counted(row, path) == 31_000, path.name


def read_counted(row: Format, path) -> int:
    assert row.read is not None
    model, header = row.read(path)
    assert header["warnings"] == []
    return model.count


def nearest_rows(back: SplatModel, model: SplatModel) -> torch.Tensor:
    return torch.cdist(back.rows["means"].double(), model.rows["means"].double()).argmin(dim=1)
