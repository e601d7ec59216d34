"""Splits along a surface that a prior knows, on a slanted plane whose truth is known everywhere."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from splat.densify.geosplit import (
    ACCEPTED,
    DROPPED,
    SNAPPED,
    Placed,
    SplitRules,
    Surface,
    capped_fates,
    flattened,
    place_children,
    validation_tolerance,
)
from splat.geometry.camera import Camera

WIDTH, HEIGHT, FOCAL = 96, 72, 80.0
NORMAL = torch.tensor([0.4, 0.3, -0.866025])
NORMAL = NORMAL / NORMAL.norm()
AWAY = 3.0  # depth of the plane on the optical axis
RULES = SplitRules()


@dataclass
class Prior:
    depth: torch.Tensor
    normals: torch.Tensor
    valid: torch.Tensor
    reliability: float = 1.0
    error: float = 0.0


def turned_camera():
    """Looking in some direction from some place, so that no axis of the world is one of the camera."""
    axis, angle = np.array([0.36, 0.48, 0.8]), 0.7
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    pose = np.eye(4)
    pose[:3, :3] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    pose[:3, 3] = [0.3, -0.2, 0.5]
    K = np.array([[FOCAL, 0, 50.0], [0, FOCAL, 34.0], [0, 0, 1]])
    return Camera("a.png", pose, K, WIDTH, HEIGHT)


CAMERA = turned_camera()
WORLD_FROM_CAMERA = torch.from_numpy(CAMERA.world_from_camera).float()


def to_world(local):
    return local @ WORLD_FROM_CAMERA[:3, :3].T + WORLD_FROM_CAMERA[:3, 3]


def plane_depth(width=WIDTH, height=HEIGHT):
    """Depth [h,w] of the plane n.x = n.(0,0,AWAY) in the camera."""
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    rays = torch.stack([(u / width * WIDTH - 50) / FOCAL, (v / height * HEIGHT - 34) / FOCAL, torch.ones_like(u)], 2)
    return NORMAL[2] * AWAY / (rays * NORMAL).sum(2)


def plane_prior(scale=1.0, **size):
    depth = plane_depth(**size)
    normals = (NORMAL @ WORLD_FROM_CAMERA[:3, :3].T).expand(*depth.shape, 3)
    return Prior(scale * depth, normals, torch.ones_like(depth, dtype=torch.bool))


def surface_of(prior, rendered=None):
    rendered = plane_depth() if rendered is None else rendered
    return Surface.of(CAMERA, rendered, torch.ones_like(rendered), prior)


def on_plane(count, *, seed=0, jitter=0.0):
    """Points of the plane [R,3] in the world that fall well inside the picture."""
    random = torch.Generator().manual_seed(seed)
    u = 20 + torch.rand(count, generator=random) * (WIDTH - 40)
    v = 15 + torch.rand(count, generator=random) * (HEIGHT - 30)
    rays = torch.stack([(u - 50) / FOCAL, (v - 34) / FOCAL, torch.ones_like(u)], 1)
    z = NORMAL[2] * AWAY / (rays @ NORMAL) * (1 + jitter * torch.randn(count, generator=random))
    return to_world(rays * z[:, None])


def gap(points):
    """Distance from the plane along the optical axis over the points' own depth."""
    local = (points - WORLD_FROM_CAMERA[:3, 3]) @ WORLD_FROM_CAMERA[:3, :3]
    z = NORMAL[2] * AWAY / (local / local[:, 2:] @ NORMAL)
    return (local[:, 2] - z).abs() / local[:, 2]


def normal_draws(size, seed=0):
    random = torch.Generator().manual_seed(seed)
    return lambda which: size * torch.randn(len(which), 3, generator=random)


def placed_on(surface, means, *, size=0.15, tolerance=0.05, rules=RULES, reach=None):
    reach = torch.full((len(means),), size) if reach is None else reach
    return place_children(surface, means, reach, normal_draws(size), rules=rules, tolerance=tolerance)


def test_projection_agrees_with_the_camera():
    points = on_plane(50)
    places, z = surface_of(plane_prior()).seen(points)
    local = points.double().numpy() @ CAMERA.camera_from_world[:3, :3].T + CAMERA.camera_from_world[:3, 3]
    pixels = local @ CAMERA.K.T / local[:, 2:]
    assert np.allclose(places.numpy() * [WIDTH, HEIGHT], pixels[:, :2], atol=1e-3)
    assert np.allclose(z.numpy(), local[:, 2], atol=1e-5)


def test_sizes_of_prior_and_drawing_may_differ():
    means = on_plane(200)
    small = surface_of(plane_prior(width=48, height=36))
    assert small.members(means, 0.1).all()
    assert torch.allclose(small.prior_at(small.seen(means)[0]), small.seen(means)[1], rtol=0.03)


