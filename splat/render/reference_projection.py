"""What every footprint's projection is made of, one view at a time (see ``reference``): cameras, the projected
Gaussian, colours.

Symbols follow "EWA Volume Splatting" (Zwicker et al. 2001) and 3DGS (Kerbl et al. 2023, eq. 5-6).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from splat.model.render_inputs import RenderInputs
from splat.render.types import FILTER2D_COMPENSATES, RenderOptions

ALPHA_MIN = 1 / 255  # fainter contributions vanish in an 8-bit picture
NOWHERE = -1.0  # half size of a box that holds no bright point
COMPENSATION_FLOOR = 2.5e-5  # of the determinant ratio: opacity never falls below 0.005 of itself
FRUSTUM_MARGIN = 0.3  # of tan(fov/2): how far outside the picture the projection is still linearised


@dataclass(frozen=True, eq=False)
class View:
    """One pinhole of a batch."""

    camera_from_world: Tensor  # [4,4]
    K: Tensor  # [3,3] px
    width: int
    height: int
    tan_limits: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class ScreenSplats:
    """Splats on the picture; a footprint's own adds what its response needs. All differentiable but ``radii_px``."""

    means2d: Tensor  # [n,2] px
    depths: Tensor  # [n] camera z of the centre
    opacities: Tensor  # [n] after the 3D and 2D filters
    colors: Tensor  # [n,3]
    radii_px: Tensor  # [n,2] half sizes of a box about the centre outside which alpha < 1/255
    exists: Tensor  # [n] bool: the shape is one that can be drawn at all


@dataclass(frozen=True, eq=False)
class ProjectedGaussians:
    """The EWA projection: an ellipse and an opacity per splat."""

    means2d: Tensor  # [N,2] px
    depths: Tensor  # [N] camera z
    xx: Tensor  # [N] of the covariance after the filters, px^2
    xy: Tensor  # [N]
    yy: Tensor  # [N]
    determinants: Tensor  # [N] of that covariance, px^4
    opacities: Tensor  # [N] after the filters


def project_gaussians(inputs: RenderInputs, view: View, options: RenderOptions) -> ProjectedGaussians:
    """Every row, whether it can be seen or not; ``drawable`` says which values mean anything."""
    means_camera = transformed(inputs.means, view.camera_from_world)  # [N,3]
    scales = inputs.log_scales.exp()  # [N,3]
    opacities = inputs.logit_opacities.sigmoid()
    if inputs.filter3d is not None:
        # Mip-Splatting (Yu et al. 2024, eq. 7): widen by the sampling limit and keep the integral.
        filtered = (scales.square() + inputs.filter3d.detach().square()[:, None]).sqrt()
        opacities = opacities * (scales.prod(1) / filtered.prod(1))
        scales = filtered
    pixel_from_unit = _linearised(means_camera, inputs.quats, scales, view)  # [N,2,3]
    u, v = pixel_from_unit[:, 0], pixel_from_unit[:, 1]
    variance = options.filter2d_variance_px
    xx, xy, yy = u.square().sum(1) + variance, (u * v).sum(1), v.square().sum(1) + variance
    # det(A A^T) = |u x v|^2 for A = [u; v]: no cancellation for needles, unlike xx yy - xy^2.
    sharp = torch.linalg.cross(u, v).square().sum(1)
    determinants = sharp + variance * (xx + yy - variance)
    if options.filter2d in FILTER2D_COMPENSATES:
        # clamp() has no gradient below the floor, as wanted.
        opacities = opacities * (sharp / determinants).clamp(min=COMPENSATION_FLOOR).sqrt()
    x, y, z = means_camera.unbind(1)
    return ProjectedGaussians(pinhole(x, y, z, view), z, xx, xy, yy, determinants, opacities)


def pinhole(x: Tensor, y: Tensor, z: Tensor, view: View) -> Tensor:  # camera space [...] -> [...,2] px
    return torch.stack([view.K[0, 0] * x / z + view.K[0, 2], view.K[1, 1] * y / z + view.K[1, 2]], -1)


@torch.no_grad()
def drawable(splats: ScreenSplats, inputs: RenderInputs, options: RenderOptions, *, min_opacity: float) -> Tensor:
    """[N] bool: in front, finite, opaque enough. Every test is phrased so that NaN fails it."""
    good = (splats.depths > options.near) & (splats.depths < options.far)
    good &= splats.exists & (splats.opacities >= min_opacity)
    for field in fields(splats):
        finite = getattr(splats, field.name).isfinite()
        good &= finite if finite.ndim == 1 else finite.flatten(1).all(1)
    if inputs.features is not None:
        good &= inputs.features.isfinite().all(1)
    return good


@torch.no_grad()
def meets_image(splats: ScreenSplats, view: View) -> Tensor:
    """[N] bool: there is a box, and it reaches the rectangle of the pixel centres."""
    first = 0.5
    last = splats.means2d.new_tensor([view.width - 0.5, view.height - 0.5])
    low, high = splats.means2d - splats.radii_px, splats.means2d + splats.radii_px
    return (splats.radii_px >= 0).all(1) & (high >= first).all(1) & (low <= last).all(1)


