"""Dragging a selection by handles: an interactive session, and the same as a function of its arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import dist

import torch
from torch import Tensor

from splat.edit.drag.arap import ArapMode
from splat.edit.drag.fields import FieldMode, Spread
from splat.edit.drag.graph import binding, graph_of
from splat.edit.drag.lattice import lattice_spread
from splat.edit.drag.motion import Mode, NodeMotion, angle_of, checked, turned_by
from splat.edit.drag.path import part_of_the_way, steps_of
from splat.edit.drag.region import Region, region_of
from splat.edit.drag.rigid import RigidMode
from splat.edit.drag.smooth import smooth_weights
from splat.edit.ops import Drag, Handle
from splat.edit.shapes import Point3
from splat.errors import UserError
from splat.model.splat_model import SplatModel
from splat.native.skin import NODES, Skin, skin

_SOFT_FROM = 0.5
"""In a band that bends by itself, what softens the motion begins here (over its width); elsewhere at 0."""
_EDGE = 0.6
"""Rows with distances beyond this (in widths of the band) count as its end."""
_GRASP = 2.0
"""Radius of a turning handle that has none, in spacings."""
_OF_ROWS = ("points", "nodes", "weights", "weight_gradients", "softness", "softness_gradients")
"""Of a skin: what has a row per splat."""
_PIECE = 8192
"""Rows at a time whose numbers stay in the cache."""


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch works on the thread that asks (the native parts keep their pool): while a training keeps the processors
    busy, waiting for torch's other threads takes many times as long as the work. Other threads keep their setting."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class DragSession:
    """Interactive; holds copies of the rows that can move, so that the model may go on changing meanwhile. Works on the
    CPU; values come back on the model's device."""

    rows: Tensor  # [R] int64: the selection and the band around it
    spacing: float
    """Of the nodes, world units."""

    @_one_thread()
    def __init__(self, model: SplatModel, mask: Tensor, drag: Drag, *, frozen: Tensor | None = None) -> None:
        """``mask [N]`` bool is the selection; rows of ``frozen [N]`` never move (locked ones).

        Raises:
            UserError: without selection or handles, or for numbers that do not fit, with where they stand.
        """
        checked(drag.handles, drag.anchors)
        region = region_of(model, mask, band=drag.band, most_nodes=drag.nodes, frozen=frozen)
        self._device, self._primitive, self._anchors = model.device, model.primitive, drag.anchors
        self.rows, self.spacing = region.rows.to(self._device), region.spacing
        self._before = {name: table.detach()[self.rows].cpu() for name, table in model.rows.items()}
        if drag.mode not in _MODES:
            raise UserError(f"drag mode '{drag.mode}' is not known; use one of {', '.join(_MODES)}")
        self._skin, self._mode = _MODES[drag.mode](region, drag)
        self._motion = self._mode.move(self.grasped(drag.handles))

    @_one_thread()
    def move(self, handles: Sequence[Handle]) -> dict[str, Tensor]:
        """Quick raw values of ``rows`` (places and orientations; sizes and colours as they were) with the handles where
        they are now. A handle is told from another by its place in the list; where they take hold may change."""
        checked(handles, self._anchors)
        self._motion = self._mode.move(self.grasped(handles))
        means, turns, _ = skin(self._skin, *_tables(self._motion))
        return self._out(self._in_pieces(self._primitive.turned, means, turns))

    @_one_thread()
    def pass_by(self, handles: Sequence[Handle]) -> None:
        """As ``move`` on the way to a place further on, where nobody looks."""
        self._mode.pass_by(self.grasped(handles))

    def carried(self, point: Point3) -> Point3:
        """Where the last move took what lies at ``point``: with the row that is nearest, and deformed like it."""
        away = torch.tensor(point, dtype=torch.float64) - self._skin.points.double()
        row = int(away.square().sum(dim=1).argmin())
        alone = {name: getattr(self._skin, name)[row : row + 1] for name in _OF_ROWS}
        place, _, gradient = skin(replace(self._skin, **alone), *_tables(self._motion), gradients=True)
        beside = turned_by(gradient[0].double(), away[row : row + 1])[0]
        return tuple((place[0].double() + beside).tolist())

    def missed(self, handles: Sequence[Handle]) -> tuple[float, ...]:
        """How far the last move left each handle from its target, world units. A rigid body or a cage cannot follow
        every set of handles; where they ask for more, they are met in the sense of least squares."""
        return tuple(dist(self.carried(handle.at), handle.to) for handle in handles)

    def grasped(self, handles: Sequence[Handle]) -> tuple[Handle, ...]:
        """A point has no direction to turn: a handle without radius that turns takes hold of what is around it."""
        reach = _GRASP * self.spacing
        return tuple(replace(h, radius=reach) if not h.radius and angle_of(h) > 1e-9 else h for h in handles)

    @_one_thread()
    def finish(self) -> dict[str, Tensor]:
        """Full quality for the handles of the last move: shapes deformed, colours turned with them."""
        self._motion = self._mode.finish()
        means, _, gradients = skin(self._skin, *_tables(self._motion), gradients=True)
        return self._out(self._in_pieces(self._primitive.deformed, means, gradients))

    def _in_pieces(self, method: Callable[..., dict[str, Tensor]], *motion: Tensor) -> dict[str, Tensor]:
        """``method`` of the primitive for ``_PIECE`` rows at a time."""
        columns = zip(*(table.split(_PIECE) for table in self._before.values()), strict=True)
        tables = [dict(zip(self._before, piece, strict=True)) for piece in columns]
        motions = zip(*(table.split(_PIECE) for table in motion), strict=True)
        pieces = [method(table, *part) for table, part in zip(tables, motions, strict=True)]
        return {name: torch.cat([values[name] for values in pieces]) for name in pieces[0]}

    def _out(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: table.to(self._device) for name, table in values.items()}


