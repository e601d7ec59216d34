from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers_train import fresh_state, make_trainer

from splat.densify.adaptive import AdaptiveDensity
from splat.densify.multiview import PUBLISHED_SCALES, PUBLISHED_VIEWS, MultiView
from splat.densify.protocol import Look
from splat.geometry.camera import Camera
from splat.model.gaussian import GaussianPrimitive
from splat.render.types import SplatStats
from splat.train.settings import ResolutionSchedule
from splat.train.trainer import drive

WIDTH, HEIGHT = 64, 48
QUICK = {"crossray_share": 0.1, "crossray_every": 1}


def circle(count, *, degrees=360.0, centre=(0.5, 0.5, 0.5), radius=4.0):
    """Cameras on a level arc around ``centre``, all looking at it."""
    made = []
    for number in range(count):
        angle = np.radians(degrees * number / count)
        forward = np.array([-np.sin(angle), 0.0, np.cos(angle)])
        rotation = np.stack([np.cross((0.0, 1.0, 0.0), forward), (0.0, 1.0, 0.0), forward])
        pose = np.eye(4)
        pose[:3, :3] = rotation
        pose[:3, 3] = -rotation @ (np.asarray(centre) - radius * forward)
        intrinsics = np.array([[60.0, 0, WIDTH / 2], [0, 60.0, HEIGHT / 2], [0, 0, 1]])
        made.append(Camera(f"{number}.png", pose, intrinsics, WIDTH, HEIGHT))
    return tuple(made)


class Planted:
    """A probe whose views miss a spot: bright 3x3 px where a planted point is seen; a splat is drawn, with weight
    1, at the pixel of its centre."""

    def __init__(self, cameras, points):
        self.cameras, self.points, self.model, self.looked = cameras, points, None, []
        self.count = len(cameras)

    def look(self, view, *, stats, maps=None, background=None):
        self.looked.append(view)
        rows, columns = self._pixels(view, torch.tensor(self.points[view], dtype=torch.float32)[None])
        target = torch.zeros(HEIGHT, WIDTH, 3)
        target[rows[0] - 1 : rows[0] + 2, columns[0] - 1 : columns[0] + 2] = 1
        weights = maps(torch.zeros_like(target), target)
        rows, columns = self._pixels(view, self.model.rows["means"].detach())
        blend = weights[0, rows.clamp(0, HEIGHT - 1), columns.clamp(0, WIDTH - 1)]
        one = torch.ones(HEIGHT, WIDTH)
        return Look(
            SplatStats(weighted_blend=blend[None, None]), torch.zeros_like(target), target, one, one, WIDTH, HEIGHT
        )

    def _pixels(self, view, points):
        camera = self.cameras[view]
        pose = torch.tensor(camera.camera_from_world, dtype=torch.float32)
        seen = (points @ pose[:3, :3].T + pose[:3, 3]) @ torch.tensor(camera.K, dtype=torch.float32).T
        return (seen[:, 1] / seen[:, 2]).long(), (seen[:, 0] / seen[:, 2]).long()


@pytest.fixture
def planted_run(new_run):
    """A run without growth of its own; ``points`` are where each view has its error."""

    def make(points, *, count=40, settings=None, **context):
        cameras = circle(len(points), degrees=60)
        probe = Planted(cameras, points)
        densifier = MultiView(**{"grow_grad": 1.0, "prune_opacity": 0.0, **QUICK, **(settings or {})})
        run = new_run(densifier, GaussianPrimitive(), count, probe=probe, cameras=cameras, **context)
        run.model.rows |= run.model.primitive.with_opacities(torch.full((count,), 0.5))
        probe.model = run.model
        return run

    return make


