"""The table of modes: what a frame can show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from splat.viewer.picture.modes import categories, marks, numbers, plain
from splat.viewer.picture.modes.view import Painted, View


@dataclass(frozen=True)
class Mode:
    """One row of the table."""

    purpose: str
    draw: Callable[[View], Painted]
    unit: str = ""
    """Of the ramp."""
    has_ramp: bool = False
    needs: str = ""
    """``photos``: training views with photographs; "" = the model is enough."""


MODES: Mapping[str, Mode] = {
    "color": Mode("what the splats look like", plain.draw_color),
    "depth": Mode("mean distance along the view", plain.draw_depth, "world units", has_ramp=True),
    "alpha": Mode("how little shines through", plain.draw_alpha),
    "normal": Mode("the flattest axis of the splats (red right, green up, blue towards us)", plain.draw_normal),
    "id": Mode("a colour per splat, the same in every view and at every step", categories.draw_ids),
    "outlines": Mode("borders of some splats that are seen", marks.draw_outlines),
    "centers": Mode("a dot per splat", marks.draw_centers),
    "density": Mode("about how many splats blend in a pixel (an estimate)", numbers.draw_density, "splats (estimate)",
                    has_ramp=True),
    "opacity": Mode("opacity of the splats", numbers.of_model("opacity", numbers.opacities), has_ramp=True),
    "scale": Mode(
        "largest standard deviation of the splats", numbers.of_model("scale", numbers.largest_scales), "world units",
        has_ramp=True,
    ),
    "age": Mode("steps since a splat was made", numbers.draw_ages, "steps", has_ramp=True),
    "reason": Mode("what made a splat", categories.draw_reasons),
    "error": Mode(
        "difference from some training photographs where a splat shows", numbers.draw_errors, "of full scale",
        has_ramp=True, needs="photos",
    ),
    "gradient": Mode(
        "how hard some training photographs pull at a splat's place", numbers.draw_gradients, "NDC", has_ramp=True,
        needs="photos",
    ),
}  # fmt: skip
"""Name -> mode. Nothing else lists them."""
