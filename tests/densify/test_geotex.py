"""Which splats grow by texture, and how the large ones split on a wall that a prior knows."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from splat.densify.adaptive import AdaptiveDensity
from splat.densify.geotex import GeoTexDensity
from splat.densify.protocol import Look
from splat.geometry.camera import Camera
from splat.model.gaussian import GaussianPrimitive
from splat.render.types import SplatStats

SMALL, LARGE = 0.005, 0.05  # sizes in extents: below 0.01, above it
WALL = 3.0
WIDTH, HEIGHT = 64, 48
CAMERA = Camera(
    "a.png", np.eye(4), np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]), WIDTH, HEIGHT
)  # fmt: skip
NO_TEXTURE = {"texture_share": 0.0, "texture_min": 0.0}


@dataclass
class Wall:
    """A wall in front of the camera, as a prior: depth, normals, valid."""

    scale: float = 1.0
    reliability: float = 1.0
    error: float = 0.0
    step: float = 1.0
    """The right half of the picture is farther away by this factor."""

    def __post_init__(self):
        self.depth = self.scale * WALL * torch.where(torch.arange(WIDTH) < WIDTH // 2, 1.0, self.step)
        self.depth = self.depth.expand(HEIGHT, WIDTH)
        self.normals = torch.tensor([0.0, 0.0, -1.0]).expand(HEIGHT, WIDTH, 3)
        self.valid = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)


class Noise(Wall):
    def __post_init__(self):
        super().__post_init__()
        self.depth = 1 + 9 * torch.rand(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


class Probe:
    """Two views of the same picture: a wall, where the splats of the model are."""

    count = 2

    def __init__(self, drawn=WALL):
        self.looks, self.drawn = [], drawn

    def look(self, view, *, stats, maps=None, background=None):
        self.looks.append(view)
        plain = torch.zeros(HEIGHT, WIDTH, 3)
        ones = torch.ones(HEIGHT, WIDTH)
        return Look(SplatStats(), plain, plain, ones, self.drawn * ones, WIDTH, HEIGHT)


class Priors:
    def __init__(self, *of_view):
        self.of_view = of_view

    def prior(self, view):
        return self.of_view[view]


def stats_of(count, **values):
    """One view that saw everything, without texture unless said."""
    full = {name: torch.zeros(1, count) for name in ("grad2d", "texgrad", "color_grad")}
    full |= {"blend_sum": torch.ones(1, count), "visible": torch.ones(1, count, dtype=torch.bool)}
    full |= {"weighted_count": torch.ones(1, 1, count), "weighted_blend": 0.5 * torch.ones(1, 1, count)}
    for name, given in values.items():
        full[name] = torch.tensor(given, dtype=torch.float32).reshape(full[name].shape)
    return SplatStats(**full)


@pytest.fixture
def run_on(new_run):
    """Splats on the wall, all of one size, that all want to grow; the right half of them lies right of the axis."""

    def make(count=40, *, size=LARGE, settings=None, opacity=0.5, depth=WALL, **context):
        settings = NO_TEXTURE if settings is None else settings
        run = new_run(GeoTexDensity(**settings), GaussianPrimitive(), count, extent_world=2.0, **context)
        random = torch.Generator().manual_seed(1)
        places = (torch.rand(count, 2, generator=random) - 0.5) * torch.tensor([1.6, 1.2])
        run.model.rows["means"] = torch.cat([places, torch.full((count, 1), depth)], dim=1)
        run.model.rows |= run.model.primitive.with_scales(torch.full((count, 3), 2.0 * size))
        run.model.rows |= run.model.primitive.with_opacities(torch.full((count,), opacity))
        return run

    return make


def watch(run, view=0, **values):
    values = {"grad2d": [1.0] * run.model.count} | values
    stats = stats_of(run.model.count, **values)
    run.densifier.observe(run.state, 1, stats, width=WIDTH, height=HEIGHT, view=view)


def with_prior(run, *priors, probe=None):
    probe = probe or Probe()
    run.context = type(run.context)(
        extent_world=2.0, probe=probe, cameras=(CAMERA, CAMERA), priors=Priors(*priors),
        max_splats=run.context.max_splats,
    )  # fmt: skip
    return probe


# -- texture -----------------------------------------------------------------------------------------------------


def test_texture_adds_a_share_of_the_ordinary_candidates(run_on):
    run = run_on(12, size=SMALL, settings={"texture_share": 0.5})
    watch(run, grad2d=[1.0] * 4 + [0.0] * 8, texgrad=[0.0] * 5 + [3.0, 1.0, 0.0, 2.0, 0.5, 0.0, 0.1])
    assert run.refine(600) == ["clone"]
    assert [int(name) for name in run.names[12:]] == [0, 1, 2, 3, 5, 8], "the two steepest by texture"


def test_texture_alone_follows_its_threshold(run_on):
    run = run_on(8, size=SMALL, settings={"texture_share": 1.0, "texture_grad": 1.5})
    watch(run, grad2d=[1.0] * 4 + [0.0] * 4, texgrad=[0.0] * 4 + [2.0, 1.0, 3.0, 1.4])
    run.refine(600)
    assert [int(name) for name in run.names[8:]] == [0, 1, 2, 3, 4, 6]


@pytest.mark.parametrize(("mean", "expected"), [("pixels", 1), ("views", 0)])
def test_views_count_by_their_textured_pixels(run_on, mean, expected):
    """Row 0: 4 then 1, row 1: 3 then 1; but row 1 has its texture where the gradient is steep."""
    settings = {"texture_share": 0.5, "texture_mean": mean}
    run = run_on(4, size=SMALL, settings=settings)
    base = [0.0, 0.0, 1.0, 1.0]
    watch(run, grad2d=base, texgrad=[4.0, 3.0, 0, 0], weighted_count=[1.0, 9.0, 1, 1])
    watch(run, grad2d=base, texgrad=[1.0, 1.0, 0, 0], weighted_count=[9.0, 1.0, 1, 1])
    run.refine(600)
    assert [int(name) for name in run.names[4:]] == [expected, 2, 3]


def test_flat_splats_grow_only_where_the_picture_is_wrong(run_on):
    """Rows: textured; flat; flat and wrong in one direction; flat, with errors that cancel out."""
    run = run_on(4, size=SMALL, settings={"texture_share": 0.0})
    coherent = 3**0.5 / 3 / (WIDTH * HEIGHT)  # the colour gradient of one pixel that is all wrong
    watch(run, weighted_blend=[0.5, 0.01, 0.01, 0.01], color_grad=[0.0, 0.0, coherent, 0.1 * coherent])
    run.refine(600)
    assert [int(name) for name in run.names[4:]] == [0, 2]


def test_without_texture_and_prior_it_is_adaptive(new_run):
    runs = [new_run(make(), GaussianPrimitive(), 200, max_splats=900)
            for make in (lambda: GeoTexDensity(**NO_TEXTURE, geo_views=0), AdaptiveDensity)]  # fmt: skip
    for run in runs:
        run.steps(range(580, 1210, 20))
    assert runs[0].model.count == runs[1].model.count
    assert [edit.reason for edit in runs[0].edits] == [edit.reason for edit in runs[1].edits]


def test_what_it_asks_for():
    full, plain = GeoTexDensity(), GeoTexDensity(**NO_TEXTURE, geo_views=0)
    assert plain.needs(600) == AdaptiveDensity().needs(600) and not plain.plan(600).maps
    assert full.plan(600).maps and not full.plan(15_000).maps and not full.needs(15_000)
    assert {"texgrad", "weighted_count", "weighted_blend", "blend_sum"} <= full.needs(600)
    pixels = torch.zeros(6, 8, 3, dtype=torch.uint8)
    pixels[:, 4:] = 200
    assert full.maps(pixels).shape == (1, 6, 8) and plain.maps(pixels) is None
    assert full.maps(pixels)[0, 3, 4] > 0.5 > full.maps(pixels)[0, 3, 1]
    short = full.rescaled(0.1)
    assert (short.geo_start, short.fade_start) == (100, 1200)


# -- geometry ----------------------------------------------------------------------------------------------------


def test_children_stay_on_the_wall(run_on):
    run = run_on(400, size=LARGE)
    watch(run)
    with_prior(run, Wall(), None)
    assert run.refine(2100) == ["surface"]
    assert run.model.count == 800
    on_wall = (run.model.rows["means"][:, 2] - WALL).abs()
    assert (on_wall <= 0.02 * WALL).float().mean() >= 0.99
    plain = run_on(400, size=LARGE)
    watch(plain)
    assert plain.refine(2100) == ["split"]
    far_at_random = int(((plain.model.rows["means"][:, 2] - WALL).abs() > 0.05 * WALL).sum())
    assert far_at_random > 30 and 3 * int((on_wall > 0.05 * WALL).sum()) <= far_at_random
    assert run.model.scales.flatten().tolist() == pytest.approx([2 * LARGE / 1.6] * 2400)
    assert run.state.scalars == {"geo_tried": 800, "geo_rejected": 0, "geo_snapped": 0, "geo_dropped": 0}


@pytest.mark.parametrize("scale", [0.01, 0.25, 300.0])
def test_decisions_are_blind_to_the_scale_of_the_prior(run_on, scale):
    runs = []
    for prior in (Wall(step=1.08), Wall(scale=scale, step=1.08)):
        run = run_on(300)
        watch(run)
        with_prior(run, prior, None)
        run.refine(2100)
        runs.append(run)
    one, other = runs
    assert one.state.scalars == other.state.scalars and one.state.scalars["geo_rejected"] > 0
    assert torch.equal(one.edits[0].source, other.edits[0].source)
    assert torch.equal(one.edits[0].reasons, other.edits[0].reasons)
    assert torch.allclose(one.model.rows["means"], other.model.rows["means"], atol=1e-4)


def test_codes_of_rows_say_what_became_of_them(run_on):
    run = run_on(300)
    watch(run)
    with_prior(run, Wall(step=1.08), None)
    run.refine(2100)
    codes = run.edits[0].reasons
    assert codes.shape == (run.model.count,)
    assert int((codes == 1).sum()) == run.state.scalars["geo_snapped"]


@pytest.mark.parametrize(
    ("priors", "probe", "why"),
    [
        ((None, None), Probe(), "no prior"),
        ((Wall(reliability=0.0), None), Probe(), "not reliable"),
        ((Noise(), None), Probe(), "not the shape of what is drawn"),
        ((Wall(), None), Probe(drawn=2.0), "the splats are not on the drawn surface"),
    ],
)
def test_a_useless_prior_costs_nothing(run_on, priors, probe, why):
    """To the bit what a run without priors does."""
    run, plain = run_on(100), run_on(100)
    for one in (run, plain):
        watch(one)
    with_prior(run, *priors, probe=probe)
    assert run.refine(2100) == plain.refine(2100) == ["split"], why
    assert torch.equal(run.model.rows["means"], plain.model.rows["means"])


def test_surfaces_wait_for_their_start(run_on):
    run = run_on(20)
    watch(run)
    with_prior(run, Wall(), None)
    assert run.refine(900) == ["split"]


def test_each_splat_is_split_in_the_view_it_covers_most(run_on):
    """View 1 has no prior: those it shows best are split in view 0 all the same, where they are members."""
    run = run_on(10, settings=NO_TEXTURE | {"geo_views": 1})
    watch(run, view=0, blend_sum=[2.0] * 4 + [1.0] * 6)
    watch(run, view=1, blend_sum=[1.0] * 4 + [2.0] * 6)
    watch(run, view=0, blend_sum=[0.5] * 10)
    assert run.state.tables["best_view"].tolist() == [0] * 4 + [1] * 6
    probe = with_prior(run, Wall(), Wall())
    assert run.refine(2100) == ["surface"]
    assert probe.looks == [1], "the view with most candidates"


ALL_MAY_BE_REJECTED = NO_TEXTURE | {"rejection_cap": 1.0, "agreement": 0.0, "resamples": 0}


def along_x(run):
    """Splats on the optical axis' plane that reach out to both sides."""
    count = run.model.count
    run.model.rows["means"] = torch.stack([torch.full((count,), -0.001), torch.linspace(-0.8, 0.8, count),
                                           torch.full((count,), WALL)], dim=1)  # fmt: skip
    run.model.rows |= run.model.primitive.with_scales(torch.tensor([[0.3, 1e-4, 1e-4]]).repeat(count, 1))
    watch(run)