class TestPlan:
    def test_the_light_variant_takes_single_views_and_batches_after_growth(self):
        light = MultiView(refine_stop=10, coarse_until=0, batch=3, lr_power=0.5)
        plans = [light.plan(step) for step in range(1, 20)]
        assert {plan.views for plan in plans} == {1}
        assert [plan.optimize for plan in plans] == [True] * 9 + [False, False, True] * 3 + [False]
        assert [plan.lr_scale for plan in plans] == pytest.approx([1.0] * 9 + [3**0.5] * 10)

    def test_stages_of_the_full_variant(self):
        full = MultiView(variant="full", scales=PUBLISHED_SCALES, views=PUBLISHED_VIEWS, coarse_until=7, lr_power=0.0)
        plans = [full.plan(step) for step in range(1, 9)]
        assert [plan.res_scale for plan in plans] == [1 / 8] * 2 + [1 / 4] * 2 + [1 / 2] * 2 + [1] * 2
        assert [plan.views for plan in plans] == [48, 48, 24, 24, 12, 12, 8, 8]
        assert all(plan.optimize and plan.lr_scale == 1 for plan in plans)
        assert [replace(full, lr_power=1.0).plan(step).lr_scale for step in (1, 8)] == [2, 2], "twice at most"

    def test_learning_rates_grow_with_the_views(self):
        for power, expected in ((1.0, 2.0), (0.5, 2**0.5), (0.0, 1.0)):
            densifier = MultiView(variant="full", scales=(1,), views=(2,), lr_power=power)
            assert densifier.plan(1).lr_scale == pytest.approx(expected)

    def test_the_schedule_stretches_and_stays_coarse_to_fine(self):
        for densifier in (
            MultiView(),
            MultiView().rescaled(0.1),
            MultiView().rescaled(0.001),
            MultiView(scales=(1,), views=(4,)),
        ):
            scales = [densifier.plan(step).res_scale for step in range(1, 7000)]
            assert scales == sorted(scales) and scales[-1] == 1
        assert MultiView().rescaled(0.1).coarse_until == 600

    @pytest.mark.parametrize(
        "wrong", [{"views": (1,)}, {"scales": (), "views": ()}, {"batch": 0}, {"scales": (4, 2, 0)}]
    )
    def test_settings_that_do_not_go_together(self, wrong):
        with pytest.raises(ValueError, match="scales"):
            MultiView(**wrong)


class TestStatistics:
    def test_batch_of_views_equals_single_views(self, new_run):
        """A mean-of-batch loss divides each view's gradient: the statistics must not notice, to the last bit."""
        singles, batch = (new_run(MultiView(), GaussianPrimitive(), 50) for _ in range(2))
        generator = torch.Generator().manual_seed(0)
        norms, visible = torch.rand(4, 50, generator=generator), torch.rand(4, 50, generator=generator) < 0.7
        for view in range(4):
            stats = SplatStats(visible=visible[view : view + 1], grad2d=norms[view : view + 1])
            singles.densifier.observe(singles.state, 5, stats, width=64, height=48, view=view)
        batch.observe(5, SplatStats(visible=visible, grad2d=norms / 4))
        assert singles.state.tables["grad_sum"].count_nonzero() > 40
        for name, table in singles.state.tables.items():
            assert torch.equal(table, batch.state.tables[name])

    def test_a_step_of_many_views_counts_like_as_many_steps(self):
        """Drawn by the trainer, on rows that learning rates of zero keep where they are."""
        shared = {"scales": (1,), "coarse_until": 0}
        runs = {}
        for densifier, steps in (
            (MultiView(variant="full", views=(4,), **shared), 2),
            (MultiView(views=(1,), **shared), 8),
        ):
            trainer = make_trainer(
                _still(densifier), densifier=densifier, steps=steps, sh_every=0, resolution=ResolutionSchedule()
            )
            drive(trainer, [])
            runs[densifier.variant] = trainer.state
        full, light = runs["full"], runs["light"]
        assert full.views_taken == light.views_taken == 8
        start = fresh_state(MultiView()).model.rows
        assert all(torch.equal(table, start[name]) for name, table in full.model.rows.items())
        assert full.densify.tables["grad_sum"].count_nonzero() > 5
        for name, table in light.densify.tables.items():
            assert torch.equal(table, full.densify.tables[name]), name
        assert full.densify.scalars == light.densify.scalars and sum(full.densify.scalars.values()) == 8

    def test_grows_as_adaptive_does(self, new_run):
        """With one view and none of the extras it is adaptive, to the bit."""
        plain = new_run(AdaptiveDensity(), GaussianPrimitive(), 100)
        ours = new_run(MultiView(crossray="off", far_factor=1.0), GaussianPrimitive(), 100)
        steps = range(580, 810, 20)
        assert plain.steps(steps) == ours.steps(steps)
        assert all(torch.equal(ours.model.rows[name], table) for name, table in plain.model.rows.items())


