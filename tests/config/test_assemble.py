from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from splat.config.assemble import check_parts, gather, loop_settings, typical_focal_px
from splat.config.build import build_config, config_text, effective, nested
from splat.config.toml_io import parse_toml
from splat.errors import UserError
from splat.model.ges import GesPrimitive
from splat.model.primitives import PRIMITIVES


@dataclass(frozen=True)
class Fitted(GesPrimitive):
    """Wants to know the focal length, and knows no Mip 3D filter."""

    kind: ClassVar[str] = "fitted"
    can: ClassVar[frozenset[str]] = GesPrimitive.can - {"filter3d"}

    focal: float = 0.0
    """Focal length of the capture, px."""

    def fitted(self, focal_px):
        return replace(self, focal=focal_px)


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setitem(PRIMITIVES, "fitted", Fitted)


def config_of(scene, **dotted):
    dotted = {"capture": str(scene), "render.device": "cpu", "primitive.kind": "fitted", "steps": 60_000} | dotted
    return build_config([("test", nested(dotted))])


def test_a_primitive_is_fitted_to_the_training_views_and_the_configuration_remembers(tiny_scene):
    said = []
    config = config_of(tiny_scene)
    parts = gather(config, said.append)
    assert typical_focal_px(parts.scene) == pytest.approx(30.0)
    assert parts.state.model.primitive.focal == parts.config.primitive.focal == typical_focal_px(parts.scene)
    # The rows follow the stretched schedule; what is written holds the one as given.
    assert parts.state.model.primitive.shape_reset_every == 2000 and parts.config.primitive.shape_reset_every == 1000
    assert parts.state.model.primitive == effective(parts.config).primitive
    text = config_text(parts.config)
    assert build_config([("text", parse_toml(text, "text"))]) == parts.config
    again = gather(parts.config, said.append)
    assert again.config == parts.config
    for opened in (parts, again):
        opened.close()


def test_the_focal_length_is_the_median_of_geometric_means(tiny_scene):
    parts = gather(config_of(tiny_scene), lambda line: None)
    parts.close()
    focals = [(10, 40), (30, 30), (5, 5), (100, 100), (90, 90)]
    cameras = []
    for camera, (fx, fy) in zip(parts.scene.cameras, focals, strict=False):
        K = np.array(camera.K)
        K[0, 0], K[1, 1] = fx, fy
        cameras.append(replace(camera, K=K))
    scene = replace(parts.scene, cameras=tuple(cameras), train_indices=(0, 1, 2, 3), test_indices=(4,))
    assert typical_focal_px(scene) == pytest.approx(25.0)


def test_a_3d_filter_the_primitive_does_not_have_is_refused_by_name(tiny_scene):
    with pytest.raises(UserError, match=r"render\.filter3d .*'fitted'"):
        check_parts(config_of(tiny_scene, **{"render.filter3d": True}))
    check_parts(config_of(tiny_scene, **{"render.filter3d": True, "primitive.kind": "ges"}))
    check_parts(config_of(tiny_scene))


def test_the_loop_learns_of_the_detail_loss(tiny_scene):
    settings = loop_settings(config_of(tiny_scene, **{"optim.detail_weight": 0.5, "optim.detail_levels": 8}))
    assert (settings.detail_weight, settings.detail_levels) == (0.5, 8)
