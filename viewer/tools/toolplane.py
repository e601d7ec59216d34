"""Where the mouse is caught: a box that nobody sees, around the camera, reports strokes; the canvas reports the rest.

The page has no event for a bare mouse stroke, only for drags that begin on a node. The box is far larger than the
scene, so that handles and gizmos in front of it keep their own drags and its depth hides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from splat.viewer.tools.combine import MODIFIERS

if TYPE_CHECKING:
    from splat.viewer.tools.toolbox import Toolbox

HALF_SIZE = 400.0
"""Page units; the corners, at 693, stay within the page's far plane of 1000 until the camera has moved by a third."""
NAME = "/splat/tools/plane"


class ToolPlane:
    """Hands what the browser tells of the mouse to the toolbox, in the order of arrival.

    Callbacks are coroutines without an inner await: the server runs those in order, plain functions in any.
    """

    def __init__(self, box: Toolbox) -> None:
        self.box = box
        self.scene = box.page.client.scene
        self._node: Any = None
        self._rectangles: list[Any] = []
        self._clicks: list[Any] = []
        self._center = np.zeros(3)

        @box.page.client.camera.on_update
        async def _(camera: Any) -> None:
            self._follow(np.asarray(camera.position))

    def catch(self, *, strokes: bool, clicks: bool, rectangles: bool) -> None:
        """Begin or end to catch each kind of gesture."""
        self._catch_strokes(strokes)
        self._catch(self._clicks, clicks, self.scene.on_click, self.scene.remove_click_callback, self._clicked)
        self._catch(self._rectangles, rectangles, self.scene.on_rect_select, self.scene.remove_rect_select_callback,
                    self._drawn)  # fmt: skip

    def _catch_strokes(self, on: bool) -> None:
        if on and self._node is None:
            self._center = np.asarray(self.box.page.client.camera.position)
            corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1], indexing="ij")).reshape(3, 8).T * HALF_SIZE
            faces = [(0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1), (2, 3, 7), (2, 7, 6), (0, 2, 6),
                     (0, 6, 4), (1, 5, 7), (1, 7, 3)]  # fmt: skip
            self._node = self.scene.add_mesh_simple(
                NAME, corners, np.array(faces), opacity=0.0, side="double", wireframe=True,  # lines are quick to draw
                cast_shadow=False, receive_shadow=False, position=self._center,
            )  # fmt: skip
            for modifier in MODIFIERS:
                self._node.on_drag("left", modifier=modifier)(self._stroke)
        elif not on and self._node is not None:
            self._node.remove()
            self._node = None

    @staticmethod
    def _catch(held: list[Any], on: bool, register: Any, remove: Any, callback: Any) -> None:
        if on and not held:
            for modifier in MODIFIERS:
                register(modifier=modifier)(callback)
            held.append(callback)
        elif not on and held:
            remove(held.pop())

    async def _stroke(self, event: Any) -> None:
        # The start position is half a pixel off (where it hits the box); the end position is the pointer's, also at
        # the start.
        self.box.stroke(event.phase, event.end_screen_pos, event.modifier)

    async def _clicked(self, event: Any) -> None:
        self.box.clicked(event.screen_pos, event.modifier)

    async def _drawn(self, event: Any) -> None:
        self.box.drawn(event.screen_min, event.screen_max, event.modifier)

    def _follow(self, position: np.ndarray) -> None:
        node = self._node
        if node is not None and np.abs(position - self._center).max() > HALF_SIZE / 3:
            self._center = position
            node.position = position
