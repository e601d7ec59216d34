"""``splat edit --edit-prior``, end to end on a small file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from splat.cli.main import main
from splat.edit.json_ops import op_to_json
from splat.edit.ops import Drag, Handle, Select
from splat.edit.shapes import AttributeRange
from splat.io.formats import read_model, write_model

sys.path.insert(0, str(Path(__file__).parents[1] / "edit"))
from prior_worlds import lift, right_end, slab

RIGHT = Select(AttributeRange("x", 0.3, 9.0))


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "slab.safetensors"
    write_model(slab(300), path, header={})
    return path


def argv(source: Path, drag: Drag, *more: str) -> list[str]:
    listed = [part for op in (RIGHT, drag) for part in ("--op", json.dumps(op_to_json(op)))]
    return ["edit", str(source), *listed, *more]


def test_geometry_alone_refines_a_drag(source: Path, tmp_path: Path, capsys) -> None:
    model = slab(300)
    drag, out = lift(model), tmp_path / "out.safetensors"
    assert main(argv(source, drag, "--edit-prior", "none", "--prior-steps", "5", "-o", str(out))) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [str(out)] and "drag, step 5 of 5: energy" in told.err
    before, after = (read_model(path).model.rows["means"] for path in (source, out))
    handle: Handle = drag.handles[0]
    row = int((before - torch.tensor(handle.at)).norm(dim=1).argmin())
    torch.testing.assert_close(after[row], torch.tensor(handle.to), rtol=0, atol=2e-3)
    moved = (after != before).any(1)
    assert bool(moved[right_end(model)].float().mean() > 0.9) and not bool(moved[before[:, 0] < -0.5].any())


def test_missing_weights_are_one_line(source: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out.safetensors"
    more = ("--edit-prior", "sds-inpaint", "--edit-prior-path", str(tmp_path), "-o", str(out))
    assert main(argv(source, lift(slab(300)), *more)) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("splat: error: ") and "lacks unet/diffusion_pytorch_model.safetensors or" in told
    assert not out.exists()
