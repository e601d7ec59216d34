import pytest
import torch

from splat.densify.texture import gradient_size, texture_map
from splat.geometry.rng import keyed_generator


def _ramp(per_pixel, *, down=False, size=12):
    values = torch.arange(size, dtype=torch.float32) * per_pixel
    grey = values[:, None].expand(size, size) if down else values.expand(size, size)
    return grey[..., None].expand(size, size, 3).contiguous()


@pytest.mark.parametrize("down", [False, True])
def test_gradient_of_a_ramp_is_its_slope(down):
    assert gradient_size(_ramp(0.05, down=down))[3:-3, 3:-3].flatten().tolist() == pytest.approx([0.05] * 36, rel=1e-5)


def test_gradient_of_a_slanted_ramp_is_the_length():
    slanted = _ramp(0.03) + _ramp(0.04, down=True)
    assert gradient_size(slanted)[3:-3, 3:-3].flatten().tolist() == pytest.approx([0.05] * 36, rel=1e-5)


def test_the_threshold_of_the_picture_maps_to_tanh_of_one():
    picture = torch.rand(20, 30, 3, generator=keyed_generator(0, "texture", 0))
    ranked = texture_map(picture).flatten().sort().values
    assert ranked[int(0.75 * 600)].item() == pytest.approx(0.76159, abs=1e-4)
    assert 0 <= ranked[0] and ranked[-1] < 1


def test_contrast_of_the_whole_picture_does_not_matter():
    picture = torch.rand(20, 30, 3, generator=keyed_generator(0, "texture", 1))
    assert torch.allclose(texture_map(picture), texture_map(0.3 * picture), atol=1e-5)


def test_bytes_and_floats_agree():
    picture = torch.randint(0, 256, (15, 9, 3), generator=keyed_generator(0, "texture", 2), dtype=torch.uint8)
    assert texture_map(picture).shape == (1, 15, 9)
    assert torch.allclose(texture_map(picture), texture_map(picture / 255), atol=1e-5)


def test_an_edge_stands_out_and_flat_pictures_have_none():
    edge = torch.zeros(10, 40, 3)
    edge[:, 20:] = 1
    weights = texture_map(edge)[0]
    assert (weights[:, 19:21] > 0.99).all() and (weights[:, :16] == 0).all() and (weights[:, 24:] == 0).all()
    assert (texture_map(torch.full((6, 7, 3), 0.5)) == 0).all()


def test_noise_of_one_grey_level_is_no_texture():
    noise = 128 + torch.randint(0, 2, (32, 32, 3), generator=keyed_generator(0, "texture", 3), dtype=torch.uint8)
    assert texture_map(noise).mean() < 0.35


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (0, 4)])
def test_small_pictures(size):
    weights = texture_map(torch.ones(*size, 3))
    assert weights.shape == (1, *size) and (weights == 0).all()


def test_smoothing_lowers_noise():
    picture = torch.rand(20, 20, 3, generator=keyed_generator(0, "texture", 4))
    assert gradient_size(picture, smooth=2).mean() < 0.8 * gradient_size(picture, smooth=1).mean()
