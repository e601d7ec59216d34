"""What edits by hand ask of training: pixels that contradict them, and where nothing grows back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from helpers_train import cameras

from splat.edit.protection import (
    Protection,
    Shield,
    Tombstones,
    changed_rows,
    mask_size,
    packed_mask,
)
from splat.model.row_edit import RowEdit

BIG = replace(cameras(1)[0].resized(1024, 512), name="big")


def test_what_goes_comes_or_looks_otherwise_has_changed():
    old, new = changed_rows(RowEdit.keep(torch.tensor([True, False, True])))
    assert old.tolist() == [False, True, False] and new.tolist() == [False, False]
    old, new = changed_rows(RowEdit.append(2, torch.tensor([1]), {}, reason="duplicate"))
    assert old.tolist() == [False, False] and new.tolist() == [False, False, True]
    moved = RowEdit.overwrite(3, {"means": (torch.tensor([2]), torch.zeros(1, 3))}, reason="transform")
    old, new = changed_rows(moved)
    assert old.tolist() == new.tolist() == [False, False, True]
    flagged = RowEdit(torch.arange(2), 2, tables={"labels.flags": (torch.tensor([0]), torch.tensor([8]))})
    assert not any(rows.any() for rows in changed_rows(flagged))


def shield_of(camera, box, stones=None):
    left, top, right, bottom = box
    across, down = mask_size(camera)
    mask = torch.zeros(down, across, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return Shield({3: packed_mask(mask)}, stones)


def test_masks_hold_at_any_size_and_lose_no_contradicted_pixel():
    assert mask_size(BIG) == (256, 128)
    protection = Protection().with_shield(1, shield_of(BIG, (64, 32, 129, 64)))
    full = protection.kept(3, BIG, 1024, 512)
    assert full.shape == (512, 1024) and not full[128:256, 256:516].any() and int((~full).sum()) == 128 * 260
    small = protection.kept(3, BIG, 64, 32)
    assert not small[8:16, 16:33].any() and int((~small).sum()) == 8 * 17  # the last column holds a part
    assert protection.kept(0, BIG, 64, 32) is None


def test_edits_add_up_and_end_one_by_one():
    both = Protection().with_shield(4, shield_of(BIG, (0, 0, 10, 10))).with_shield(7, shield_of(BIG, (5, 5, 20, 20)))
    assert int((~both.kept(3, BIG, 256, 128)).sum()) == 100 + 225 - 25
    assert int((~both.without(4).kept(3, BIG, 256, 128)).sum()) == 225
    assert not both.without(4).without(7) and both.without(9).shields.keys() == {4, 7}


def cube(count=4000, seed=0):
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_nothing_grows_where_splats_were_deleted_but_for_where_others_are():
    gone, left = cube(), torch.tensor([[0.9, 0.9, 0.9], [3.0, 0.0, 0.0]])
    stones = Tombstones.of(gone, left, since=100)
    inside = cube(500, seed=1) * 0.8
    assert stones.holds(inside).float().mean() > 0.98
    assert not stones.holds(left).any() and not stones.holds(torch.tensor([[2.0, 0, 0], [1e9, 0, 0]])).any()
    assert not stones.holds(torch.full((1, 3), torch.nan)).any()


def test_later_rows_are_buried_everywhere_and_older_ones_deep_inside():
    stones = Tombstones.of(cube(), torch.zeros(0, 3), since=100)
    protection = Protection({1: Shield({}, stones)})
    ids = torch.tensor([99, 100, 101, 99, 100])
    border = 1.0 + stones.cell
    means = torch.tensor([[0.0, 0, 0], [0.0, 0, 0], [5.0, 0, 0], [border, 0, 0], [border, 0, 0]])
    assert bool(stones.holds(means[3:]).all())
    assert protection.buried(means, ids).tolist() == [True, True, False, False, True]
    assert Protection({1: Shield({})}).buried(means, ids) is None
    far = torch.full((1, 3), torch.nan), torch.full((1, 3), 1e30)
    assert not any(protection.buried(each, ids[:1]).any() for each in far)


def test_rows_that_stand_when_the_edit_is_made_stay_though_they_tremble():
    gone, left = cube(), cube(50, seed=4)
    stones = Tombstones.of(gone, left, since=50)
    ids = torch.arange(50)
    assert not stones.forbids(left, ids).any()
    shaken = left + stones.cell * (cube(50, seed=9) * 0.99)
    assert bool(stones.holds(shaken).any()) and not stones.forbids(shaken, ids).any()


def test_one_splat_or_a_flat_set_has_tombstones_too():
    stones = Tombstones.of(torch.tensor([[1.0, 2.0, 3.0]]), torch.zeros(1, 3), since=0)
    assert stones.holds(torch.tensor([[1.0, 2.0, 3.0]])).all()
    flat = cube() * torch.tensor([1.0, 1.0, 0.0])
    assert Tombstones.of(flat, torch.zeros(0, 3), since=0).holds(flat).all()
    assert Tombstones.of(torch.zeros(0, 3), flat, since=0) is None


def test_a_checkpoint_gives_back_the_same_protection():
    stones = Tombstones.of(cube(50), torch.zeros(1, 3), since=7)
    protection = Protection({2: shield_of(BIG, (1, 2, 30, 40), stones), 11: Shield({})})
    again = Protection.of_tensors(protection.tensors())
    assert again.shields.keys() == {2, 11}
    assert all(np.array_equal(again.shields[2].masks[view], mask) for view, mask in protection.shields[2].masks.items())
    found = again.shields[2].tombstones
    assert (found.cell, found.since) == (stones.cell, 7)
    assert torch.equal(found.keys, stones.keys) and torch.equal(found.origin, stones.origin)
    assert not Protection.of_tensors({})
