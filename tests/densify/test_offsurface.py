"""Splats off every surface that priors know, before a wall that three views look at."""

import numpy as np
import pytest
import torch
from test_geotex import CAMERA, HEIGHT, NO_TEXTURE, WALL, WIDTH, Noise, Priors, Probe, Wall

from splat.densify.geosplit import Surface
from splat.densify.geotex import GeoTexDensity
from splat.densify.offsurface import off_surfaces
from splat.geometry.camera import Camera
from splat.model.gaussian import GaussianPrimitive

DEPTHS = [WALL, 1.02 * WALL, 2.0, 4.5, -1.0]  # on the wall, nearly, before it, behind it, behind the camera
OFF = [False, False, True, True, False]


def before_the_wall():
    return torch.tensor([[0.1 * z, -0.05 * z, z] for z in DEPTHS])


def surface(prior):
    drawn = torch.full((HEIGHT, WIDTH), WALL)
    return Surface.of(CAMERA, drawn, torch.ones(HEIGHT, WIDTH), prior)


def test_what_no_view_finds_on_its_surface_is_off():
    means = before_the_wall()
    off, places, factors = off_surfaces([surface(Wall())] * 3, means, tolerance=0.03, least=3)
    assert off.tolist() == OFF
    assert torch.allclose(places[off], means[off] * (WALL / means[off][:, 2:]), atol=1e-6), "along the ray"
    assert factors[off].tolist() == pytest.approx([WALL / 2.0, WALL / 4.5])
    assert off_surfaces([surface(Wall())] * 3, means, tolerance=0.01, least=3)[0].tolist() == [
        False, True, True, True, False,
    ]  # fmt: skip


def test_too_few_views_or_one_that_agrees_save_a_splat():
    means = before_the_wall()
    assert not off_surfaces([surface(Wall())] * 2, means, tolerance=0.03, least=3)[0].any()
    near = surface(Wall(scale=2.0 / WALL))
    assert off_surfaces([surface(Wall())] * 3 + [near], means, tolerance=0.03, least=3)[0].tolist() == [
        False, False, False, True, False,
    ]  # fmt: skip


def test_where_a_prior_knows_nothing_it_does_not_count():
    unknown = Wall()
    unknown.valid = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    unknown.depth = torch.zeros(HEIGHT, WIDTH)
    assert not off_surfaces([surface(unknown)] * 3, before_the_wall(), tolerance=0.03, least=1)[0].any()
    beside = torch.tensor([[50.0, 0, 2.0]])
    assert not off_surfaces([surface(Wall())] * 3, beside, tolerance=0.03, least=1)[0].any()


class ThreeViews(Probe):
    count = 3


@pytest.fixture
def run_off(new_run):
    def make(prior=None, **settings):
        densifier = GeoTexDensity(**NO_TEXTURE, **settings)
        run = new_run(densifier, GaussianPrimitive(), len(DEPTHS), extent_world=2.0)
        run.model.rows["means"] = before_the_wall()
        run.model.rows |= run.model.primitive.with_scales(torch.full((len(DEPTHS), 3), 0.1))
        run.model.rows |= run.model.primitive.with_opacities(torch.full((len(DEPTHS),), 0.5))
        run.context = type(run.context)(
            extent_world=2.0, probe=ThreeViews(), cameras=(CAMERA,) * 3, priors=Priors(*[prior or Wall()] * 3)
        )
        return run

    return make


def test_they_move_onto_the_nearest_surface_and_keep_their_size_in_the_picture(run_off):
    run = run_off(clear=0.03, clear_every=8)
    assert run.refine(2000) == [], "the event is due every eighth refinement"
    assert run.refine(2400) == ["snap"]
    assert run.model.rows["means"][:, 2].tolist() == pytest.approx([WALL, 1.02 * WALL, WALL, WALL, -1])
    sizes = run.model.scales.amax(1) / run.model.rows["means"][:, 2]
    assert sizes[2:4].tolist() == pytest.approx([0.1 / 2.0, 0.1 / 4.5])


def test_or_they_go(run_off):
    run = run_off(clear=0.03, clear_every=1, clear_how="drop")
    assert run.refine(2000) == ["clear"]
    assert run.names.tolist() == [0, 1, 4]


@pytest.mark.parametrize(
    ("prior", "settings"),
    [(Noise(), {}), (Wall(reliability=0.0), {}), (Wall(error=0.02), {}), (Wall(), {"clear": 0.0})],
)
def test_useless_priors_move_nothing(run_off, prior, settings):
    run = run_off(prior, **{"clear": 0.03, "clear_every": 1} | settings)
    assert run.refine(2000) == []


def test_a_turned_camera_is_no_other_case():
    turn = np.array([[0, 0, 1.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    pose = turn.copy()
    pose[:3, 3] = [0.3, -0.2, 0.5]
    camera = Camera("b.png", pose, CAMERA.K, WIDTH, HEIGHT)
    inverse = torch.from_numpy(np.linalg.inv(pose)).float()
    means = before_the_wall() @ inverse[:3, :3].T + inverse[:3, 3]
    there = Surface.of(camera, torch.full((HEIGHT, WIDTH), WALL), torch.ones(HEIGHT, WIDTH), Wall())
    off, places, _ = off_surfaces([there] * 3, means, tolerance=0.03, least=3)
    assert off.tolist() == OFF
    z = (places @ torch.from_numpy(pose[:3, :3]).float().T + torch.from_numpy(pose[:3, 3]).float())[:, 2]
    assert z[off].tolist() == pytest.approx([WALL, WALL], rel=1e-5)
