"""Kinds of splats that often should not be there: counted, and selected by a button."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from splat.edit.attributes import ATTRIBUTES
from splat.edit.ops import Select
from splat.edit.shapes import AttributeRange
from splat.live.snapshot import Snapshot
from splat.viewer.figures.histogram import count_in_range
from splat.viewer.serving.page import Page

FAINT, NEEDLE = 0.02, 30.0
LARGE_SHARE = 0.25
"""Standard deviation over the radius of what matters."""
FAR_SHARE = 5.0
"""Distance from the origin of the world, in the same radius from the farthest of the middle splats."""
MOST = 3.0e38


@dataclass(frozen=True)
class Suspect:
    """One kind."""

    purpose: str
    attribute: str
    limits: Callable[[float, float], tuple[float, float]]
    """Range from the radius of what matters and the distance of the middle splats from the origin (world units)."""


SUSPECTS: Mapping[str, Suspect] = {
    "Far away": Suspect(
        "farther out than the scene by several times its radius", "distance",
        lambda radius, middle: (middle + FAR_SHARE * radius, MOST),
    ),
    "Very large": Suspect("a quarter of the scene's radius and more", "scale_max",
                          lambda radius, _: (LARGE_SHARE * radius, MOST)),
    "Faint": Suspect("hardly to be seen: opacity up to 0.02", "opacity", lambda *_: (0.0, FAINT)),
    "Needles": Suspect("longest axis 30 times the shortest and more", "elongation", lambda *_: (NEEDLE, MOST)),
}  # fmt: skip


class SuspectsPanel:
    """A folder of the tab "Inspect"."""

    def __init__(self, page: Page) -> None:
        self.page = page
        gui = page.client.gui
        with gui.add_folder("Floaters and other suspects", expand_by_default=False):
            self.count = gui.add_button("Count")
            self.text = gui.add_markdown("*not counted yet*")
            self.select = gui.add_button_group("Select", tuple(SUSPECTS))
        self.count.on_click(page.guarded(lambda _: self.refresh()))
        self.select.on_click(page.guarded(lambda event: self.submit(event.target.value)))

    def refresh(self) -> None:
        snapshot = self.page.snapshot
        if snapshot is None:
            return
        rows = [
            f"| {name} | {number:,} | *{SUSPECTS[name].purpose}* |"
            for name, number in counted(snapshot, self._radius).items()
        ]
        self.text.content = "\n".join(["| | splats | |", "|---|---|---|", *rows])

    def submit(self, name: str) -> Any:
        snapshot = self.page.snapshot
        if snapshot is None:
            return
        kind = SUSPECTS[name]
        self.page.toolbox.submit(Select(AttributeRange(kind.attribute, *limits_of(kind, snapshot, self._radius))))

    @property
    def _radius(self) -> float | None:
        scene = self.page.desk.scene
        return None if scene is None else float(scene.extent_world)


def limits_of(kind: Suspect, snapshot: Snapshot, radius: float | None) -> tuple[float, float]:
    """``radius`` None: that of the middle half of the splats."""
    means = snapshot.model.rows["means"].detach()
    if not len(means):
        return (0.0, 0.0)
    middle = means.median(dim=0).values
    apart = (means - middle).norm(dim=1).sort().values
    radius = radius or float(apart[len(apart) // 2])
    return kind.limits(radius, float(middle.norm()))


def counted(snapshot: Snapshot, radius: float | None) -> dict[str, int]:
    """How many splats of each kind there are."""
    return {
        name: count_in_range(
            ATTRIBUTES[kind.attribute].values(snapshot.model, snapshot.labels), *limits_of(kind, snapshot, radius)
        )
        for name, kind in SUSPECTS.items()
    }
