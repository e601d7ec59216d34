"""Parts of the drag with a prior: registry, weights, schedules, field, regions, pins, graph."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass
from math import acos, pi
from pathlib import Path

import numpy as np
import pytest
import torch
from prior_worlds import cameras, lift, right_end, slab

from splat.edit.ops import Drag, Handle
from splat.edit.prior import weights
from splat.edit.prior.adam import Adam, Group
from splat.edit.prior.nodes import node_graph
from splat.edit.prior.pins import pins_of
from splat.edit.prior.regions import split_regions
from splat.edit.prior.registry import PRIORS, prior_named
from splat.edit.prior.schedule import noise_level, point_guidance, stage_switch, timestep
from splat.edit.prior.score import NoiseTable, score_target
from splat.edit.prior.triplane import TriplaneField
from splat.edit.prior.views import ENOUGH_PX, at_size, choose_views, pixels_of
from splat.edit.prior.weights import WeightSpec, require_weights
from splat.errors import UserError
from splat.geometry.rotations import matrix_from_quat
from splat.optim import reference
from splat.render.native_rasterizer import NativeRasterizer

# --- the registry and its weights --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(PRIORS))
def test_every_prior_is_a_frozen_value_that_says_what_it_needs(kind: str, tmp_path: Path) -> None:
    prior = prior_named(kind)
    assert prior.kind == kind and prior.purpose and "\n" not in prior.purpose
    assert is_dataclass(prior) and prior == PRIORS[kind]()
    for field in fields(prior):
        with pytest.raises(FrozenInstanceError):
            setattr(prior, field.name, None)
    for spec in prior.needs():
        assert spec.files and spec.size_mb > 0 and spec.licence and spec.source
        assert not any(part.endswith(weights.PICKLES) for name in spec.files for part in name.split("|"))
        assert not any(Path(part).is_absolute() for name in spec.files for part in name.split("|"))
    ready = {"folder": tmp_path, "device": torch.device("cpu"), "seed": 0}
    if not prior.needs():
        guidance = prior.prepare([], torch.zeros(0, 3), torch.zeros(0, 3), **ready)
        loss, _ = guidance.loss(torch.ones(1, 3, 4, 4), [0], 0.5)
        assert not prior.looks and float(loss) == 0
        return
    with pytest.raises(UserError) as caught:
        prior.prepare([], torch.zeros(0, 3), torch.zeros(0, 3), **ready)
    for spec in prior.needs():
        assert spec.name in str(caught.value) and spec.licence in str(caught.value) and spec.source in str(caught.value)
        for name in spec.files:
            assert name.split("|")[0] in str(caught.value)


def test_an_unknown_prior_is_named_with_the_choices() -> None:
    with pytest.raises(
        UserError, match=r"unknown edit prior 'sds-inpant' \(did you mean 'sds-inpaint'\?\); choices: none"
    ):
        prior_named("sds-inpant")


SPEC = WeightSpec("the denoiser", ("unet/config.json", "unet/net.safetensors|unet/net.fp16.safetensors"),
                  3400, "some licence", "from somewhere")  # fmt: skip


def test_all_missing_files_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        require_weights("toy", [SPEC], tmp_path)
    assert str(caught.value) == (
        f"edit prior 'toy': {tmp_path} lacks unet/config.json, unet/net.safetensors or unet/net.fp16.safetensors of "
        "the denoiser (about 3.4 GB, licence some licence; from somewhere)"
    )


@pytest.mark.parametrize("suffix", weights.PICKLES)
def test_a_pickle_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    (tmp_path / "unet" / f"net{suffix}").write_bytes(b"")
    with pytest.raises(UserError, match=rf"unet/net\{suffix} there is a pickle.*refused: convert it to safetensors"):
        require_weights("toy", [SPEC], tmp_path)


def test_either_name_of_a_file_serves(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    for name in ("config.json", "net.fp16.safetensors"):
        (tmp_path / "unet" / name).write_bytes(b"")
    assert require_weights("toy", [SPEC], tmp_path) == tmp_path
    assert weights.found(tmp_path, SPEC.files[1]).name == "net.fp16.safetensors"


def test_no_folder_and_the_name_of_a_hub() -> None:
    with pytest.raises(UserError, match="--edit-prior-path"):
        require_weights("toy", [SPEC], None)
    with pytest.raises(UserError, match="never by the name of a model on a hub"):
        require_weights("toy", [SPEC], Path("someone/some-model"))


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"needs diffusers, transformers, peft, accelerate: pip install 'splat\[diffusion\]'"
    ):
        weights.require_packages("toy")


# --- schedules ---------------------------------------------------------------------------------------------------


def test_the_noise_falls_in_a_line() -> None:
    assert noise_level(0) == pytest.approx(0.98) and noise_level(1) == pytest.approx(0.02)
    assert noise_level(0.5) == pytest.approx(0.5) and noise_level(7) == pytest.approx(0.02)
    assert [timestep(r, 1000) for r in (0, 0.25, 1)] == [980, 740, 20]
    assert timestep(0, 1) == 0  # never beyond the table


def test_the_first_stage_ends_where_a_cosine_meets_its_level() -> None:
    assert stage_switch(1500) == round(1500 / pi * acos(5 / 12)) == 545
    assert stage_switch(3) == 1 and stage_switch(1) == 0


def test_guidance_by_points_falls_from_four_to_one() -> None:
    assert [point_guidance(r) for r in (0, 0.5, 1)] == pytest.approx([4, 1.75, 1])


def test_the_target_is_what_the_prior_would_have() -> None:
    """A prior that predicts the noise asks for nothing; one that sees more noise asks for less of it."""
    table = NoiseTable(torch.linspace(0.999, 0.01, 100).double())
    z, noise = (torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(i)).double() for i in (0, 1))
    z_t = table.noised(z, noise, 60)
    torch.testing.assert_close(score_target(table, 60, z_t, noise=noise, prior=noise, source=noise), z)
    a, s = table.scales(60)
    other = score_target(table, 60, z_t, noise=noise, prior=noise + 0.1, source=noise)
    torch.testing.assert_close(other, z - s / a * 0.1)
    velocity = NoiseTable(table.alphas_bar, "v_prediction")
    torch.testing.assert_close(velocity.noise_of(a * noise - s * z, z_t, 60), noise)


# --- the field ---------------------------------------------------------------------------------------------------

LOW, HIGH = torch.tensor([-1.0, -1, -1]), torch.tensor([1.0, 2, 1])


def small_field(seed: int = 0) -> TriplaneField:
    return TriplaneField(LOW, HIGH, resolutions=(4, 8), channels=3, seed=seed)


def points(count: int = 20) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(2)) * (HIGH - LOW) + LOW


def test_a_field_begins_at_zero_and_draws_nothing_ambient() -> None:
    state = torch.random.get_rng_state()
    field = small_field()
    assert torch.equal(torch.random.get_rng_state(), state)
    inside = torch.arange(20) < 10
    assert torch.equal(field(points(), inside), torch.zeros(20, 3))
    assert field.features(points()).shape == (20, 64) and bool(field.features(points()).std(0).min() > 0)
    again, other = small_field(), small_field(1)
    assert torch.equal(again.features(points()), field.features(points()))
    assert not torch.equal(other.features(points()), field.features(points()))
    published = sum(p.numel() for p in TriplaneField(LOW, HIGH).grid_parameters())
    assert published == 3 * 32 * (64**2 + 128**2 + 256**2 + 512**2)


def learned_field() -> TriplaneField:
    """With last layers that are not zero, so that everything before them gets a gradient."""
    field = small_field()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for head in (field.inner, field.outer):
            head[-1].weight.normal_(generator=generator)
    return field


def test_inside_the_planes_and_the_first_head_learn() -> None:
    field = learned_field()
    field(points(), torch.ones(20, dtype=torch.bool)).square().sum().backward()
    assert all(bool(plane.grad.abs().sum() > 0) for plane in field.grid_parameters())
    assert all(bool(table.grad.abs().sum() > 0) for table in field.inner.parameters())
    assert all(not bool(table.grad.any()) for table in field.outer.parameters())


def test_outside_only_the_second_head_learns() -> None:
    field = learned_field()
    field(points(), torch.zeros(20, dtype=torch.bool)).square().sum().backward()
    assert all(bool(table.grad.abs().sum() > 0) for table in field.outer.parameters())
    frozen = [*field.grid_parameters(), *field.mix.parameters(), *field.inner.parameters()]
    assert all(table.grad is None or not bool(table.grad.any()) for table in frozen)


def test_outside_starts_from_the_first_heads_offset() -> None:
    field = learned_field()
    torch.nn.init.zeros_(field.outer[-1].weight)
    inside, outside = (field(points(), torch.full((20,), where)) for where in (True, False))
    assert torch.equal(inside, outside) and bool(inside.abs().max() > 0)


def test_the_gradient_of_a_field_against_differences() -> None:
    field = learned_field().double()
    place = points(1).double()
    weight = field.planes[1]

    def value() -> torch.Tensor:
        return field(place, torch.ones(1, dtype=torch.bool)).sum()

    value().backward()
    index = tuple(int(i) for i in (weight.grad.abs() == weight.grad.abs().max()).nonzero()[0])
    step = 1e-5
    with torch.no_grad():
        weight[index] += step
        up = value()
        weight[index] -= 2 * step
        difference = (up - value()) / (2 * step)
    assert float(weight.grad[index]) == pytest.approx(float(difference), rel=1e-4)


# --- regions, pins, graph ----------------------------------------------------------------------------------------


def test_regions_of_a_line() -> None:
    """The shell of the upper half of a line of splats is the next few below it."""
    means = torch.zeros(40, 3)
    means[:, 0] = torch.arange(40) * 0.1
    mask = torch.arange(40) >= 20
    regions = split_regions(means, mask, neighbours=3)
    assert regions.rows.tolist() == list(range(17, 40))
    assert regions.rows[regions.shell].tolist() == [17, 18, 19]
    more = split_regions(means, mask, neighbours=3, also=torch.tensor([5, 30]))
    assert more.rows[more.shell].tolist() == [5, 17, 18, 19]
    means[30] = torch.nan
    assert 30 not in split_regions(means, mask, neighbours=3).rows.tolist()


def test_what_is_far_from_a_lonely_object_is_no_shell() -> None:
    means = torch.cat([torch.rand(10, 3, generator=torch.Generator().manual_seed(0)), torch.full((5, 3), 50.0)])
    regions = split_regions(means, torch.arange(15) < 10)
    assert len(regions.rows) == 10 and not bool(regions.shell.any())
    assert len(split_regions(means, torch.zeros(15, dtype=torch.bool)).rows) == 0


def test_pins_are_firm_within_their_radius_and_at_the_nearest_splat() -> None:
    points = torch.tensor([[0.0, 0, 0], [0.3, 0, 0], [0.6, 0, 0], [2.0, 0, 0], [2.45, 0, 0], [9.0, 0, 0]])
    drag = Drag((Handle((0.0, 0, 0), (0.0, 1, 0), 0.3),), (Handle((2.1, 0, 0), (0.0, 0, 0)),))
    start = points + torch.tensor([0.0, 0.9, 0.0])  # a tenth is missing at the handle, all is too much at the anchor
    pins = pins_of(drag, points, start, falloff=0.5)
    # An anchor without a radius holds the splat nearest to it, 0.1 away; the fifth is 0.25 beyond that.
    wanted = torch.tensor([1.0, 1, (1 - 0.6**2) ** 2, 1, (1 - 0.5**2) ** 2, 0])
    torch.testing.assert_close(pins.firm, wanted, rtol=1e-3, atol=1e-4)
    closed = torch.tensor([0.1, 0.1, 0.1, -0.9, -0.9, 0.0]) * wanted
    torch.testing.assert_close(pins.closing[:, 1], closed, rtol=1e-3, atol=1e-4)
    assert not bool(pins.closing[:, [0, 2]].any())


def test_pins_close_by_each_arrive_where_they_should() -> None:
    cloud = slab().rows["means"]
    turn = (0.8, 0.0, 0.0, 0.6)  # about z
    first, second = (tuple(cloud[row].tolist()) for row in (0, int((cloud - cloud[0]).norm(dim=1).sort().indices[1])))
    drag = Drag((Handle(first, (0.0, 2.0, 0.0)), Handle(second, (1.0, 0.0, 0.0), 0.0, turn)))
    moved = cloud + pins_of(drag, cloud, cloud, falloff=0.3).closing
    arrived = torch.stack([moved[(cloud - torch.tensor(at)).norm(dim=1).argmin()] for at in (first, second)])
    torch.testing.assert_close(arrived, torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]]), rtol=1e-4, atol=1e-4)


def test_the_energy_is_that_of_shapes_not_of_motions() -> None:
    model = slab(2000)
    graph = node_graph(model, torch.ones(model.count, dtype=torch.bool), 80)
    cloud = model.rows["means"]
    nodes = graph.gathered(cloud)
    assert 20 < graph.count <= 80
    torch.testing.assert_close(nodes[graph.ends[1]] - nodes[graph.ends[0]], graph.edges, rtol=1e-4, atol=1e-5)
    turn = matrix_from_quat(torch.tensor([0.5, 0.5, 0.5, 0.5]))
    for moved in (cloud, cloud @ turn.T + 3):
        assert float(graph.energy(graph.gathered(moved))) < 1e-9
    stretched, more = (float(graph.energy(nodes * factor)) for factor in (1.1, 1.2))
    assert stretched > 1e-4 and more == pytest.approx(4 * stretched, rel=1e-3)
    assert float(graph.energy(nodes * torch.tensor([-1.0, 1, 1]))) > 0.1  # a mirror is no rotation
    turns = graph.turned(nodes, nodes @ turn.T)
    torch.testing.assert_close(turns, turn.expand_as(turns), rtol=1e-3, atol=1e-3)


def test_the_gradient_of_the_energy_against_differences() -> None:
    """The rotations are found anew, and yet the gradient with them fixed is the gradient."""
    model = slab(300)
    model.rows = {name: table.double() for name, table in model.rows.items()}
    graph = node_graph(model, torch.ones(300, dtype=torch.bool), 40)
    nodes = graph.gathered(model.rows["means"])
    nodes = nodes + 0.1 * torch.randn(nodes.shape, generator=torch.Generator().manual_seed(1)).double()
    nodes.requires_grad_()
    graph.energy(nodes).backward()
    step = torch.zeros_like(nodes)
    step[7, 1] = 1e-5
    with torch.no_grad():
        difference = (graph.energy(nodes + step) - graph.energy(nodes - step)) / 2e-5
    assert float(nodes.grad[7, 1]) == pytest.approx(float(difference), rel=1e-5)


def test_what_hangs_on_nodes_follows_them() -> None:
    model = slab()
    graph = node_graph(model, torch.ones(model.count, dtype=torch.bool), 60)
    torch.testing.assert_close(graph.carried.sum(1), torch.ones(model.count))
    offsets = torch.tensor([[1.0, -2, 3]]).expand(graph.count, 3)
    torch.testing.assert_close(graph.spread(offsets), offsets[:1].expand(model.count, 3))
    torch.testing.assert_close(graph.gathered(graph.spread(offsets)), offsets)


def test_what_only_comes_near_does_not_follow() -> None:
    """Two slabs with a gap between them are two parts."""
    model = slab(2000)
    model.rows["means"][:, 1] += torch.where(model.rows["means"][:, 1] > 0, 0.4, 0.0)
    graph = node_graph(model, torch.ones(model.count, dtype=torch.bool), 400)
    upper = graph.gathered(model.rows["means"])[:, 1] > 0.2
    one, other = graph.ends
    assert bool((upper[one] == upper[other]).all())
    moved = graph.spread(upper.float()[:, None])[:, 0]
    assert torch.equal(moved.round(), (model.rows["means"][:, 1] > 0.2).float())


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_splats_have_a_graph_too(count: int) -> None:
    model = slab(count)
    graph = node_graph(model, torch.ones(count, dtype=torch.bool), 50)
    moved = model.rows["means"].clone().requires_grad_()
    graph.energy(graph.gathered(moved)).backward()
    nodes = graph.gathered(model.rows["means"])
    assert bool(torch.isfinite(moved.grad).all()) and graph.turned(nodes, nodes).shape == (count, 3, 3)


# --- views -------------------------------------------------------------------------------------------------------


def test_only_cameras_that_see_the_mask_are_taken() -> None:
    model, given = slab(), cameras(5)
    away = given[0].posed(np.diag([-1.0, 1, -1, 1]) @ given[0].camera_from_world)
    picked = choose_views(
        model, right_end(model), lift(model), [away, *given], NativeRasterizer(), most=3, longest_px=64
    )
    assert [view.camera.name for view in picked] == ["view 0", "view 2", "view 4"]
    view = picked[1]
    assert view.picture.shape == (3, 64, 64) and float(view.picture.max()) <= 1
    assert ENOUGH_PX <= int(view.mask.sum()) < 64 * 64 and set(view.mask.unique().tolist()) == {0.0, 1.0}
    x, y = (int(part) for part in view.targets[0])
    assert view.mask[y, x] == 1  # where the part goes may change too


def test_sizes_suit_the_networks_and_points_the_picture() -> None:
    camera = cameras(1)[0].resized(1000, 700)
    small = at_size(camera, 512)
    assert (small.width, small.height) == (512, 384)
    ahead, behind = torch.tensor([[0.1, 0.2, 0.0]]), torch.tensor([[0.0, 0.0, -9.0]])
    pixels = pixels_of(torch.cat([ahead, behind]), small)
    local = small.camera_from_world @ torch.tensor([0.1, 0.2, 0.0, 1.0]).double().numpy()
    wanted = (small.K @ local[:3])[:2] / local[2]
    assert pixels[0].tolist() == pytest.approx(wanted.tolist()) and bool(pixels[1].isnan().all())


def test_adam_takes_the_steps_of_the_reference() -> None:
    ours, theirs = (torch.linspace(-1, 1, 12).requires_grad_() for _ in range(2))
    resting, moments = torch.ones(2, requires_grad=True), (torch.zeros(12), torch.zeros(12))
    mine = Adam([Group([ours, resting], 0.05)])
    for number in range(1, 6):
        mine.zero_grad()
        theirs.grad = None
        for table in (ours, theirs):
            (table.square() * number + table).sum().backward()
        mine.step()
        reference.adam_step(
            theirs.detach(), theirs.grad, *moments, lr=0.05, beta1=0.9, beta2=0.999, eps=1e-8, step=number
        )
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(resting, torch.ones(2))
