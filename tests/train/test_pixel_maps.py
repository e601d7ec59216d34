from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from helpers_train import Restless, cameras, frame_of, make_trainer

from splat.train.frames import FrameSource, View
from splat.train.pixel_maps import MapCache, weights
from splat.train.strided import every

CPU = torch.device("cpu")


def view_of(index, width=6, height=4):
    pixels = torch.full((1, height, width, 3), 40 * index, dtype=torch.uint8)
    return View(replace(cameras()[index], width=width, height=height), pixels, None, index)


def test_a_map_is_made_once_per_view_and_size():
    asked = []

    def maps(pixels):
        asked.append(tuple(pixels.shape[:2]))
        return pixels[None, ..., 0].float() / 255

    cache = MapCache(maps, CPU)
    first = cache.of(view_of(2))
    assert cache.of(view_of(2)) is first and cache.of(view_of(2, 3, 2)).shape == (1, 1, 2, 3)
    assert asked == [(4, 6), (2, 3)]
    assert first.dtype == torch.uint8 and weights(first).unique().tolist() == pytest.approx([80 / 255])


def test_maps_are_cut_to_0_and_1_and_rounded():
    cache = MapCache(lambda pixels: torch.tensor([-1.0, 0.5, 2.0]).expand(2, 4, 3), CPU)
    assert cache.of(view_of(1, 3, 4))[0, 1, 0].tolist() == [0, 128, 255]


def test_only_what_fits_is_kept_and_the_newest_always():
    asked = []

    def maps(pixels):
        asked.append(int(pixels[0, 0, 0]) // 40)
        return torch.zeros(2, *pixels.shape[:2])

    cache = MapCache(maps, CPU)
    cache.limit_bytes = 2 * 48  # two views of two maps of 24 pixels
    for index in (0, 1, 0, 2, 0, 1):
        cache.of(view_of(index))
    assert asked == [0, 1, 2, 1]
    cache.release()
    for index in (0, 0, 1, 1, 0):
        cache.of(view_of(index))
    assert asked[4:] == [0, 1, 0]


def test_no_maps_are_remembered_too():
    asked = []
    cache = MapCache(lambda pixels: asked.append(1), CPU)
    assert cache.of(view_of(0)) is None and cache.of(view_of(0)) is None and asked == [1]


@pytest.mark.parametrize("shape", [(4, 6), (5, 4, 6), (1, 6, 4), (0, 4, 6)])
def test_maps_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"pixel maps must be \[1..4,4,6\]"):
        MapCache(lambda pixels: torch.zeros(shape), CPU).of(view_of(0))


@dataclass(frozen=True)
class Weighing(Restless):
    """Two maps: the left half of the picture, and all of it."""

    stride: int = 1
    any_maps: bool = True

    def needs(self, step):
        return frozenset({"visible", "fragments", "weighted_count", "texgrad"})

    def plan(self, step):
        return replace(super().plan(step), maps=True, stride=self.stride)

    def maps(self, pixels):
        if not self.any_maps:
            return None
        half = torch.zeros(pixels.shape[:2])
        half[:, : pixels.shape[1] // 2] = 1
        return torch.stack([half, torch.ones_like(half)])

    def observe(self, state, step, stats, *, width, height, view, loss):
        super().observe(state, step, stats, width=width, height=height, view=view, loss=loss)
        if not self.any_maps:
            assert stats.weighted_count is None and stats.texgrad is None and stats.fragments is not None
            return
        left, whole = stats.weighted_count[0]
        assert torch.equal(whole, stats.fragments[0]) and stats.texgrad is not None
        state.scalars["left"] = state.scalars.get("left", 0.0) + float(left.sum())
        state.scalars["whole"] = state.scalars.get("whole", 0.0) + float(whole.sum())


@pytest.mark.parametrize("stride", [1, 3])
def test_the_rasterizer_weighs_with_the_maps_of_the_drawn_pixels(stride):
    trainer = make_trainer(densifier=Weighing(stride=stride), frames=FrameSource(cameras(), frame_of))
    list(trainer.run())
    left, whole = (trainer.state.densify.scalars[name] for name in ("left", "whole"))
    assert 0 < left < whole


def test_a_densifier_without_maps_does_without_their_statistics():
    trainer = make_trainer(densifier=Weighing(any_maps=False))
    list(trainer.run())
    assert trainer.state.step == 12


def test_strided_maps_are_the_maps_of_the_strided_pixels():
    maps = torch.arange(24, dtype=torch.uint8).reshape(1, 1, 4, 6)
    assert every(maps, 2, (1, 0))[0, 0].tolist() == [[1, 3, 5], [13, 15, 17]]
