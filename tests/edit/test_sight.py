"""What training views show of some splats: parts of pictures show what whole ones do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers_train import Restless, cameras, fresh_state

from splat.edit.protection import mask_size
from splat.edit.sight import LEAST_WEIGHT, MARGIN_PX, Part, Sight, Watched, contradicted, part_of
from splat.model.primitives import PRIMITIVES
from splat.render.registry import rasterizer
from splat.render.types import CameraBatch, RenderOptions

NATIVE = rasterizer("native")
VIEW = cameras()[2].resized(60, 50)


def sight_of(count=40, kind="gaussian", seed=0):
    primitive = PRIMITIVES[kind]().fitted(12.0)
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.randn(count, 3, generator=generator) * 0.4
    rows = primitive.start(xyz, torch.rand(count, 3, generator=generator), sh_degree=1, generator=generator)
    return Sight(primitive.render_inputs(rows), NATIVE, "classic")


def test_the_share_of_some_splats_is_what_blending_a_feature_gives():
    inputs = fresh_state(Restless()).model.render_inputs()
    rows = torch.arange(12) % 3 == 0
    share = Sight(inputs, NATIVE, "classic").marked(rows).share(cameras()[2])
    output = NATIVE.render(replace(inputs, features=rows.float()[:, None]), CameraBatch.of(cameras()[2]),
                           RenderOptions(sh_degree=0))  # fmt: skip
    assert torch.allclose(share, output.features[0, ..., 0].detach(), atol=1e-6) and share.max() > 0.1


@pytest.mark.parametrize("kind", PRIMITIVES)
def test_every_primitive_can_be_looked_at_whole_in_part_and_alone(kind):
    sight, rows = sight_of(kind=kind), torch.arange(40) % 4 == 1
    marked, everyone = sight.marked(rows), torch.ones(40, dtype=torch.bool)
    assert torch.allclose(sight.marked(everyone).share(VIEW), sight.alpha(VIEW), atol=1e-5)
    part = Part(20, 11, 43, 30)
    assert torch.allclose(marked.share(VIEW, part), marked.share(VIEW)[part.pixels], atol=1e-5)
    assert bool((marked.only(rows).alpha(VIEW) >= marked.share(VIEW) - 1e-5).all()) and marked.share(VIEW).max() > 0.05


@pytest.mark.parametrize("kind", PRIMITIVES)
@pytest.mark.parametrize("few", [1, 5])
def test_what_counts_is_found_without_drawing_whole_pictures(kind, few):
    sight = sight_of(kind=kind, seed=few)
    rows = torch.arange(40) < few
    found, share = Watched.of(sight, rows).counts(VIEW), sight.marked(rows).share(VIEW)
    clear = (share - LEAST_WEIGHT).abs() > 1e-5
    found = torch.zeros_like(clear) if found is None else found
    assert torch.equal(found[clear], (share >= LEAST_WEIGHT)[clear])
    assert few == 1 or bool(found.any())


def test_views_that_do_not_see_the_rows_are_not_drawn():
    class Counting:
        drawn = 0

        def render(self, inputs, *rest, **more):
            self.drawn += inputs.count == 40
            return NATIVE.render(inputs, *rest, **more)

    sight = sight_of()
    sight.inputs.means.detach()[:3] = torch.tensor([0.0, 0.0, -50.0])  # behind the camera
    counting = Counting()
    watched = Watched.of(replace(sight, rasterizer=counting), torch.arange(40) < 3)
    assert watched.counts(VIEW) is None and counting.drawn == 0
    assert Watched.of(replace(sight, rasterizer=counting), torch.arange(40) < 9).counts(VIEW) is not None
    assert counting.drawn == 1


def test_weights_over_parts_add_up_to_those_over_the_whole():
    sight = sight_of()
    width, height = mask_size(VIEW)
    ones = torch.ones(1, height, width)
    whole = sight.weights(VIEW, None, ones)[0]
    left, right = Part(0, 0, 25, height), Part(25, 0, width, height)
    parts = sum(sight.weights(VIEW, part, ones[0][part.pixels][None])[0] for part in (left, right))
    assert torch.allclose(parts, whole, rtol=1e-4, atol=1e-5) and whole.max() > 1
    rows = torch.arange(40) < 9
    assert bool((sight.only(rows).weights(VIEW, None, ones)[0] >= whole[rows] - 1e-4).all())


def test_parts_are_the_smallest_and_grow_within_the_picture():
    shown = torch.zeros(20, 30, dtype=torch.bool)
    assert part_of(shown) is None
    shown[4, 6] = shown[9, 20] = True
    part = part_of(shown)
    assert part == Part(6, 4, 21, 10) and shown[part.pixels].shape == (6, 15)
    assert part.wider(5, (20, 30)) == Part(1, 0, 26, 15) and part.wider(99, (20, 30)) == Part(0, 0, 30, 20)


def test_pixels_are_contradicted_where_splats_count_and_around():
    nothing = torch.zeros(20, 30, dtype=torch.bool)
    assert contradicted([None, nothing]) is None and contradicted([None]) is None
    counts = nothing.clone()
    counts[10, 15] = True
    mask = contradicted([nothing, None, counts])
    rows, columns = mask.nonzero().amin(0).tolist(), mask.nonzero().amax(0).tolist()
    assert rows == [10 - MARGIN_PX, 15 - MARGIN_PX] and columns == [10 + MARGIN_PX, 15 + MARGIN_PX]
