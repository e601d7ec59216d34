"""Splits along a surface that a depth prior knows: tangent-plane sampling and validation of the depth ratio's change
(specs: densifiers 2.2, R4; a reconstruction, as the paper's numbers are not public).

A prior only says how depth *changes* over a picture. Where the surface is, the rendered depth says: a splat that does
not lie on the surface the model draws (another layer, or a wrong prior) is left to the ordinary split. Both tests are
ratios, so the prior's scale does not matter; an offset of its disparity does, hence the alignment it comes with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from splat.geometry.camera import Camera
from splat.geometry.rotations import rotated

ACCEPTED, SNAPPED, DROPPED = 0, 1, 2
"""What became of a child; codes for logs."""
_SOLID_ALPHA = 0.5
"""Below it, rendered depth is a mixture with nothing."""
_SAME_SHAPE = 0.1
"""Prior and rendered depth that differ by less than this, once scaled to each other, show the same surface."""
_FEWEST_COMPARED = 50


class DepthPrior(Protocol):
    """What is believed about one training view, at any size of the same picture."""

    depth: Any  # [h,w] world units along the camera's z, 0 = unknown; array or tensor
    normals: Any  # [h,w,3] unit, world frame, either side
    valid: Any  # [h,w] bool: depth and normal are both known
    reliability: float
    """0 = useless, 1 = trusted."""
    error: float
    """Median relative error where truth is known; infinite where it is not."""


class Priors(Protocol):
    """Depth priors by place among the training views."""

    def prior(self, view: int) -> DepthPrior | None:
        """None where nothing is known about this view."""
        ...


@dataclass(frozen=True)
class SplitRules:
    """Numbers of R4."""

    eta: float = 0.1
    """Part of a child's offset along the normal that stays."""
    resamples: int = 4
    """New draws for parents with a rejected child."""