def drag_values(
    model: SplatModel, mask: Tensor, drag: Drag, *, frozen: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Rows [R] and their raw values [R,...] after the drag. The handles go their way in steps, so that a part can
    follow a large turn; the same bits for the same arguments.

    Raises:
        UserError: without selection or handles, or for numbers that do not fit, with where they stand.
    """
    checked(drag.handles, drag.anchors)
    session = DragSession(model, mask, replace(drag, handles=part_of_the_way(drag.handles, 0.0)), frozen=frozen)
    handles = session.grasped(drag.handles)
    steps = steps_of(handles, session.spacing)
    for step in range(1, steps):
        session.pass_by(part_of_the_way(handles, step / steps))
    session.move(handles)
    return session.rows, session.finish()


def _tables(motion: NodeMotion) -> tuple[Tensor, Tensor, Tensor]:
    return motion.shifts, motion.linear, motion.turns


def _arap(region: Region, drag: Drag) -> tuple[Skin, Mode]:
    graph = graph_of(region.nodes, region.points, region.spacing)
    softness = region.softness(_SOFT_FROM)
    bound = _skin(region, region.nodes, binding(region.points, region.nodes, graph.rings), softness)
    mode = ArapMode(
        graph, bound, region.spacing, node_softness=region.of_nodes(softness[0]), anchors=drag.anchors,
        smooth=drag.smooth_rotations,
    )  # fmt: skip
    still = region.anchored(softness, drag.anchors)  # in the skin alone: the mode must know what anchors hold
    return replace(bound, softness=still[0], softness_gradients=still[1]).checked(), mode


def _rigid(region: Region, drag: Drag) -> tuple[Skin, Mode]:
    center = region.points.double().cumsum(0)[-1:] / len(region.points)
    count = len(region.points)
    weights = torch.tensor([1.0, 0, 0, 0]).expand(count, NODES)
    bound = torch.zeros(count, NODES, dtype=torch.int32), weights, torch.zeros(count, NODES, 3)
    size = 10 * region.spacing
    return _skin(region, center, bound, region.softness(0.0)), RigidMode(center[0], size, drag.anchors)


def _field(region: Region, drag: Drag, spread: Spread, *, holds: bool) -> tuple[Skin, Mode]:
    everywhere = torch.ones(len(region.nodes), len(region.nodes), dtype=torch.bool)
    bound = binding(region.points, region.nodes, everywhere)
    edge = region.nodes[region.of_nodes(region.distances) > _EDGE]
    bound = _skin(region, region.nodes, bound, region.anchored(region.softness(0.0), drag.anchors))
    return bound, FieldMode(bound, region.nodes, edge, drag.anchors, spread, spacing=region.spacing, holds=holds)


def _smooth(region: Region, drag: Drag) -> tuple[Skin, Mode]:
    return _field(region, drag, smooth_weights, holds=True)


def _lattice(region: Region, drag: Drag) -> tuple[Skin, Mode]:
    low, high = region.nodes.amin(0) - region.spacing, region.nodes.amax(0) + region.spacing
    return _field(region, drag, lattice_spread(low.numpy(), high.numpy()), holds=False)


_MODES = {"arap": _arap, "rigid": _rigid, "smooth": _smooth, "lattice": _lattice}


def _skin(region: Region, nodes: Tensor, bound: tuple[Tensor, Tensor, Tensor], softness: tuple[Tensor, Tensor]) -> Skin:
    return Skin(region.points, *bound, *softness, nodes).checked()
