"""The refinement of a drag without weights: handles arrive, anchors stay, the rest keeps its bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from prior_worlds import cameras, lift, right_end, slab
from torch import Tensor

from splat.edit.drag.drag import drag_values
from splat.edit.ops import Drag, Handle
from splat.edit.prior.none import NoPrior
from splat.edit.prior.protocol import EditView
from splat.edit.prior.refine import RefineSettings, refine_drag, refined_values
from splat.edit.prior.regions import split_regions
from splat.errors import UserError
from splat.model.primitives import PRIMITIVES
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel
from splat.render.native_rasterizer import NativeRasterizer

QUICK = RefineSettings(steps=20, nodes=50)
SMALL = RefineSettings(steps=6, batch=2, views=3, longest_px=64, nodes=40, resolutions=(4, 8), channels=2)


def after(model: SplatModel, edit: RowEdit) -> SplatModel:
    moved = model.detached()
    moved.apply(edit)
    return moved


def nearest(model: SplatModel, at: Sequence[float]) -> int:
    mask = right_end(model)
    distances = (model.rows["means"] - torch.tensor(at)).norm(dim=1)
    return int(torch.where(mask, distances, torch.inf).argmin())


@pytest.mark.parametrize("kind", sorted(PRIMITIVES))
def test_the_handle_arrives_and_the_rest_keeps_its_bits(kind: str) -> None:
    model = slab(primitive=PRIMITIVES[kind]())
    mask, drag = right_end(model), lift(model)
    edit = refine_drag(model, mask, drag, [], NoPrior(), NativeRasterizer(), settings=QUICK)
    moved, handle = after(model, edit), drag.handles[0]
    row = nearest(model, handle.at)
    offset = moved.rows["means"][row] - model.rows["means"][row]
    wanted = torch.tensor(handle.to) - torch.tensor(handle.at)
    torch.testing.assert_close(offset, wanted, rtol=1e-4, atol=1e-4)
    allowed = torch.zeros_like(mask)
    allowed[edit.values["means"][0]] = True
    assert bool(allowed[mask].all())
    for name, table in model.rows.items():
        assert torch.equal(moved.rows[name][~allowed], table[~allowed]), name
        assert bool(torch.isfinite(moved.rows[name]).all()), name
    for name in ("sh0", "logit_opacities"):  # nothing looked at the picture
        assert torch.equal(moved.rows[name], model.rows[name])


def test_shell_and_mask_are_what_changes() -> None:
    model = slab()
    mask = right_end(model)
    for band, also in ((0.0, None), (1.0, drag_values(model, mask, lift(model, band=1.0))[0])):
        edit = refine_drag(model, mask, lift(model, band=band), [], NoPrior(), NativeRasterizer(), settings=QUICK)
        assert torch.equal(edit.values["means"][0], split_regions(model.rows["means"], mask, also=also).rows)


def test_an_anchor_stays() -> None:
    model = slab()
    at = tuple(model.rows["means"][nearest(model, (0.4, 0.0, 0.0))].tolist())
    drag = Drag((Handle((0.95, 0.0, 0.0), (0.95, 0.3, 0.0)),), (Handle(at, at),))
    moved = after(model, refine_drag(model, right_end(model), drag, [], NoPrior(), NativeRasterizer(), settings=QUICK))
    row = nearest(model, at)
    torch.testing.assert_close(moved.rows["means"][row], model.rows["means"][row], rtol=0, atol=1e-4)


def test_the_energy_falls() -> None:
    model, energies = slab(), []
    refine_drag(
        model, right_end(model), lift(model), [], NoPrior(), NativeRasterizer(),
        settings=replace(QUICK, steps=40, shell_weight=0.0),
        progress=lambda number, total, figures: energies.append(figures["energy"]),
    )  # fmt: skip
    assert len(energies) == 40 and energies[-1] <= energies[0]


@pytest.mark.parametrize("field", ["off", "on"])
def test_the_same_bits_for_the_same_arguments(field: str) -> None:
    model = slab(200)
    settings = replace(QUICK, steps=8, field=field, resolutions=(4, 8), channels=2)
    runs = [
        refine_drag(model, right_end(model), lift(model), [], NoPrior(), NativeRasterizer(), settings=settings, seed=3)
        for _ in range(2)
    ]
    assert runs[0].values.keys() == runs[1].values.keys()
    for name, (rows, new) in runs[0].values.items():
        assert torch.equal(rows, runs[1].values[name][0]) and torch.equal(new, runs[1].values[name][1])


def test_arguments_are_left_alone() -> None:
    model = slab(200).requires_grad_()
    kept, state = model.detached(), torch.random.get_rng_state()
    refine_drag(model, right_end(model), lift(model), [], NoPrior(), NativeRasterizer(),
                settings=replace(QUICK, steps=3, field="on", resolutions=(4,), channels=2))  # fmt: skip
    assert all(torch.equal(model.rows[name], table) for name, table in kept.rows.items())
    assert all(table.grad is None for table in model.rows.values())
    assert torch.equal(torch.random.get_rng_state(), state)


# --- a prior without networks ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Redder:
    """Wants what may change in red: says what it is asked, and pulls colours."""

    kind: ClassVar[str] = "redder"
    purpose: ClassVar[str] = "for tests"
    looks: ClassVar[bool] = True

    def needs(self) -> tuple[()]:
        return ()

    def prepare(self, views: Sequence[EditView], handles: Tensor, targets: Tensor, **ready: object) -> RedGuidance:
        return RedGuidance(list(views), [])


@dataclass(eq=False)
class RedGuidance:
    views: list[EditView]
    asked: list[tuple[list[int], float]]

    def loss(self, render: Tensor, view_ids: Sequence[int], progress: float) -> tuple[Tensor, Mapping[str, float]]:
        self.asked.append((list(view_ids), progress))
        masks = torch.stack([self.views[i].mask for i in view_ids])
        wanted = render.new_tensor([1.0, 0, 0])[None, :, None, None]
        loss = ((render - wanted).square() * masks[:, None]).sum()
        return loss, {"red": float(loss.detach())}


def test_a_prior_that_looks_changes_colours_in_the_second_stage_only() -> None:
    model, guides, seen = slab(), [], []
    mask, drag = right_end(model), lift(model)

    @dataclass(frozen=True)
    class Spied(Redder):
        def prepare(self, *args: object, **ready: object) -> RedGuidance:
            guides.append(super().prepare(*args, **ready))
            return guides[-1]

    edit = refine_drag(
        model, mask, drag, cameras(), Spied(), NativeRasterizer(), settings=replace(SMALL, steps=12),
        progress=lambda number, total, figures: seen.append(figures["red"]),
    )  # fmt: skip
    progresses = [progress for _, progress in guides[0].asked]
    assert progresses[0] == 0 and progresses[-1] == 1 and progresses == sorted(progresses)
    assert all(len(ids) == 2 and ids == sorted(set(ids)) for ids, _ in guides[0].asked)
    rows, colours = edit.values["sh0"]
    change = (colours - model.rows["sh0"][rows]).abs()
    inside = mask[rows]
    assert float(change[inside].mean()) > 2 * float(change[~inside].mean()) > 0  # the shell takes 0.3 of a step
    first_stage = refine_drag(
        model, mask, drag, cameras(), Redder(), NativeRasterizer(), settings=replace(SMALL, appearance=0.0)
    )
    assert "sh0" not in first_stage.values


def test_handles_hold_whatever_the_prior_wants() -> None:
    model, drag = slab(), lift(slab())
    edit = refine_drag(
        model, right_end(model), drag, cameras(), Redder(), NativeRasterizer(),
        settings=replace(SMALL, prior_weight=1e4, lr_nodes=0.2),
    )  # fmt: skip
    row = nearest(model, drag.handles[0].at)
    offset = after(model, edit).rows["means"][row] - model.rows["means"][row]
    torch.testing.assert_close(offset, torch.tensor([0.0, 0.4, 0.0]), rtol=1e-3, atol=1e-3)


# --- what can be wrong -------------------------------------------------------------------------------------------


def test_what_cannot_be_refined_is_said(tmp_path: Path) -> None:
    model = slab(100)
    mask, drag, draws = right_end(model), lift(model), NativeRasterizer()
    with pytest.raises(UserError, match="nothing is selected"):
        refine_drag(model, torch.zeros_like(mask), drag, [], NoPrior(), draws)
    with pytest.raises(UserError, match="at least one handle"):
        refine_drag(model, mask, Drag(()), [], NoPrior(), draws)
    with pytest.raises(UserError, match=r"none of 0 cameras shows the selection in 50 pixels \(name the capture"):
        refine_drag(model, mask, drag, [], Redder(), draws, settings=SMALL)
    with pytest.raises(UserError, match=r"sds-inpaint.*lacks unet"):
        refined_values(model, mask, drag, prior="sds-inpaint", path=tmp_path, cameras=cameras(), rasterizer=draws)


def test_values_by_name_as_the_command_takes_them() -> None:
    model, said = slab(100), []
    rows, values = refined_values(
        model, right_end(model), lift(model), prior="none", path=None, cameras=[], rasterizer=NativeRasterizer(),
        say=said.append, steps=5,
    )  # fmt: skip
    assert {"means", "quats"} <= values.keys() and all(len(table) == len(rows) for table in values.values())
    assert said[-1].startswith("drag, step 5 of 5: energy ")