@dataclass(frozen=True, eq=False)
class Surface:
    """One view's prior beside what the model draws there."""

    camera_from_world: Tensor  # [4,4]
    focal: tuple[float, float]
    """Over width and height: pixel coordinates here run from 0 to 1."""
    center: tuple[float, float]
    rendered: Tensor  # [H,W] depth, 0 where nothing solid is drawn
    depth: Tensor  # [h,w], 0 where unknown
    normals: Tensor  # [h,w,3]
    valid: Tensor  # [h,w] bool: where splats may split along it
    reliability: float
    error: float

    @staticmethod
    def of(camera: Camera, rendered: Tensor, alpha: Tensor, prior: DepthPrior) -> Surface:
        """``rendered [H,W]``, ``alpha [H,W]`` of ``camera`` at any size; the prior goes to their device."""
        device = rendered.device
        depth = torch.as_tensor(prior.depth, device=device).float()
        normals = torch.as_tensor(prior.normals, device=device).float()
        valid = torch.as_tensor(prior.valid, device=device).bool()
        depth = torch.where(torch.isfinite(depth) & (depth > 0), depth, 0.0)
        valid = valid & (depth > 0) & torch.isfinite(normals).all(dim=2)
        return Surface(
            torch.as_tensor(camera.camera_from_world, dtype=torch.float32, device=device),
            (camera.K[0, 0] / camera.width, camera.K[1, 1] / camera.height),
            (camera.K[0, 2] / camera.width, camera.K[1, 2] / camera.height),
            torch.where((alpha > _SOLID_ALPHA) & torch.isfinite(rendered), rendered, 0.0), depth, normals, valid,
            float(prior.reliability), float(prior.error),
        )  # fmt: skip

    def seen(self, points: Tensor) -> tuple[Tensor, Tensor]:  # [R,3] -> [R,2] in 0..1 where inside, [R] depth
        """Where points fall in the picture, and how far away they are."""
        turn = self.camera_from_world[:3, :3].expand(points.shape[0], 3, 3)
        local = rotated(turn, points) + self.camera_from_world[:3, 3]
        z = local[:, 2]
        ahead = torch.where(z > 0, z, torch.nan)
        u = self.focal[0] * local[:, 0] / ahead + self.center[0]
        v = self.focal[1] * local[:, 1] / ahead + self.center[1]
        return torch.stack([u, v], dim=1), z

    def prior_at(self, places: Tensor) -> Tensor:  # [R,2] -> [R]
        """Depth of the prior; 0 outside and where it is unknown."""
        return _at(self.depth, places)

    def normals_at(self, places: Tensor) -> Tensor:  # [R,2] -> [R,3]
        return _at(self.normals, places)

    def members(self, means: Tensor, tolerance: float) -> Tensor:  # [R,3] -> [R] bool
        """Splats on the surface the model draws, where the prior is valid."""
        places, z = self.seen(means)
        drawn = _at(self.rendered, places)
        return _at(self.valid, places) & (drawn > 0) & ((z - drawn).abs() <= tolerance * z)

    def agreement(self) -> float:
        """Share of the picture whose rendered depth has the prior's shape, up to one factor; 0 with too little to
        compare. Random or misplaced priors stay near 0."""
        h, w = self.depth.shape
        rows = (torch.arange(h, device=self.depth.device) + 0.5) / h
        columns = (torch.arange(w, device=self.depth.device) + 0.5) / w
        v, u = torch.meshgrid(rows, columns, indexing="ij")
        drawn = _at(self.rendered, torch.stack([u.reshape(-1), v.reshape(-1)], dim=1))
        both = self.valid.reshape(-1) & (drawn > 0)
        ratios = self.depth.reshape(-1)[both] / drawn[both]
        if ratios.numel() < _FEWEST_COMPARED:
            return 0.0
        return int(((ratios / ratios.median() - 1).abs() <= _SAME_SHAPE).sum()) / ratios.numel()

    def ratio_changes(self, centres: Tensor, z: Tensor, depth: Tensor) -> Tensor:  # [R,3], [R], [R] -> [R]
        """|(z_c / z) / (D(x_c) / D(x)) - 1|: how much the depth changed other than the prior says. 0 where the prior
        says nothing; infinite behind the camera."""
        places, child_z = self.seen(centres)
        child_depth = self.prior_at(places)
        change = ((child_z / z) / (child_depth / depth) - 1).abs()
        change = torch.where(child_depth > 0, change, 0.0)
        return torch.where(child_z > 0, change, torch.inf)

    def snapped(self, centres: Tensor, z: Tensor, depth: Tensor) -> Tensor:  # [R,3], [R], [R] -> [R,3]
        """Moved along their pixels' rays to the depth that the prior's ratio asks for."""
        places, child_z = self.seen(centres)
        factor = z * (self.prior_at(places) / depth) / child_z
        rotation, translation = self.camera_from_world[:3, :3], self.camera_from_world[:3, 3]
        back = rotation.T.expand(centres.shape[0], 3, 3)
        eye = rotated(back[:1], -translation[None])
        return eye + (centres - eye) * factor[:, None]


@dataclass(frozen=True, eq=False)
class Placed:
    """Two children for each of R parents."""

    drawn: Tensor  # [R,2,3] centres as sampled
    snapped: Tensor  # [R,2,3] the same, on the surface where that is what becomes of them
    fate: Tensor  # [R,2] int8: ACCEPTED, SNAPPED or DROPPED
    change: Tensor  # [R,2] change of the depth ratio as sampled


