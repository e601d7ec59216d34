import numpy as np
import torch
from helpers_train import cameras, frame_of

from splat.scene.types import Frame
from splat.train import frames
from splat.train.frames import FrameSource


def test_full_size_is_the_frame_itself():
    view = FrameSource(cameras(), frame_of).view(2, 1.0)
    assert np.array_equal(view.pixels[0].numpy(), frame_of(2).pixels)
    assert view.mask is None and view.pixels.dtype == torch.uint8


def test_half_size_is_the_box_average_and_intrinsics_follow():
    view = FrameSource(cameras(), frame_of).view(1, 0.5)
    pixels = frame_of(1).pixels.astype(np.float64)
    boxes = pixels.reshape(5, 2, 6, 2, 3).mean(axis=(1, 3))
    assert view.pixels.shape == (1, 5, 6, 3) and view.mask.shape == (1, 5, 6)
    assert np.abs(view.pixels[0].numpy() - boxes).max() <= 0.5 + 1e-4
    assert (view.camera.width, view.camera.height) == (6, 5)
    assert np.allclose(view.camera.K[:2], cameras()[1].K[:2] / 2)


def test_reduced_mask_is_coverage():
    mask = np.zeros((10, 12), np.uint8)
    mask[:, :1] = 255
    source = FrameSource(cameras(1), lambda _: Frame(frame_of(0).pixels, mask))
    assert source.view(0, 0.5).mask[0, 0, :2].tolist() in ([128, 0], [127, 0])


def test_reduced_frames_are_kept_within_the_budget(monkeypatch):
    asked = []

    def counted(index: int) -> Frame:
        asked.append(index)
        return frame_of(index)

    source = FrameSource(cameras(), counted)
    first = source.view(0, 0.5)
    assert source.view(0, 0.5) is first and asked == [0]
    monkeypatch.setattr(frames, "COARSE_CACHE_BYTES", 100)
    source.view(2, 0.5)
    source.view(0, 0.5)
    assert asked == [0, 2, 0]


def test_tiny_pictures_never_vanish():
    view = FrameSource(cameras(1, 1, 1), lambda _: Frame(np.zeros((1, 1, 3), np.uint8), None)).view(0, 0.125)
    assert view.pixels.shape == (1, 1, 1, 3)


def test_a_device_with_room_keeps_pictures_until_they_are_released():
    asked = []

    def frame(index):
        asked.append(index)
        return frame_of(index)

    source = FrameSource(cameras(3), frame)
    source._room_bytes = 2 * 12 * 10 * 3 + 12 * 10  # two pictures and the mask of one
    first = [source.view(index, 1.0) for index in (0, 1, 2, 0, 1, 2)]
    assert asked == [0, 1, 2, 2]
    assert first[3].pixels is first[0].pixels and first[4].mask is first[1].mask
    source.release()
    source.view(0, 1.0)
    source.view(0, 1.0)
    assert asked == [0, 1, 2, 2, 0, 0]