def _still(densifier):
    """A state whose rows no optimizer step moves."""
    state = fresh_state(densifier)
    nothing = {"lr_means": 1e-30, "lr_means_final": 1e-30}  # lost in any float32; zero has no ratio
    nothing |= {name: 0.0 for name in ("lr_quats", "lr_scales", "lr_opacities", "lr_sh0", "lr_sh_rest")}
    state.model.primitive = replace(state.model.primitive, **nothing)
    return state


class TestFarApart:
    def _run(self, new_run, cameras, seen, **settings):
        densifier = MultiView(crossray="off", prune_opacity=0.0, grow_grad=2e-4, **settings)
        run = new_run(densifier, GaussianPrimitive(), 40, cameras=cameras)
        stats = SplatStats(visible=torch.ones(1, 40, dtype=torch.bool), grad2d=torch.full((1, 40), 1.5e-4))
        for view in seen:
            densifier.observe(run.state, 599, stats, width=WIDTH, height=HEIGHT, view=view)
        return run

    @pytest.mark.parametrize(("degrees", "factor"), [(360, 0.5), (60, 1.0)])
    def test_halves_the_threshold_only_when_views_are_far_apart(self, new_run, degrees, factor):
        run = self._run(new_run, circle(12, degrees=degrees), range(12))
        assert run.densifier.threshold_factor(run.state, run.model, run.context) == factor
        assert run.refine(600) == (["clone", "split"] if factor < 1 else [])

    def test_only_views_of_the_window_count(self, new_run):
        run = self._run(new_run, circle(12), [0, 1])
        assert run.densifier.threshold_factor(run.state, run.model, run.context) == 1
        run.refine(600)
        assert not run.state.scalars, "the next window starts empty"
        assert self._run(new_run, circle(12), [0, 6]).refine(600) == ["clone", "split"]

    def test_the_place_of_the_origin_does_not_matter(self, new_run):
        """Seen from an origin far off, all cameras are in one direction; the published rule measures there."""
        for away in (0.0, 1000.0):
            run = self._run(new_run, circle(12, centre=(0.5 + away, 0.5, 0.5)), range(12))
            run.model.rows["means"] = run.model.rows["means"] + torch.tensor([away, 0, 0])
            assert run.densifier.threshold_factor(run.state, run.model, run.context) == 0.5

    def test_switched_off_or_without_cameras(self, new_run):
        assert self._run(new_run, circle(12), range(12), far_factor=1.0).refine(600) == []
        assert self._run(new_run, (), range(12)).refine(600) == []
        assert self._run(new_run, circle(12), range(12), far_degrees=170.0).refine(600) == []