def place_children(
    surface: Surface,
    means: Tensor,  # [R,3] parents, all of them members of the surface
    reach: Tensor,  # [R] farthest a snap may move a child, world units
    draw: Callable[[Tensor], Tensor],
    *,
    rules: SplitRules,
    tolerance: float,
) -> Placed:
    """Pairs of children at opposite offsets (the pair's centroid is the parent), flattened onto the tangent plane.

    ``draw(which [S]) -> [S,3]`` samples an offset for the parents ``which`` (rows of ``means``). ``tolerance`` bounds
    the change of the depth ratio. Parents with a rejected child draw again; the best draw counts. What is still
    rejected snaps to the prior's depth, or is dropped where that is too far.
    """
    places, z = surface.seen(means)
    depth, normals = surface.prior_at(places), surface.normals_at(places)
    centres = means[:, None].repeat(1, 2, 1)
    change = torch.full(centres.shape[:2], torch.inf, device=means.device)
    still = torch.arange(means.shape[0], device=means.device)
    for _ in range(1 + rules.resamples):
        if still.numel() == 0:
            break
        offsets = flattened(draw(still), normals[still], rules.eta)
        pairs = torch.stack([means[still] + offsets, means[still] - offsets], dim=1)
        found = torch.stack([surface.ratio_changes(pairs[:, k], z[still], depth[still]) for k in (0, 1)], dim=1)
        better = _rejected(found, tolerance) < _rejected(change[still], tolerance)
        better |= torch.isinf(change[still]).all(dim=1)  # the first draw
        centres[still[better]], change[still[better]] = pairs[better], found[better]
        still = still[_rejected(change[still], tolerance) > 0]
    snapped = torch.stack([surface.snapped(centres[:, k], z, depth) for k in (0, 1)], dim=1)
    near = torch.isfinite(change) & torch.isfinite(snapped).all(dim=2)
    near &= (snapped - centres).norm(dim=2) <= reach[:, None]
    fate = torch.where(change <= tolerance, ACCEPTED, torch.where(near, SNAPPED, DROPPED)).to(torch.int8)
    return Placed(centres, torch.where((fate == SNAPPED)[..., None], snapped, centres), fate, change)


def flattened(offsets: Tensor, normals: Tensor, eta: float) -> Tensor:  # [R,3], [R,3] -> [R,3]
    """Offsets with only ``eta`` of their part along the normal: children slide along the tangent plane."""
    along = (offsets[:, 0] * normals[:, 0] + offsets[:, 1] * normals[:, 1]) + offsets[:, 2] * normals[:, 2]
    return offsets - (1 - eta) * along[:, None] * normals


def capped_fates(placed: Placed, share: float) -> tuple[Tensor, Tensor]:  # [R,2] int8, [R,2,3]
    """Fates and centres when at most ``share`` of the children may be rejected: the worst ones are, the others stay
    where they were drawn. A prior that rejects more is wrong too often to be obeyed."""
    fate = placed.fate.reshape(-1)
    rejected = (fate != ACCEPTED).nonzero().squeeze(1)
    budget = int(share * fate.numel())
    if rejected.numel() <= budget:
        return placed.fate, placed.snapped
    order = torch.sort(placed.change.reshape(-1)[rejected], descending=True, stable=True).indices
    pardoned = rejected[order[budget:]]
    fate = fate.clone()
    fate[pardoned] = ACCEPTED
    fate = fate.reshape(placed.fate.shape)
    return fate, torch.where((fate == ACCEPTED)[..., None], placed.drawn, placed.snapped)


def validation_tolerance(rules_tau: float, loose_tau: float, reliability: float, faded: float) -> float:
    """The tolerance for a view: ``loose_tau`` at reliability 0, ``rules_tau`` at 1, and without bound as ``faded``
    goes to 1, so that photometry has the last word."""
    trust = min(max(reliability, 0.0), 1.0)
    tolerance = loose_tau + (rules_tau - loose_tau) * trust
    return tolerance / (1 - faded) if faded < 1 else float("inf")


def _rejected(change: Tensor, tolerance: float) -> Tensor:  # [R,2] -> [R]
    return (change > tolerance).sum(dim=1)


def _at(table: Tensor, places: Tensor) -> Tensor:  # [h,w,...], [R,2] -> [R,...]
    """The pixel under each place (0..1, across and down); 0 outside. Not interpolated: depth jumps at edges."""
    h, w = table.shape[:2]
    inside = ((places >= 0) & (places < 1)).all(dim=1)
    column = (torch.where(inside, places[:, 0], 0.0) * w).long().clamp(0, w - 1)
    row = (torch.where(inside, places[:, 1], 0.0) * h).long().clamp(0, h - 1)
    found = table[row, column]
    return torch.where(inside.reshape(-1, *[1] * (found.dim() - 1)), found, torch.zeros_like(found))
