"""Hands for the tests of tools: strokes in the browser, and what the model has to look like after them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import serving
import torch

from splat.edit.ops import Op
from splat.edit.select import selected
from splat.edit.shapes import Point3, ViewSpec
from splat.live.commands import Edit
from splat.model.labels import SELECTED
from splat.viewer.tools.screen import at_depth, project
from splat.viewer.tools.solids import GIZMO_PX

Spot = tuple[float, float]
SECS_PER_MOVE = 0.03
RING_SHARE = 0.65
"""Radius of the page's rings, against its arrows."""


class Hands:
    """The browser's page, ours behind it, and the viewer."""

    def __init__(self, page: Any, ours: Any, served: serving.Served) -> None:
        self.page, self.ours, self.served = page, ours, served
        self.box = ours.toolbox
        self.bench = served.host.bench
        page.add_style_tag(content=".mantine-Notifications-root { display: none }")  # they would take clicks
        self.put_back()

    # --- the browser -----------------------------------------------------------------------------------------------

    def take(self, key: str, name: str) -> None:
        """A tool by its key; on return it hears the mouse."""
        self.page.keyboard.press(key)
        serving.wait_for(lambda: self.box.tool is not None and self.box.tool.name == name, why=f"tool {name}")
        self.heard()

    def heard(self) -> None:
        """Until the browser has taken what was sent to it before, and shows it."""
        self.idle()
        serving.heard(self.ours, self.page)

    def idle(self) -> None:
        """Until the page's tools have done what they were asked for."""
        assert self.box.runner.idle(serving.PATIENCE_SECS)

    def stroke(self, points: Sequence[Spot], *, hold: Sequence[str] = (), release: bool = True) -> None:
        for key in hold:
            self.page.keyboard.down(key)
        self.page.mouse.move(*points[0])
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*point)
            time.sleep(SECS_PER_MOVE)
        if release:
            self.page.mouse.up()
            serving.said(self.page)
        for key in hold:
            self.page.keyboard.up(key)

    def click(self, at: Spot, *, hold: Sequence[str] = ()) -> None:
        for key in hold:
            self.page.keyboard.down(key)
        self.page.mouse.click(*at)
        for key in hold:
            self.page.keyboard.up(key)
        time.sleep(0.1)  # the page sends clicks at most every 50 ms; it has taken this one already

    def pull_arrow(
        self, pivot: np.ndarray, length_px: float, *, release: bool = True, axes: np.ndarray | None = None
    ) -> tuple[int, Spot, Spot]:
        """Drag the arrow of the gizmo at ``pivot`` (world) that lies flattest on the screen, outwards; which axis it
        is, from where to where. ``axes`` [3,3] are the gizmo's, in its columns; None = the world's."""
        camera = self.ours.camera()
        start, depth = project(camera, pivot)
        reach = GIZMO_PX * float(depth) / camera.focal_px[0]
        tips = [project(camera, pivot + reach * axis)[0] - start for axis in (np.eye(3) if axes is None else axes.T)]
        axis = int(np.argmax([np.linalg.norm(tip) for tip in tips]))
        along = tips[axis] / np.linalg.norm(tips[axis])
        begin = start - 0.5 + 0.9 * tips[axis]  # the head; rings are at two thirds
        points = [tuple(map(float, np.round(begin + share * length_px * along))) for share in np.linspace(0, 1, 8)]
        self.stroke(points, release=release)
        return axis, points[0], points[-1]

    def ring_spot(self, pivot: np.ndarray) -> Spot:
        """On the gizmo's ring between the axes whose corner lies farthest from ``pivot`` (world) on the screen."""
        camera = self.ours.camera()
        start, depth = project(camera, pivot)
        reach = GIZMO_PX * float(depth) / camera.focal_px[0] * RING_SHARE / np.sqrt(2)
        axes = np.eye(3)
        spots = [project(camera, pivot + reach * (axes[a] + axes[b]))[0] for a, b in ((0, 1), (1, 2), (2, 0))]
        return tuple(map(float, np.round(max(spots, key=lambda spot: np.linalg.norm(spot - start)) - 0.5)))

    def deep(self, spot: Spot) -> Point3:
        """World point that shows at a browser's pixel, as far away as the origin."""
        camera = self.ours.camera()
        _, depth = project(camera, np.zeros(3))
        return tuple(map(float, at_depth(camera, np.array(middle(spot)), float(depth))))

    # --- the model -------------------------------------------------------------------------------------------------

    def put_back(self) -> None:
        """The model as it was opened: nothing is left of the tests before, whichever those were."""
        desk = self.served.desk
        while desk.session.status.undo:
            desk.undo().result(serving.PATIENCE_SECS)
        self.arrived()

    def do(self, op: Op) -> None:
        """An operation past the browser, arrived in the snapshot."""
        self.served.desk.submit(op).result(serving.PATIENCE_SECS)
        self.arrived()

    def arrived(self) -> None:
        """Until the pages know of the rows as they are now."""
        version = self.served.host._version
        self.served.desk.refresh()
        serving.wait_for(lambda: self.served.desk.snapshot and self.served.desk.snapshot.version >= version,
                         why="a snapshot")  # fmt: skip
        self.idle()

    @property
    def ops(self) -> list[Op]:
        """The operations done, with the rows as they leave them: the session knows of one before the rows do."""
        self.served.desk.command(Edit(lambda rows: None)).result(serving.PATIENCE_SECS)
        return self.served.desk.session.ops

    def next_op(self, before: int, kind: str) -> Any:
        """The operation that the browser has sent after ``before`` of them."""
        serving.wait_for(lambda: len(self.ops) > before, why=f"op {kind}")
        assert len(self.ops) == before + 1 and self.ops[-1].kind == kind, self.ops[before:]
        self.arrived()
        return self.ops[-1]

    @property
    def chosen(self) -> torch.Tensor:  # [N] bool
        return self.bench.labels.having(SELECTED)

    def taken_by(self, shape: Any, reach: str = "centers") -> torch.Tensor:  # [N] bool
        """What the pure function gives for a shape."""
        return selected(shape, self.bench.model, self.bench.labels, reach=reach, rasterizer=self.served.desk.rasterizer)

    @property
    def view(self) -> ViewSpec:
        return ViewSpec.of(self.ours.camera())

    def bits(self) -> dict[str, torch.Tensor]:
        """Every table, copied."""
        labels = {f"labels.{name}": table for name, table in self.bench.labels.tensors().items()}
        return {name: table.clone() for name, table in (self.bench.model.rows | labels).items()}

    def same_bits(self, before: dict[str, torch.Tensor], *, but: Sequence[str] = ()) -> bool:
        now = self.bits()
        return all(torch.equal(now[name], table) for name, table in before.items() if name not in but)

    def same_rows(self, before: dict[str, torch.Tensor], rows: torch.Tensor) -> bool:
        """Whether the raw fields of ``rows`` [N] bool are what they were."""
        return all(torch.equal(table[rows], before[name][rows]) for name, table in self.bench.model.rows.items())


def middle(spot: Spot) -> Spot:
    """Where the pointer at a browser's pixel is, in ours."""
    return spot[0] + 0.5, spot[1] + 0.5


def ring(center: Spot, radius: float, count: int = 16) -> list[Spot]:
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return [(center[0] + radius * float(np.cos(t)), center[1] + radius * float(np.sin(t))) for t in turn]
