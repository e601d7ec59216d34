from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from helpers_train import Restless, cameras, frame_of, fresh_state, make_trainer

from splat.metrics.structure import ssim_map
from splat.render.reference import ReferenceRasterizer
from splat.render.registry import rasterizer
from splat.render.types import CameraBatch, RenderOptions
from splat.train.frames import FrameSource
from splat.train.probe import ViewProbe
from splat.train.shield import ShieldedFrames


def probe_of(*, scale=1.0, drawer=None, count=12, background=(0.0, 0.0, 0.0)):
    state = fresh_state(Restless(), count=count)
    state.model.requires_grad_(True)
    frames = ShieldedFrames(FrameSource(cameras(), frame_of), state)
    options = RenderOptions(sh_degree=1)
    return ViewProbe(state.model, frames, drawer or rasterizer("native"), options, scale, background)


def test_a_look_is_the_picture_of_that_view_and_leaves_nothing_behind():
    probe = probe_of(background=(0.5, 0.25, 0.125))
    look = probe.look(3, stats=frozenset({"blend_sum", "visible"}))
    behind = RenderOptions(sh_degree=1, background=torch.tensor([0.5, 0.25, 0.125]), depth=frozenset({"expected"}))
    output = rasterizer("native").render(probe.model.render_inputs(), CameraBatch.of(cameras()[3]), behind)
    assert torch.equal(look.color, output.color[0].detach()) and torch.equal(look.alpha, output.alpha[0].detach())
    assert torch.equal((look.target * 255).round().byte(), torch.from_numpy(frame_of(3).pixels))
    assert (look.width, look.height, probe.count) == (12, 10, 5) and look.mask is None
    assert look.stats.blend_sum.shape == (1, 12) and look.stats.fragments is None
    drawn = look.alpha > 0.1
    assert ((look.depth[drawn] > 1.5) & (look.depth[drawn] < 4.5)).all() and drawn.any()
    assert (look.depth[look.alpha == 0] == 0).all()
    assert not look.color.requires_grad and all(table.grad is None for table in probe.model.rows.values())
    assert torch.equal(probe.look(3, stats=frozenset()).color, look.color)


def test_a_look_has_the_size_of_the_step_and_the_mask():
    look = probe_of(scale=0.5).look(1, stats=frozenset())
    assert look.color.shape == look.target.shape == (5, 6, 3) and look.alpha.shape == look.depth.shape == (5, 6)
    assert look.mask.shape == (5, 6) and (look.mask == 1).all()


def test_another_background_shows_through():
    probe = probe_of()
    black, white = (probe.look(0, stats=frozenset(), background=torch.full((3,), v)).color for v in (0.0, 1.0))
    assert torch.allclose((white - black)[..., 0], 1 - probe.look(0, stats=frozenset()).alpha, atol=1e-6)


def test_maps_see_a_first_drawing_and_weigh_a_second():
    probe, seen = probe_of(), []

    def worst(color, target):
        seen.append(color)
        return torch.stack([torch.ones_like(color[..., 0]), (color - target).abs().mean(-1)])

    look = probe.look(2, stats=frozenset({"fragments", "weighted_count", "weighted_blend"}), maps=worst)
    assert len(seen) == 1 and torch.equal(seen[0], look.color)
    ones, errors = look.stats.weighted_count[0]
    assert torch.equal(ones, look.stats.fragments[0]) and (errors < ones)[ones > 0].all() and (errors > 0).any()


@pytest.mark.parametrize("drawer", [None, ReferenceRasterizer()], ids=["native", "reference"])
def test_a_look_with_a_backward_pass_measures_and_leaves_no_gradient(drawer):
    probe = probe_of(drawer=drawer)
    waiting = torch.ones_like(probe.model.rows["means"])
    probe.model.rows["means"].grad = waiting
    look = probe.look_gradient(2, stats=frozenset({"sensitivity", "opacity_grad_sum", "blend_sum"}))
    assert (look.stats.sensitivity > 0).any() and (look.stats.opacity_grad_sum != 0).any()
    assert not look.color.requires_grad and torch.equal(look.color, probe.look(2, stats=frozenset()).color)
    assert probe.model.rows["means"].grad is waiting and (waiting == 1).all()
    assert all(table.grad is None for name, table in probe.model.rows.items() if name != "means")
    plain = probe_of(drawer=drawer)
    plain.model.requires_grad_(False)  # outside a training
    again = plain.look_gradient(2, stats=frozenset({"sensitivity"}))
    assert torch.equal(again.stats.sensitivity, look.stats.sensitivity)
    assert not any(table.requires_grad for table in plain.model.rows.values())


def test_the_gradient_of_ssim_alone_is_that_of_the_loss_with_no_other_part():
    probe = probe_of()
    needed = frozenset({"abs_grad2d_l2", "visible"})
    look = probe.look_gradient(1, stats=needed, loss="ssim")
    shown = probe.frames.view(1, probe.scale)
    inputs = probe.model.render_inputs()
    options = replace(probe._options(shown, None), stats=needed)
    output = probe.rasterizer.render(inputs, CameraBatch.of(shown.camera), options)
    (1 - ssim_map(output.color[0], shown.pixels[0].float() / 255, "same").mean()).backward()
    expected, found = output.stats.abs_grad2d_l2, look.stats.abs_grad2d_l2
    assert (found > 0).any() and torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.max()))
    assert not torch.allclose(found, probe.look_gradient(1, stats=needed).stats.abs_grad2d_l2, rtol=0.1)


def test_a_model_without_rows_can_be_looked_at():
    probe = probe_of()
    probe.model.rows = {name: table.detach()[:0] for name, table in probe.model.rows.items()}
    assert (probe.look_gradient(0, stats=frozenset({"sensitivity"})).alpha == 0).all()
    assert (probe.look(0, stats=frozenset({"blend_sum"})).color == 0).all()


def test_backward_statistics_are_not_silently_missing():
    with pytest.raises(ValueError, match=r"'grad2d'.*look_gradient"):
        probe_of().look(0, stats=frozenset({"grad2d", "visible"}))


@dataclass(frozen=True)
class Curious(Restless):
    """Looks at every view in each refinement."""

    def refine(self, state, step, model, ctx):
        assert ctx.cameras == ctx.probe.frames.cameras and len(ctx.cameras) == ctx.probe.count == 5
        for view in range(ctx.probe.count):
            look = ctx.probe.look(view, stats=frozenset({"blend_max"}))
            assert look.width == (6 if step < 5 else 12) and look.stats.blend_max.shape == (1, model.count)
        for number, edit in enumerate(super().refine(state, step, model, ctx)):
            yield edit
            seen = ctx.probe.look(0, stats=frozenset({"visible"})).stats.visible
            assert seen.shape == (1, model.count), number


def test_looking_changes_nothing_and_sees_the_rows_as_they_are():
    from helpers_train import all_bits

    plain, curious = make_trainer(), make_trainer(densifier=Curious())
    for trainer in (plain, curious):
        list(trainer.run())
    assert all_bits(plain.state) == all_bits(curious.state)
    assert plain.state.views_taken == curious.state.views_taken


def test_random_backgrounds_are_black_to_a_probe():
    trainer = make_trainer(background=None)
    probe = trainer._feed.probe(trainer.state, 5, replace(Restless().plan(1)), rasterizer("native"))
    assert probe.background == (0.0, 0.0, 0.0)
