"""Looks at training views after an edit draw little and find what looking at all of everything would."""

from __future__ import annotations

import pytest
import torch
from helpers_train import Restless, cameras, fresh_state

from splat.edit.protection import Protection, Shield, mask_size, packed_mask
from splat.edit.sight import Sight
from splat.geometry.rng import keyed_generator
from splat.model.labels import HELD
from splat.model.row_edit import RowEdit
from splat.render.registry import rasterizer
from splat.train.shield import LEAST_HEARD, EditShield

NATIVE = rasterizer("native")
VIEWS = tuple(camera.resized(60, 50) for camera in cameras())


def by_looking_at_everything(state) -> torch.Tensor:
    """Rows of whose weight in all views less than a tenth is in pixels that count."""
    sight = Sight(state.model.render_inputs(), NATIVE, "classic")
    sums = torch.zeros(2, state.model.count)
    for view, camera in enumerate(VIEWS):
        width, height = mask_size(camera)
        kept = state.protection.kept(view, camera, width, height)
        against = torch.zeros(height, width) if kept is None else (~kept).float()
        sums += sight.weights(camera, None, torch.stack([torch.ones(height, width), against]))
    return (sums[0] > 0) & (sums[0] - sums[1] < LEAST_HEARD * sums[0])


def masks_at(columns, views=range(5)):
    found = {}
    for view in views:
        width, height = mask_size(VIEWS[view])
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[10:40, columns] = True
        found[view] = packed_mask(mask)
    return found


@pytest.mark.parametrize("views", [range(5), [0, 1, 2], [3]])
@pytest.mark.parametrize("columns", [slice(14, 46), slice(0, 27), slice(0, 60), slice(29, 31)])
def test_rows_rest_that_hardly_show_where_photographs_count(columns, views):
    state = fresh_state(Restless(), count=60)
    state.model.rows["log_scales"].data -= 1.5
    shield = EditShield(state, VIEWS, NATIVE, state.model.render_inputs)
    state.protection = Protection({1: Shield(masks_at(columns, views))})
    shield.end(7)  # something changed
    list(shield.looks())
    found = torch.zeros(60, dtype=torch.bool) if state.resting is None else state.resting
    assert torch.equal(found, by_looking_at_everything(state))


def test_some_rest_and_some_do_not():
    state = fresh_state(Restless(), count=60)
    state.model.rows["log_scales"].data -= 1.5
    state.protection = Protection({1: Shield(masks_at(slice(14, 46)))})
    assert 5 < int(by_looking_at_everything(state).sum()) < 55


def test_what_was_edited_by_hand_is_held_and_need_not_rest():
    state = fresh_state(Restless(), count=60)
    everyone = torch.arange(60)
    state.apply(RowEdit(everyone, 60, tables={"labels.flags": (everyone, torch.full((60,), HELD, dtype=torch.uint8))}))
    shield = EditShield(state, VIEWS, NATIVE, state.model.render_inputs)
    state.protection = Protection({1: Shield(masks_at(slice(0, 60)))})
    shield.end(7)
    list(shield.looks())
    assert state.resting is None and bool(state.held.all())


def test_a_change_of_colour_is_looked_for_once():
    state = fresh_state(Restless(), count=12)
    shield = EditShield(state, VIEWS, NATIVE, state.model.render_inputs)
    rows = torch.tensor([0, 1])
    before = shield.before(1, RowEdit.overwrite(12, {"sh0": (rows, torch.ones(2, 3))}, reason="recolor"))
    assert before.old.sum() == 2 and not before.new.any()
    before = shield.before(1, RowEdit.overwrite(12, {"means": (rows, torch.ones(2, 3))}, reason="transform"))
    assert before.old.sum() == before.new.sum() == 2


@pytest.mark.parametrize("most", [2, 3, 4, 5, 6])
def test_more_views_than_are_needed_to_tell_what_rests(monkeypatch, most):
    """As many as may be looked at are, of one more, too."""
    monkeypatch.setattr("splat.train.shield.HEARD_IN", most)
    state, drawn = fresh_state(Restless(), count=12), []
    generator = keyed_generator(0, "views", 0)
    state.model.rows["means"].data += 0.01 * torch.randn(12, 3, generator=generator)

    class Seen:
        def supports(self, *_):
            return None

        def render(self, inputs, batch, options, **more):
            drawn.append(float(batch.camera_from_world[0, 0, 3]))
            return NATIVE.render(inputs, batch, options, **more)

    shield = EditShield(state, VIEWS, Seen(), state.model.render_inputs)
    state.protection = Protection({1: Shield(masks_at(slice(0, 60)))})
    shield.end(7)
    list(shield.looks())
    assert len(set(drawn)) == min(most, len(VIEWS))