def test_parents_of_two_dropped_children_stay(run_on):
    """The prior falls off to both sides of every splat, far out of reach."""
    run = run_on(5, settings=ALL_MAY_BE_REJECTED)
    along_x(run)
    prior = Wall()
    prior.depth = prior.depth.clone()
    prior.depth[:, :31], prior.depth[:, 32:] = 30 * WALL, 30 * WALL
    with_prior(run, prior, None)
    before = {name: table.clone() for name, table in run.model.rows.items()}
    reasons = run.refine(2100)
    kept = 10 - int(run.state.scalars["geo_dropped"])
    assert kept == 0 and reasons == []
    assert all(torch.equal(run.model.rows[name], before[name]) for name in before)


def test_one_child_may_be_all_that_is_left(run_on):
    """The prior falls off to the right: every pair loses its right child."""
    run = run_on(5, settings=ALL_MAY_BE_REJECTED)
    along_x(run)
    with_prior(run, Wall(step=30.0), None)
    assert run.refine(2100) == ["surface"]
    assert run.state.scalars["geo_dropped"] == 5 and sorted(run.names.tolist()) == [0, 1, 2, 3, 4]
    assert (run.model.rows["means"][:, 0] < -0.001).all()
    assert run.model.scales.amax(dim=1).tolist() == pytest.approx([0.3 / 1.6] * 5)


def test_the_cap_holds(run_on):
    run = run_on(40, max_splats=50)
    watch(run)
    with_prior(run, Wall(), None)
    assert run.refine(2100) == ["surface"]
    assert run.model.count == 50


def test_limits_fade():
    settings = GeoTexDensity()
    tolerances = [settings._tolerance(step, 1.0) for step in (2000, 12_000, 13_500, 14_900)]
    assert tolerances == pytest.approx([0.05, 0.05, 0.1, 1.5])
