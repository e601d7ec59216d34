from dataclasses import replace
from types import SimpleNamespace

from helpers_train import cameras

from splat.config.build import preset_config
from splat.config.memory import estimate_memory

SCENE = SimpleNamespace(points=range(1000), cameras=cameras(4, 100, 50))


def test_counts_what_is_kept():
    estimate = estimate_memory(preset_config("cpu"), SCENE, cache_bytes=10**9)
    floats = 3 + 4 + 3 + 1 + 3 + 45
    assert estimate.splats == 80_000
    assert estimate.rows == 80_000 * floats * 4 * 4
    full = 4 * 100 * 50 * 3
    assert estimate.images == full + full // 4
    assert estimate_memory(preset_config("cpu"), SCENE, cache_bytes=7).images == 7 + full // 4


def test_masks_of_the_detail_loss_are_counted():
    plain = preset_config("cpu")
    detailed = replace(plain, optim=replace(plain.optim, detail_weight=0.5))
    both = [estimate_memory(config, SCENE, cache_bytes=0).images for config in (plain, detailed)]
    assert both[1] - both[0] == 4 * 100 * 50


def test_without_a_budget_the_points_or_the_densifier_give_a_guess():
    assert estimate_memory(preset_config("default"), SCENE, cache_bytes=0).splats == 10_000
    text = estimate_memory(preset_config("quality"), SCENE, cache_bytes=0).text()
    assert text.startswith("about ") and "1,000,000 splats" in text