def test_children_lie_on_the_plane():
    """The spec's acceptance: 99 % of the accepted within 0.02 z, and 3 times fewer than at random beyond 5 %."""
    means = on_plane(4000)
    placed = placed_on(surface_of(plane_prior()), means, size=0.15)
    accepted = placed.snapped[placed.fate == ACCEPTED]
    assert len(accepted) > 0.95 * 2 * len(means)
    assert (gap(accepted) <= 0.02).float().mean() >= 0.99
    at_random = means + normal_draws(0.15, seed=5)(means)
    far_random = 2 * int((gap(at_random) > 0.05).sum())
    far = int((gap(placed.snapped[placed.fate != DROPPED]) > 0.05).sum())
    assert far_random > 1000 and 3 * far <= far_random


@pytest.mark.parametrize("scale", [0.25, 0.01, 3.7, 1000.0])
def test_blind_to_the_scale_of_the_prior(scale):
    """Where the ratio of depths decides at all: a prior with steps, so that children are rejected and snapped."""
    stepped = plane_prior()
    stepped.depth = stepped.depth * (1 + 0.12 * ((torch.arange(WIDTH) // 6) % 2))
    scaled = Prior(scale * stepped.depth, stepped.normals, stepped.valid)
    means = on_plane(1000)
    reach = torch.linspace(0.01, 1.0, 1000)
    one, other = (placed_on(surface_of(prior), means, reach=reach) for prior in (stepped, scaled))
    assert torch.equal(one.fate, other.fate)
    assert all((one.fate == fate).any() for fate in (ACCEPTED, SNAPPED, DROPPED))
    assert torch.allclose(one.snapped, other.snapped, atol=1e-4)
    assert surface_of(stepped).agreement() == surface_of(scaled).agreement()


def test_not_blind_to_an_offset_of_disparity():
    """Documented: a ratio keeps an offset, hence the alignment beforehand."""
    shifted = plane_prior()
    shifted.depth = 1 / (1 / shifted.depth - 0.25)
    means = on_plane(500)
    right, wrong = (placed_on(surface_of(prior), means, size=0.3) for prior in (plane_prior(), shifted))
    assert int((wrong.fate != ACCEPTED).sum()) > int((right.fate != ACCEPTED).sum()) + 50


def test_members_need_the_rendered_depth_and_a_valid_prior():
    """The wrong prior of another layer costs nothing: membership asks what is drawn, never the prior."""
    means = on_plane(100)
    prior = plane_prior()
    assert surface_of(prior).members(means, 0.1).all()
    assert not surface_of(prior, rendered=0.8 * plane_depth()).members(means, 0.1).any()
    assert surface_of(prior, rendered=0.95 * plane_depth()).members(means, 0.1).all()
    assert surface_of(Prior(7 * prior.depth, prior.normals, prior.valid)).members(means, 0.1).all()
    assert not surface_of(Prior(prior.depth, prior.normals, ~prior.valid)).members(means, 0.1).any()
    assert not surface_of(Prior(0 * prior.depth, prior.normals, prior.valid)).members(means, 0.1).any()
    faint = Surface.of(CAMERA, plane_depth(), torch.full((HEIGHT, WIDTH), 0.3), prior)
    assert not faint.members(means, 0.1).any()
    behind = to_world(torch.tensor([[0.0, 0.0, -3.0], [40.0, 0.0, 3.0]]))
    assert not surface_of(prior).members(behind, 0.1).any()


def test_agreement_tells_a_wrong_prior():
    right, random = plane_prior(), torch.Generator().manual_seed(0)
    assert surface_of(right).agreement() > 0.99
    noise = Prior(1 + 5 * torch.rand(HEIGHT, WIDTH, generator=random), right.normals, right.valid)
    assert surface_of(noise).agreement() < 0.3
    assert surface_of(Prior(right.depth, right.normals, ~right.valid)).agreement() == 0


def test_pairs_are_opposite_and_slide_on_the_tangent_plane():
    means = on_plane(300)
    placed = placed_on(surface_of(plane_prior()), means, rules=SplitRules(eta=0.0), size=0.05)
    assert torch.allclose(placed.drawn.mean(dim=1), means, atol=1e-5)
    world_normal = NORMAL @ WORLD_FROM_CAMERA[:3, :3].T
    offsets = placed.drawn[:, 0] - means
    assert (offsets @ world_normal).abs().max() < 1e-5 < offsets.norm(dim=1).min()


@pytest.mark.parametrize("eta", [0.0, 0.1, 1.0])
def test_flattened_keeps_eta_of_the_normal_part(eta):
    offsets = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]])
    normals = torch.tensor([[0.0, 0.0, 1.0], [0.6, 0.8, 0.0]])
    found = flattened(offsets, normals, eta)
    assert torch.allclose((found * normals).sum(1), eta * (offsets * normals).sum(1), atol=1e-6)
    assert torch.allclose(flattened(offsets, -normals, eta), found)


