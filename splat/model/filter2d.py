"""The table of screen-space filters: how a splat meets the area of a pixel (specs: primitives 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Filter2d = Literal["classic", "aa", "mip", "analytic"]
"""The names, for annotations; ``FILTERS_2D`` says what each means."""


@dataclass(frozen=True)
class ScreenFilter:
    """One row of the table."""

    purpose: str
    """For ``--help``: what it does."""
    variance_px: float
    """Variance in px^2 added to both axes of the projected covariance."""
    compensates: bool
    """Whether opacity is multiplied by sqrt(det / det widened), so that widening adds no matter."""
    render_mode: Literal["default", "mip"]
    """The closest word of ``SplatRenderMode``, the header comment that other viewers understand."""
    elsewhere: Filter2d
    """The mode such a viewer draws; another one than the row's own where that comment cannot say it."""


FILTERS_2D: dict[Filter2d, ScreenFilter] = {
    "classic": ScreenFilter(
        "widened by 0.3 px^2, as in the 2023 release: the plainest; seen from afar, too bright",
        0.3,
        False,
        "default",
        "classic",
    ),
    "aa": ScreenFilter(
        "the same, opacity compensated: what other viewers know; a little blurry", 0.3, True, "mip", "aa"
    ),
    "mip": ScreenFilter("0.1 px^2, compensated (Mip-Splatting): close to a pixel's average", 0.1, True, "mip", "mip"),
    "analytic": ScreenFilter(
        "the integral over the pixel: closest to its average, slower; gaussian and ges only", 0.0, False, "mip", "aa"
    ),
}
"""Name -> what it means. Nothing else lists the modes."""


def names() -> str:
    """The choices as a sentence needs them."""
    *others, last = FILTERS_2D
    return f"{', '.join(others)} or {last}"
