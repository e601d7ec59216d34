"""The smooth convex footprint (3D Convex Splatting, Held et al. 2025), as the paper means it (see ``reference``).

A convex is the hull of its vertices on the picture. With L_j the line function of edge j, the edge's length times the
signed distance, positive outside (px^2), and z the depth of the centre:

    A = z delta,  phi = log sum_j exp(A L_j),  coverage = 1 / (1 + exp(z sigma phi))

Where we leave the publication: L grows with the square of the resolution, so A is multiplied by f_ref^2 / (fx fy) for
a reference focal length f_ref (f_ref <= 0: not, as published); a convex is not drawn when any vertex is nearer than
the near plane; gradients are those of the formulas; the box is the one outside which alpha < 1/255. A convex also ends
where the largest line function passes ``SKIRT`` times the hull's area, in both passes and without a gradient: soft
specks would else be blended into hundreds of tiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splat.model.render_inputs import RenderInputs
from splat.render.reference_projection import (
    ALPHA_MIN,
    NOWHERE,
    ScreenSplats,
    View,
    colors,
    pinhole,
    transformed,
)
from splat.render.types import RenderOptions

REACH_PX = 10_000.0  # farther vertices are grazing the camera's plane, and their products leave float32
SKIRT = 4.0
COLLINEAR = 4e-7  # of the terms of a cross product: what float32 can tell from a straight line
THINNEST, SMALLEST = 1e-5, 1e-12  # twice the area over the squared radius; twice the area, px^2
FLATTEST, STEEPEST = 1e-30, 1e20  # of A and z sigma; of A radius^2, alone and times z sigma
FEASIBLE = 1e-9  # of a half-plane's own size: a corner counts as being on the two lines that make it


@dataclass(frozen=True, eq=False)
class ConvexSplats(ScreenSplats):
    outline: Tensor  # [n,K,2] px, the vertices from the centre
    lines: Tensor  # [n,E,3] n_x, n_y, e of the edges: L = n . d + e at d px from the centre
    is_edge: Tensor  # [n,E] bool: the others fill up
    steepness: Tensor  # [n] A, 1/px^2
    sharpness: Tensor  # [n] z sigma
    reach: Tensor  # [n] px^2, of the largest line function


@dataclass(frozen=True)
class ConvexFootprint:
    """``RenderInputs.shape`` is (vertices [N,K,3] world, offsets; log delta [N]; log sigma [N]); ``constants`` is
    (f_ref in px, 1 for the published gradients, which are not the reference's business)."""

    def project(self, inputs: RenderInputs, view: View, options: RenderOptions) -> ConvexSplats:
        vertices, log_deltas, log_sigmas = inputs.shape
        # Offsets are centred where they are used, so that the mean is the centroid.
        corners = inputs.means[:, None] + vertices - vertices.mean(1, keepdim=True)  # [N,K,3]
        corners = transformed(corners, view.camera_from_world)
        means_camera = transformed(inputs.means, view.camera_from_world)
        x, y, z = means_camera.unbind(1)
        centers = pinhole(x, y, z, view)
        outline = pinhole(*corners.unbind(2), view) - centers[:, None]  # [N,K,2] px from the centre
        lines, is_edge, doubled_area = hull_edges(outline)
        focal = inputs.constants[0]
        resolution = focal**2 / (view.K[0, 0] * view.K[1, 1]) if focal > 0 else 1.0
        steepness = z * log_deltas.exp() * resolution
        sharpness = z * log_sigmas.exp()
        opacities = inputs.logit_opacities.sigmoid()
        with torch.no_grad():
            # o C = 1/255 at phi_max, and phi >= A max L: the coverage ends where some line function passes phi_max/A.
            phi_max = (opacities / ALPHA_MIN - 1).clamp(min=1e-30).log() / sharpness
            reach = 0.5 * SKIRT * doubled_area
            box = polygon_box(lines, is_edge, torch.minimum(phi_max / steepness, reach))
            radius_sq = outline.square().sum(2).amax(1)
            exists = (corners[..., 2] > options.near).all(1) & (is_edge.sum(1) >= 3) & (radius_sq <= REACH_PX**2)
            exists &= (doubled_area > SMALLEST) & (doubled_area > THINNEST * radius_sq)
            steep = steepness * radius_sq
            exists &= torch.minimum(sharpness, steepness) > FLATTEST
            exists &= torch.maximum(steep, sharpness * steep) < STEEPEST
        return ConvexSplats(
            centers, z, opacities, colors(inputs, view, options), box, exists,
            outline, lines, is_edge, steepness, sharpness, reach,
        )  # fmt: skip

    def response(self, splats: ConvexSplats, dx: Tensor, dy: Tensor) -> Tensor:
        lines = line_functions(splats, dx, dy)
        no_edge = ~splats.is_edge
        exponents = (splats.steepness[:, None] * lines).masked_fill(no_edge, -torch.inf)
        coverage = torch.sigmoid(-splats.sharpness * exponents.logsumexp(2))
        within = lines.detach().masked_fill(no_edge, -torch.inf).amax(2) <= splats.reach
        return torch.where(within, coverage, torch.zeros_like(coverage))


def line_functions(splats: ConvexSplats, dx: Tensor, dy: Tensor) -> Tensor:  # [P,n] px -> [P,n,E] px^2
    """Positive outside; of any value for what is no edge."""
    n_x, n_y, e = splats.lines.unbind(2)
    return n_x * dx[..., None] + n_y * dy[..., None] + e


def hull_edges(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The convex hull of each row of ``points`` [n,K,2]: lines [n,K,3], which are edges [n,K], twice its area [n].

    By definition rather than by an algorithm: a -> b is an edge when every other point lies on its inner side, or on
    the line between the two. Of points at one place the first counts.
    """
    count = points.shape[1]
    a, b, other = points[:, :, None, None], points[:, None, :, None], points[:, None, None, :]
    with torch.no_grad():
        along, to_other = b - a, other - a  # [n,K,K,1,2], [n,K,1,K,2]
        left, right = along[..., 0] * to_other[..., 1], along[..., 1] * to_other[..., 0]  # [n,K,K,K]
        cross, rounding = left - right, COLLINEAR * (left.abs() + right.abs())
        reach = (along * to_other).sum(-1)
        between = (cross.abs() <= rounding) & (reach >= 0) & (reach <= along.square().sum(-1))
        inside = ((cross > rounding) | between).all(3)  # [n,a,b]
        earlier = torch.ones(count, count, dtype=torch.bool, device=points.device).tril(-1)
        repeated = ((points[:, :, None] == points[:, None]).all(3) & earlier).any(2)  # [n,K]
        edges = inside & ~repeated[:, :, None] & ~repeated[:, None, :]
        edges &= (points[:, :, None] != points[:, None]).any(3)
        is_edge, following = edges.any(2), edges.float().argmax(2)  # at most one edge leaves a point
    end = points.gather(1, following[..., None].expand(-1, -1, 2))  # [n,K,2]
    n_x, n_y = end[..., 1] - points[..., 1], points[..., 0] - end[..., 0]
    e = -(n_x * points[..., 0] + n_y * points[..., 1])
    # The origin sees each edge as a triangle of area -e/2.
    return torch.stack([n_x, n_y, e], 2), is_edge, -(e.detach() * is_edge).sum(1)


@torch.no_grad()
def polygon_box(lines: Tensor, is_edge: Tensor, level: Tensor) -> Tensor:
    """Half sizes [n,2] of the box about the origin of the polygon {L_j <= level for all j}; negative when it is empty.

    Its corners are those crossings of two lines at which no other line function passes the level. In float64, because
    lines may be nearly parallel.
    """
    n_x, n_y, e = lines.double().unbind(2)  # [n,E]
    room = level[:, None] - e  # n . p <= room
    det = n_x[:, :, None] * n_y[:, None] - n_y[:, :, None] * n_x[:, None]  # [n,E,E]
    x = (room[:, :, None] * n_y[:, None] - n_y[:, :, None] * room[:, None]) / det
    y = (n_x[:, :, None] * room[:, None] - room[:, :, None] * n_x[:, None]) / det
    met = n_x[:, None, None] * x[..., None] + n_y[:, None, None] * y[..., None]  # [n,E,E,E]
    slack = FEASIBLE * (room.abs().amax(1, keepdim=True) + (n_x.abs() + n_y.abs()).amax(1, keepdim=True))
    feasible = (met <= (room + slack)[:, None, None]) | ~is_edge[:, None, None]
    corner = feasible.all(3) & is_edge[:, :, None] & is_edge[:, None] & (det != 0)
    points = torch.stack([x, y], 3).abs().masked_fill(~corner[..., None], NOWHERE)
    return points.flatten(1, 2).amax(1).to(lines.dtype)