class TestCrossray:
    def _rows(self, run):
        """Rows cloned, by the names of their parents."""
        return sorted(int(name) for name in run.names[run.edits[0].source.shape[0] - run.edits[0].added :])

    @pytest.mark.parametrize("what", ["blend", "boxes"])
    def test_what_several_views_miss_is_cloned(self, planted_run, what):
        run = planted_run([(0.5, 0.5, 0.5)] * 4, settings={"crossray": what, "box_diagonal": 0.5})
        run.model.rows["means"][7] = torch.tensor([0.5, 0.5, 0.5])
        assert run.refine(600) == ["crossray"]
        assert 7 in self._rows(run)
        assert run.model.count <= 44, "a tenth of the splats at most"
        near = run.model.rows["means"][40:] - 0.5
        assert near.norm(dim=1).max() < 0.6, "only what lies on the rays to the spot, or in the box around it"

    def test_boxes_are_gated_by_their_size(self, planted_run):
        """Splats at the spot are in all windows: only the box decides."""
        for diagonal, expected in ((0.5, ["crossray"]), (0.01, [])):
            run = planted_run([(0.5, 0.5, 0.5)] * 4, settings={"crossray": "boxes", "box_diagonal": diagonal})
            run.model.rows["means"][7] = torch.tensor([0.5, 0.5, 0.5])
            assert run.refine(600) == expected

    @pytest.mark.parametrize("what", ["blend", "boxes"])
    def test_views_that_miss_different_things_clone_nothing(self, planted_run, what):
        points = [(0.5, 0.2, 0.5), (0.5, 0.8, 0.5)]
        run = planted_run(points, settings={"crossray": what, "box_diagonal": 0.5})
        run.model.rows["means"][:2] = torch.tensor(points)
        assert run.refine(600) == []
        assert sorted(run.context.probe.looked) == [0, 1]

    def test_parent_and_clone_share_the_opacity(self, planted_run):
        run = planted_run([(0.5, 0.5, 0.5)] * 3)
        run.model.rows["means"][7] = torch.tensor([0.5, 0.5, 0.5])
        run.refine(600)
        cloned = self._rows(run)
        assert run.model.opacities[cloned].tolist() == pytest.approx([0.29289] * len(cloned), abs=1e-5)
        assert run.model.opacities[40:].tolist() == pytest.approx([0.29289] * len(cloned), abs=1e-5)

    def test_the_budget_takes_those_most_in_the_windows(self, planted_run):
        run = planted_run([(0.5, 0.5, 0.5)] * 3, count=100, settings={"crossray_share": 0.02})
        run.model.rows["means"][:50] = torch.tensor([0.5, 0.5, 0.5])
        assert run.refine(600) == ["crossray"]
        assert self._rows(run) == [0, 1]

    @pytest.mark.parametrize(("room", "added"), [(0, 0), (1, 1), (50, 4)])
    def test_never_above_the_cap(self, planted_run, room, added):
        run = planted_run([(0.5, 0.5, 0.5)] * 3, max_splats=40 + room)
        run.model.rows["means"][:] = torch.tensor([0.5, 0.5, 0.5])
        run.refine(600)
        assert run.model.count == 40 + added
        assert run.context.probe.looked == [] or room, "no room, no look"

    def test_what_was_cloned_does_not_grow_again_in_the_same_round(self, planted_run):
        run = planted_run([(0.5, 0.5, 0.5)] * 3, settings={"grow_grad": 1e-4, "crossray_share": 0.03})
        run.model.rows["means"][7] = torch.tensor([0.5, 0.5, 0.5])
        run.model.rows |= run.model.primitive.with_scales(torch.full((40, 3), 0.005))
        stats = SplatStats(visible=torch.ones(1, 40, dtype=torch.bool), grad2d=torch.full((1, 40), 3e-4))
        run.observe(599, stats)
        assert run.refine(600) == ["crossray", "clone"]
        names = run.names.tolist()
        assert names.count(7) == 2 and len(names) == 80

    def test_every_nth_refinement_and_views_by_seed(self, planted_run):
        runs = [planted_run([(0.5, 0.5, 0.5)] * 12, settings={"crossray_every": 3, "probe_views": 5}) for _ in range(2)]
        runs.append(planted_run([(0.5, 0.5, 0.5)] * 12, settings={"crossray_every": 3, "probe_views": 5}, seed=1))
        looked = []
        for run in runs:
            asked = [len(run.context.probe.looked) for step in range(501, 1001) if run.refine(step) or True]
            steps = np.flatnonzero(np.diff([0, *asked])) + 501
            assert steps.tolist() == [600, 900]
            looked.append(run.context.probe.looked)
            assert len(set(looked[-1][:5])) == 5
        assert looked[0] == looked[1] != looked[2]

    def test_off_or_without_a_probe(self, planted_run):
        run = planted_run([(0.5, 0.5, 0.5)] * 3, settings={"crossray": "off"})
        run.model.rows["means"][7] = torch.tensor([0.5, 0.5, 0.5])
        assert run.refine(600) == [] and run.context.probe.looked == []
        run = planted_run([(0.5, 0.5, 0.5)] * 3)
        run.context = replace(run.context, probe=None)
        assert run.refine(600) == []
