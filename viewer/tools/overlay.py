"""Lines over the picture: drawn on a plane just before the camera, so that nothing hides them."""

from __future__ import annotations

from typing import Any

import numpy as np

from splat.geometry.camera import Camera
from splat.viewer.tools.screen import at_depth

DEPTH = 0.05
"""Page units before the camera; the page cuts off at 0.01."""
LIGHT, DARK = (255, 214, 10), (20, 20, 20)


class ScreenLines:
    """Segments given in pixels, in two colours so that they show on any picture."""

    def __init__(self, page: Any, name: str = "/splat/tools/stroke") -> None:
        self.page, self.name = page, name
        self._nodes: tuple[Any, Any] | None = None

    def show(self, segments: np.ndarray, camera: Camera) -> None:
        """``segments [S,2,2]`` px of ``camera``; none = nothing is shown."""
        if len(segments) == 0:
            return self.clear()
        space = self.page.desk.space
        inner, outer = (
            space.page(at_depth(camera, segments, depth / space.scale)).astype(np.float32)
            for depth in (DEPTH, DEPTH * 1.02)
        )
        if self._nodes is None:
            add = self.page.client.scene.add_line_segments
            self._nodes = (
                add(self.name, inner, LIGHT, thickness=2.0, thickness_units="screen"),
                add(f"{self.name}_dark", outer, DARK, thickness=4.5, thickness_units="screen"),
            )
        else:
            self._nodes[0].points, self._nodes[1].points = inner, outer

    def clear(self) -> None:
        for node in self._nodes or ():
            node.remove()
        self._nodes = None
