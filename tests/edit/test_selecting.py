"""Which splats a shape takes: against brute force, and on scenes whose answer is known."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers_editing import VIEW, camera_at, in_space, model_of, on_screen, random_model

from splat.edit import shapes
from splat.edit.attributes import ATTRIBUTES
from splat.edit.flat import runs_of_mask
from splat.edit.select import projected, selected
from splat.errors import UserError
from splat.geometry.sh import sh0_from_rgb
from splat.model.labels import HIDDEN, LOCKED, Labels
from splat.model.primitives import PRIMITIVES
from splat.render.reference import ReferenceRasterizer
from splat.render.registry import rasterizer

MODEL = random_model(80, sh_degree=1)
LABELS = Labels.start(80)
NATIVE = rasterizer("native")
FRONT = shapes.ViewSpec.of(camera_at((0.0, 0.0, -4.0), size=(60, 60)))


def layers(*, front_opacity: float = 6.0):
    """5 x 5 red splats before 5 x 5 blue ones, each pair on one ray of FRONT, and a second coat on the red ones: the
    blue ones are covered."""
    y, x = torch.meshgrid(torch.arange(-2, 3) * 0.9, torch.arange(-2, 3) * 0.9, indexing="ij")
    near = torch.stack([x.reshape(-1), y.reshape(-1), torch.zeros(25)], dim=1)
    ray = near - torch.tensor([0.0, 0.0, -4.0])
    model = random_model(75, sh_degree=0)
    model.rows["means"] = torch.cat([near, near + ray * 0.5, near + ray * 0.01])
    model.rows["quats"] = torch.tensor([[1.0, 0, 0, 0]]).repeat(75, 1)
    model.rows["log_scales"] = torch.tensor([-1.4, -3.5, -1.4]).repeat_interleave(25)[:, None].repeat(1, 3)
    model.rows["logit_opacities"] = torch.tensor([front_opacity, 3.0, front_opacity]).repeat_interleave(25)
    colors = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.1, 0.9], [0.9, 0.1, 0.1]])
    model.rows["sh0"] = sh0_from_rgb(colors.repeat_interleave(25, dim=0))
    return model


RED, BLUE = slice(0, 25), slice(25, 50)
LAYERS, OF_LAYERS = layers(), Labels.start(75)
MIDDLE = shapes.Rect(FRONT, (16.0, 10.0), (50.0, 34.0))


def take(shape, model=LAYERS, labels=OF_LAYERS, **how):
    return selected(shape, model, labels, rasterizer=NATIVE, **how)


@settings(deadline=None)
@given(in_space)
def test_shapes_in_space(shape):
    means = MODEL.rows["means"].double().numpy()
    if shape.kind == "sphere":
        expected = np.square(means - np.array(shape.center)).sum(1) <= shape.radius**2
    elif shape.kind == "box":
        inside = np.linalg.solve(np.array(shape.world_from_box), np.c_[means, np.ones(80)].T)[:3].T
        expected = (np.abs(inside) <= np.array(shape.size) / 2 + 1e-15).all(1)
    elif shape.kind == "color":
        colors = (MODEL.rows["sh0"].double() * 0.28209479177387814 + 0.5).clamp(0, 1).numpy()
        expected = np.abs(colors - np.array(shape.rgb)).max(1) <= shape.tolerance
    elif shape.kind == "attribute":
        values = ATTRIBUTES[shape.attribute].values(MODEL, LABELS)
        expected = [shape.low <= value <= shape.high for value in values.tolist()]
    else:
        expected = [shape.kind == "all"] * 80
    assert selected(shape, MODEL, LABELS).tolist() == list(expected)


def test_a_box_turns():
    turn = np.eye(4)
    turn[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    turn[:3, 3] = (0.1, 0.2, 0.3)
    box = shapes.Box(tuple(map(tuple, turn.tolist())), (0.4, 1.4, 9.0))
    inside = (MODEL.rows["means"].double().numpy() - turn[:3, 3]) @ turn[:3, :3]
    assert selected(box, MODEL, LABELS).tolist() == (np.abs(inside) <= (0.2, 0.7, 4.5)).all(1).tolist()


@settings(max_examples=40, deadline=None)
@given(on_screen, st.sampled_from(["centers", "visible"]))
def test_locked_and_hidden_splats_are_never_taken(shape, reach):
    flags = torch.arange(80) % 3
    labels = replace(LABELS, flags=torch.tensor([0, HIDDEN, LOCKED], dtype=torch.uint8)[flags])
    assert not selected(shape, MODEL, labels, reach=reach, rasterizer=NATIVE)[flags > 0].any()


def test_centers_project_as_a_camera_says():
    camera = VIEW.camera()
    points = MODEL.rows["means"].double().numpy() @ camera.camera_from_world[:3, :3].T + camera.camera_from_world[:3, 3]
    pixels = points @ camera.K.T
    u, v, ahead = projected(MODEL, VIEW)
    assert ahead.tolist() == (points[:, 2] > 0.01).tolist()
    assert np.allclose(np.c_[u, v][ahead], (pixels[:, :2] / pixels[:, 2:])[ahead], atol=1e-12)


def test_nothing_behind_the_camera_is_on_the_screen():
    behind = shapes.ViewSpec.of(camera_at((0.0, 0.0, -1e-3)))
    everywhere = shapes.Rect(behind, (-1e9, -1e9), (1e9, 1e9))
    assert selected(everywhere, MODEL, LABELS).tolist() == (MODEL.rows["means"][:, 2] > 0.009).tolist()


# --- centres and what is seen ------------------------------------------------------------------------------------


def inside_middle():
    u, v, _ = projected(LAYERS, FRONT)
    return (u >= 16) & (u <= 50) & (v >= 10) & (v <= 34)


def in_middle_mask():
    mask = torch.zeros(60, 60)
    mask[10:34, 16:50] = 1
    return shapes.Mask((FRONT,), (runs_of_mask(mask),))


@pytest.mark.parametrize("shape", [
    MIDDLE, shapes.Lasso(FRONT, ((16.0, 10.0), (50.0, 10.0), (50.0, 34.0), (16.0, 34.0))), in_middle_mask(),
])  # fmt: skip
def test_centers_go_through_and_visible_does_not(shape):
    through, seen = take(shape), take(shape, reach="visible")
    assert through.tolist() == inside_middle().tolist() and int(through[RED].sum()) == 6
    assert torch.equal(through[RED], through[BLUE])  # pairs on one ray
    assert torch.equal(seen[RED], through[RED])
    assert shape.kind == "mask" or not seen[BLUE].any()  # of what shows of them, all may be in the mask


def test_a_brush_takes_what_it_passes_over():
    u, v, _ = projected(LAYERS, FRONT)
    stroke = shapes.Brush(FRONT, ((u[0].item(), v[0].item()), (u[4].item(), v[4].item())), 2.0)
    through, seen = take(stroke), take(stroke, reach="visible")
    assert through[RED].nonzero().squeeze(1).tolist() == through[BLUE].nonzero().squeeze(1).tolist() == [0, 1, 2, 3, 4]
    assert seen[RED].nonzero().squeeze(1).tolist() == [0, 1, 2, 3, 4] and not seen[BLUE].any()


def test_what_is_behind_a_veil_or_a_hidden_splat_is_seen():
    assert not take(MIDDLE, reach="visible")[BLUE].any()
    assert torch.equal(take(MIDDLE, layers(front_opacity=-1.0), reach="visible")[BLUE], take(MIDDLE)[BLUE])
    hidden = replace(OF_LAYERS, flags=torch.tensor([HIDDEN, 0, HIDDEN], dtype=torch.uint8).repeat_interleave(25))
    assert torch.equal(take(MIDDLE, labels=hidden, reach="visible")[BLUE], take(MIDDLE)[BLUE])


@pytest.mark.parametrize("opacity", [0.02, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("log_scale", [-6.0, -3.0, 0.0])
@pytest.mark.parametrize("filter2d", ["classic", "mip", "aa"])
def test_nothing_before_it_means_visible(opacity, log_scale, filter2d):
    model = random_model(1, sh_degree=0, filter2d=filter2d)
    model.rows |= {"means": torch.zeros(1, 3), "log_scales": torch.full((1, 3), log_scale)}
    model.rows |= model.primitive.with_opacities(torch.tensor([opacity]))
    everywhere = shapes.Rect(FRONT, (0.0, 0.0), (60.0, 60.0))
    assert take(everywhere, model, Labels.start(1), reach="visible").tolist() == [True]


@pytest.mark.parametrize("kind", sorted(PRIMITIVES))
def test_every_primitive_can_be_seen(kind):
    model = model_of(kind, 4)
    model.rows["means"] = torch.tensor([[x, y, 0.0] for x in (-1.0, 1.0) for y in (-1.0, 1.0)])
    small = model.primitive.resized(model.rows, torch.arange(4), torch.full((4,), 0.2))
    model.rows |= {name: table.float() for name, table in small.items()}
    left = shapes.Rect(FRONT, (0.0, 0.0), (30.0, 60.0))
    for reach in ("centers", "visible"):
        assert take(left, model, Labels.start(4), reach=reach).tolist() == [True, True, False, False]


def test_a_click_takes_what_shows_most():
    u, v, _ = projected(LAYERS, FRONT)
    clicked = take(shapes.Click(FRONT, (u[12].item(), v[12].item())))
    assert clicked.nonzero().squeeze(1).tolist() == [12]
    for beside in ((-5.0, 9.0), (60.0, 3.0), (3.0, 60.0)):
        assert not take(shapes.Click(FRONT, beside)).any()
    assert not take(shapes.Click(FRONT, (3.0, 57.0)), layers(front_opacity=-9.0)).any()


def test_a_click_is_the_pixel_of_the_whole_picture():
    from splat.edit.lifting import rendered, splat_at

    camera = VIEW.camera()
    ids = rendered(MODEL, camera, NATIVE, top_id=True).top_id[0]
    for x, y in ((32, 24), (20, 20), (40, 30), (5, 40)):
        found = splat_at(MODEL, camera, x + 0.7, y + 0.2, NATIVE)
        assert (-1 if found is None else found) == int(ids[y, x])


def test_flood_takes_what_is_seen_in_the_region():
    u, v, _ = projected(LAYERS, FRONT)
    here = (u[12].item(), v[12].item())
    found = take(shapes.Flood(FRONT, here, 0.2), reach="visible")
    assert found[RED].nonzero().squeeze(1).tolist() == [12] and not found[BLUE].any()
    assert take(shapes.Flood(FRONT, here, 0.2))[BLUE].nonzero().squeeze(1).tolist() == [12]  # centres behind it
    everywhere = take(shapes.Flood(FRONT, here, 1.0), reach="visible")
    assert everywhere[RED].all() and not everywhere[BLUE].any()
    assert not take(shapes.Flood(FRONT, (-1.0, 5.0))).any()
    bare = layers(front_opacity=-9.0)
    assert take(shapes.Flood(FRONT, here, 0.2), bare, reach="visible").nonzero().squeeze(1).tolist() == [37]


def test_a_picture_needs_a_rasterizer_that_fits():
    with pytest.raises(UserError, match="without a rasterizer"):
        selected(MIDDLE, LAYERS, OF_LAYERS, reach="visible")
    with pytest.raises(UserError, match=r"cannot be told: .*filter"):
        take(shapes.Click(FRONT, (9.0, 9.0)), replace(model_of("convex"), filter2d="mip"), Labels.start(40))
    with pytest.raises(UserError, match="mask 1: runs of 7 pixels"):
        take(shapes.Mask((FRONT,), ((7,),)))
    with pytest.raises(UserError, match="2 views, 1 masks"):
        take(shapes.Mask((FRONT, FRONT), ((3600,),)))


def test_the_reference_sees_the_same():
    ours = take(MIDDLE, reach="visible")
    assert torch.equal(ours, selected(MIDDLE, LAYERS, OF_LAYERS, reach="visible", rasterizer=ReferenceRasterizer()))


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_are_a_number_per_splat(name):
    for kind in sorted(PRIMITIVES):
        model = model_of(kind)
        values = ATTRIBUTES[name].values(model.requires_grad_(), Labels.start(40))
        assert values.shape == (40,) and values.is_floating_point() and not values.requires_grad
        assert bool(torch.isfinite(values).all())


def test_hue_is_that_of_the_colour_circle():
    import colorsys

    model = random_model(6, sh_degree=0)
    colors = [(1.0, 0.0, 0.0), (0.2, 0.8, 0.2), (0.1, 0.1, 0.9), (0.5, 0.5, 0.5), (0.9, 0.2, 0.6), (0.0, 0.0, 0.0)]
    model.rows["sh0"] = sh0_from_rgb(torch.tensor(colors))
    hue, saturation, value = (ATTRIBUTES[name].values(model, OF_LAYERS) for name in ("hue", "saturation", "value"))
    for row, color in enumerate(colors):
        expected = colorsys.rgb_to_hsv(*color)
        assert (hue[row] / 360, saturation[row], value[row]) == pytest.approx(expected, abs=1e-5)