def take_rows(inputs: RenderInputs, rows: Tensor) -> RenderInputs:
    """The rows ``rows [n]``; the others receive exactly zero gradient, whatever is in them."""
    chosen = {"shape": tuple(table[rows] for table in inputs.shape)}
    for field in fields(inputs):
        value = getattr(inputs, field.name)
        if isinstance(value, Tensor):
            chosen[field.name] = value[rows]
    return replace(inputs, **chosen)


def transformed(points: Tensor, a_from_b: Tensor) -> Tensor:  # [...,3], [4,4] -> [...,3]
    # Written out so that equal rows give equal bits, which a matrix product does not promise: depth ties rest on it.
    x, y, z = points.unbind(-1)
    rows = [a_from_b[i, 0] * x + a_from_b[i, 1] * y + a_from_b[i, 2] * z + a_from_b[i, 3] for i in range(3)]
    return torch.stack(rows, -1)


def _linearised(means_camera: Tensor, quats: Tensor, scales: Tensor, view: View) -> Tensor:  # -> [N,2,3]
    """J W R S of EWA splatting: the unit sphere's map to the picture; times its transpose it is the covariance."""
    camera_from_unit = view.camera_from_world[:3, :3] @ rotations(quats) * scales[:, None, :]  # [N,3,3]
    return _jacobian(means_camera, view) @ camera_from_unit


def _jacobian(means_camera: Tensor, view: View) -> Tensor:  # [N,3] -> [N,2,3]
    """Derivative of the projection, taken no farther off axis than a margin around the picture.

    The limits are those of gsplat: asymmetric, so that an off-centre principal point works.
    """
    fx, fy, cx, cy = view.K[0, 0], view.K[1, 1], view.K[0, 2], view.K[1, 2]
    x, y, z = means_camera.unbind(1)
    margin_x, margin_y = FRUSTUM_MARGIN * view.width / (2 * fx), FRUSTUM_MARGIN * view.height / (2 * fy)
    left, right = -(cx / fx + margin_x), (view.width - cx) / fx + margin_x
    top, bottom = -(cy / fy + margin_y), (view.height - cy) / fy + margin_y
    if view.tan_limits is not None:
        left, right, top, bottom = view.tan_limits
    x_near, y_near = z * torch.clamp(x / z, left, right), z * torch.clamp(y / z, top, bottom)
    zero = torch.zeros_like(z)
    rows = [fx / z, zero, -fx * x_near / z**2, zero, fy / z, -fy * y_near / z**2]
    return torch.stack(rows, 1).reshape(-1, 2, 3)


def rotations(quats: Tensor) -> Tensor:  # [N,4] wxyz of any length -> [N,3,3]
    w, x, y, z = (quats / quats.square().sum(1, keepdim=True).sqrt()).unbind(1)
    entries = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(entries, 1).reshape(-1, 3, 3)


def used_sh_degree(inputs: RenderInputs, options: RenderOptions) -> int:
    """The band asked for, or the highest that the inputs carry."""
    carried = {0: 0, 3: 1, 8: 2, 15: 3}[inputs.sh_rest.shape[1]]
    return min(options.sh_degree, carried)


def colors(inputs: RenderInputs, view: View, options: RenderOptions) -> Tensor:  # -> [N,3]
    """max(0, SH + 0.5). The camera centre is -R^T t, also where R drifts off the rotations."""
    degree = used_sh_degree(inputs, options)
    rotation, translation = view.camera_from_world[:3, :3], view.camera_from_world[:3, 3]
    offsets = inputs.means + (rotation.T @ translation)
    directions = offsets / offsets.square().sum(1, keepdim=True).sqrt()
    basis = sh_basis(directions, degree)  # [N,K]
    coefficients = torch.cat([inputs.sh0[:, None, :], inputs.sh_rest[:, : basis.shape[1] - 1]], 1)  # [N,K,3]
    return torch.relu((basis[:, :, None] * coefficients).sum(1) + 0.5)


def sh_basis(directions: Tensor, degree: int) -> Tensor:  # [N,3] unit -> [N,(degree+1)^2]
    """Real spherical harmonics in the order and signs of 3DGS."""
    x, y, z = directions.unbind(1)
    basis = [torch.full_like(x, 0.28209479177387814)]  # 1/(2 sqrt(pi))
    if degree >= 1:
        c1 = 0.4886025119029199
        basis += [-c1 * y, c1 * z, -c1 * x]
    if degree >= 2:
        c2 = 1.0925484305920792
        basis += [
            c2 * x * y, -c2 * y * z, 0.31539156525252005 * (2 * z * z - x * x - y * y),
            -c2 * x * z, 0.5462742152960396 * (x * x - y * y),
        ]  # fmt: skip
    if degree >= 3:
        c30, c32 = 0.5900435899266435, 0.4570457994644658
        basis += [
            -c30 * y * (3 * x * x - y * y), 2.890611442640554 * x * y * z, -c32 * y * (4 * z * z - x * x - y * y),
            0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y), -c32 * x * (4 * z * z - x * x - y * y),
            1.445305721320277 * z * (x * x - y * y), -c30 * x * (x * x - 3 * y * y),
        ]  # fmt: skip
    return torch.stack(basis, 1)