def behind_an_edge(step):
    """The plane's left half nearer than its right half by a factor; normals as they were."""
    prior = plane_prior()
    prior.depth = torch.where(torch.arange(WIDTH) < WIDTH // 2, prior.depth, step * prior.depth)
    return prior


def test_rejected_children_snap_when_near_and_are_dropped_when_far():
    prior, means = behind_an_edge(1.1), on_plane(1000)
    rules = SplitRules(resamples=0)
    surface = surface_of(prior)
    near = placed_on(surface, means, rules=rules, reach=torch.full((1000,), 10.0))
    far = placed_on(surface, means, rules=rules, reach=torch.full((1000,), 1e-3))
    assert (near.fate == SNAPPED).any() and not (near.fate == DROPPED).any()
    assert (far.fate == DROPPED).any() and not (far.fate == SNAPPED).any()
    assert torch.equal(near.fate == ACCEPTED, far.fate == ACCEPTED)
    snapped = near.snapped[near.fate == SNAPPED]
    parents = means[:, None].expand(-1, 2, -1)[near.fate == SNAPPED]
    places, z = surface.seen(snapped)
    parent_places, parent_z = surface.seen(parents)
    wanted = surface.prior_at(places) / surface.prior_at(parent_places)
    assert torch.allclose(z / parent_z, wanted, rtol=1e-3), "the depth ratio is the prior's"
    drawn_places = surface.seen(near.drawn[near.fate == SNAPPED])[0]
    assert torch.allclose(places, drawn_places, atol=1e-4), "along the pixel's ray"


def test_new_draws_help():
    surface, means = surface_of(behind_an_edge(1.3)), on_plane(2000)
    once = placed_on(surface, means, rules=SplitRules(resamples=0))
    often = placed_on(surface, means, rules=SplitRules(resamples=4))
    assert 0 < int((often.fate != ACCEPTED).sum()) < 0.5 * int((once.fate != ACCEPTED).sum())


def test_no_depth_at_the_child_is_no_objection():
    prior = plane_prior()
    prior.depth = torch.where(torch.arange(WIDTH) < WIDTH // 2, prior.depth, 0.0)
    surface = surface_of(prior)
    means = on_plane(500)
    means = means[surface.members(means, 0.1)]
    assert 100 < len(means) < 400
    assert (placed_on(surface, means, size=0.3).fate == ACCEPTED).float().mean() > 0.99


def test_children_behind_the_camera_are_dropped():
    surface, means = surface_of(plane_prior()), on_plane(20)
    back = torch.from_numpy(CAMERA.world_from_camera[:3, 2]).float()
    placed = place_children(
        surface, means, torch.full((20,), 100.0), lambda which: -8 * back.expand(len(which), 3),
        rules=SplitRules(eta=1.0, resamples=1), tolerance=0.05,
    )  # fmt: skip
    assert (placed.fate[:, 0] == DROPPED).all()


def test_at_most_a_share_is_rejected_the_worst_first():
    fate = torch.tensor([[SNAPPED, DROPPED], [DROPPED, SNAPPED]], dtype=torch.int8)
    change = torch.tensor([[0.1, 0.4], [0.3, 0.2]])
    drawn, snapped = torch.zeros(2, 2, 3), torch.ones(2, 2, 3)
    found, centres = capped_fates(Placed(drawn, snapped, fate, change), 0.5)
    assert found.tolist() == [[ACCEPTED, DROPPED], [DROPPED, ACCEPTED]]
    assert torch.equal(centres[found == ACCEPTED], torch.zeros(2, 3))
    assert capped_fates(Placed(drawn, snapped, fate, change), 1.0)[0] is fate
    assert (capped_fates(Placed(drawn, snapped, fate, change), 0.0)[0] == ACCEPTED).all()


def test_tolerance_relaxes_with_distrust_and_fades():
    assert validation_tolerance(0.05, 0.1, 1.0, 0.0) == pytest.approx(0.05)
    assert validation_tolerance(0.05, 0.1, 0.0, 0.0) == pytest.approx(0.1)
    assert validation_tolerance(0.05, 0.1, 1.0, 0.5) == pytest.approx(0.1)
    assert validation_tolerance(0.05, 0.1, 1.0, 1.0) == float("inf")


def test_nobody_to_place():
    placed = placed_on(surface_of(plane_prior()), torch.zeros(0, 3))
    assert placed.fate.shape == (0, 2) and placed.drawn.shape == (0, 2, 3)
