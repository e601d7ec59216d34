"""LightningDrag's layout with tiny random networks: what it knows of a view, and that points and reference count."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from prior_worlds import cameras, lift, right_end, save_lightning, slab

pytest.importorskip("diffusers", reason="the extra 'diffusion' is not installed")
pytest.importorskip("transformers", reason="the extra 'diffusion' is not installed")
pytest.importorskip("peft", reason="the extra 'diffusion' is not installed")

from splat.edit.prior.lightning import LightningDrag, LightningGuidance, point_map
from splat.edit.prior.lightning_nets import attending_blocks
from splat.edit.prior.protocol import EditView
from splat.edit.prior.refine import RefineSettings, refine_drag
from splat.errors import UserError
from splat.render.native_rasterizer import NativeRasterizer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
POINTS = torch.tensor([[20.0, 30.0], [40.0, 12.0]])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lightning(tmp_path_factory.mktemp("lightning"))


def view(number: int, by: float = 9.0) -> EditView:
    generator = torch.Generator().manual_seed(number)
    mask = torch.zeros(64, 64)
    mask[16:48, 16:48] = 1
    return EditView(cameras(1)[0], torch.rand(3, 64, 64, generator=generator), mask, POINTS, POINTS + by)


def guidance(weights: Path, views: list[EditView], rank: int = 0) -> LightningGuidance:
    nowhere = torch.zeros(2, 3)
    prior = LightningDrag(source_rank=rank)
    return prior.prepare(views, nowhere, nowhere, folder=weights, device=torch.device("cpu"), seed=0)


def noise(judge: LightningGuidance, which: int = 0, progress: float = 0.5) -> torch.Tensor:
    z_t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(8))
    with torch.no_grad():
        return judge.prior_noise(z_t, [which], 500, progress)


def test_a_map_of_points_has_their_numbers() -> None:
    shown = point_map(view(0), "handles")[0, 0]
    assert shown[30, 20] == 1 and shown[12, 40] == 2 and int((shown > 0).sum()) == 2
    moved = point_map(view(0), "targets")[0, 0]
    assert moved[39, 29] == 1 and moved[21, 49] == 2


def test_points_beside_the_picture_are_left_out() -> None:
    away = point_map(view(0, by=30.0), "handles")[0, 0]  # the second target is beside the picture
    assert away[30, 20] == 1 and int((away > 0).sum()) == 1
    far = EditView(cameras(1)[0], torch.zeros(3, 64, 64), torch.ones(64, 64), POINTS * torch.nan, POINTS)
    assert not bool(point_map(far, "handles").any())


def test_where_points_go_changes_the_answer(weights: Path) -> None:
    judge = guidance(weights, [view(0), view(0, by=-5.0), view(0, by=1000.0)])
    here, there, nowhere = (noise(judge, which) for which in range(3))
    assert not torch.allclose(here, there, atol=1e-6) and not torch.allclose(here, nowhere, atol=1e-6)


def test_the_reference_changes_the_answer(weights: Path) -> None:
    judge = guidance(weights, [view(0), view(1)])
    known = judge._known[1]
    judge._known[1] = judge._known[0] | {"memory": known["memory"]}
    judge.masks[1], judge.unmasked[1] = judge.masks[0], judge.unmasked[0]
    assert not torch.allclose(noise(judge, 0), noise(judge, 1), atol=1e-6)
    judge._known[1] = judge._known[0] | {"image": known["image"]}  # and so does the image prompt
    assert not torch.allclose(noise(judge, 0), noise(judge, 1), atol=1e-7)


def test_guidance_by_points_falls_to_the_plain_answer(weights: Path) -> None:
    """At the end the factor is 1: the answer that knows the points, as it is."""
    judge = guidance(weights, [view(0)])
    first, last, middle = (noise(judge, progress=progress) for progress in (0.0, 1.0, 0.5))
    plain = (4 * last - first) / 3  # first = plain + 4 (aware - plain), last = aware
    torch.testing.assert_close(middle, plain + 1.75 * (last - plain), rtol=1e-4, atol=1e-5)


def test_the_reference_is_forgotten_between_answers(weights: Path) -> None:
    judge = guidance(weights, [view(0)])
    z_t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(8))
    with torch.no_grad():
        before = judge.predicted(z_t, [0], 500, judge.texts[0])
        noise(judge)
        assert torch.equal(before, judge.predicted(z_t, [0], 500, judge.texts[0]))


def test_blocks_and_the_sizes_they_attend_at(weights: Path) -> None:
    judge = guidance(weights, [view(0)])
    levels = attending_blocks(judge.networks.unet)
    assert len(levels) == 4  # one down, one in the middle, two up
    assert {name.split(".")[0]: level for name, level in levels.items()} == {
        "down_blocks": 0, "mid_block": 1, "up_blocks": 0,
    }  # fmt: skip


def test_a_drag_runs_and_learns(weights: Path) -> None:
    model, seen = slab(), []
    tiny = RefineSettings(steps=3, batch=2, views=2, longest_px=64, resolutions=(4, 8), channels=2, nodes=40)
    edit = refine_drag(
        model, right_end(model), lift(model), cameras(), LightningDrag(source_rank=2), NativeRasterizer(),
        settings=tiny, folder=weights, progress=lambda number, total, figures: seen.append(figures),
    )  # fmt: skip
    assert all(figures["source"] > 0 for figures in seen) and seen[-1]["t"] == pytest.approx(0.02)
    rows, colours = edit.values["sh0"]
    assert float((colours - model.rows["sh0"][rows]).abs().max()) > 1e-4


def test_an_appearance_encoder_of_another_shape_is_refused(weights: Path, tmp_path: Path) -> None:
    import shutil

    from splat.edit.prior.lightning import DRAG
    from splat.io.tensors import load_tensors, save_tensors

    shutil.copytree(weights, tmp_path / "cut")
    path = tmp_path / "cut" / DRAG / "appearance_encoder" / "diffusion_pytorch_model.safetensors"
    tensors, _ = load_tensors(path)
    save_tensors(path, {name: table for name, table in tensors.items() if "mid_block" not in name}, {})
    with pytest.raises(UserError, match=r"appearance encoder does not fit: mid_block"):
        guidance(tmp_path / "cut", [view(0)])
