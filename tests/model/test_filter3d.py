import math

import numpy as np
import torch

from splat.geometry.camera import Camera
from splat.geometry.rng import keyed_generator
from splat.model.filter3d import filtered, opacity_factor, sampling_filter


def _camera(center, *, focal=(100.0, 100.0), size=(64, 48), principal=None):
    """Looks along +z from ``center``."""
    pose = np.eye(4)
    pose[:3, 3] = -np.asarray(center, dtype=np.float64)
    cx, cy = principal or (size[0] / 2, size[1] / 2)
    K = np.array([[focal[0], 0, cx], [0, focal[1], cy], [0, 0, 1.0]])
    return Camera("view", pose, K, *size)


def _brute_force(point, cameras):
    """The finest sampling of one point, straight from the definition; None when nothing sees it."""
    rates = []
    for camera in cameras:
        x, y, z = (camera.camera_from_world @ np.array([*point, 1.0]))[:3]
        if z <= 0.2:
            continue
        u, v, _ = camera.K @ np.array([x / z, y / z, 1.0])
        margin_x, margin_y = 0.15 * camera.width, 0.15 * camera.height
        if -margin_x <= u <= camera.width + margin_x and -margin_y <= v <= camera.height + margin_y:
            rates.append(max(camera.focal_px) / z)
    return math.sqrt(0.2) / max(rates) if rates else None


def test_against_brute_force():
    rng = np.random.default_rng(0)
    cameras = [
        _camera(rng.normal(size=3), focal=tuple(rng.uniform(40, 200, 2)), principal=tuple(rng.uniform(10, 40, 2)))
        for _ in range(6)
    ]
    points = rng.uniform(-3, 3, (400, 3)).astype(np.float32)
    expected = [_brute_force(point.astype(np.float64), cameras) for point in points]
    seen = [sigma for sigma in expected if sigma is not None]
    assert 50 < len(seen) < 350
    expected = [max(seen) if sigma is None else sigma for sigma in expected]
    assert np.allclose(sampling_filter(torch.from_numpy(points), cameras).numpy(), expected, rtol=1e-4)


def test_mixed_focal_lengths_use_each_cameras_own_rate():
    near_wide, far_tele = _camera((0, 0, 0), focal=(50.0, 50.0)), _camera((0, 0, -9), focal=(400.0, 400.0))
    sigma = sampling_filter(torch.tensor([[0.0, 0, 1]]), [near_wide, far_tele])
    assert torch.allclose(sigma, torch.tensor(math.sqrt(0.2) / 50))


def test_nobody_sees_anything():
    sigma = sampling_filter(torch.tensor([[0.0, 0, -5]]), [_camera((0, 0, 0))])
    assert sigma.tolist() == [0]
    assert sampling_filter(torch.zeros(0, 3), [_camera((0, 0, 0))]).shape == (0,)


def test_filter_keeps_matter():
    generator = keyed_generator(0, "filter", 0)
    scales, opacities = torch.rand(30, 3, generator=generator) + 0.01, torch.rand(30, generator=generator)
    sigma = torch.rand(30, generator=generator)
    wide, faint = filtered(scales, opacities, sigma)
    assert torch.allclose(wide.prod(dim=1) * faint, scales.prod(dim=1) * opacities, rtol=1e-5)
    assert torch.equal(opacity_factor(scales, torch.zeros(30)), torch.ones(30))
    # A splat as wide as the filter keeps 2^(-3/2) of its opacity.
    assert torch.allclose(opacity_factor(torch.full((1, 3), 0.3), torch.tensor([0.3])), torch.tensor(2**-1.5))
