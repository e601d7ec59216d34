"""Small parts densifiers are put together from: scorers (what is bad), selectors (who is taken), operators (what
happens to them), growth (how many), regularizers (what joins the loss). Every part is a
function of tensors or numbers; none changes its arguments."""

from splat.densify.parts.growth import (
    GrowthCurve,
    annealed,
    grown_count,
)
from splat.densify.parts.operators import (
    MAX_COPIES,
    cap_edit,
    clone_edit,
    halve_edit,
    opacity_decay_edit,
    opacity_reset_edit,
    prune_edit,
    relocated_shape,
    shared_opacity,
    split_edit,
)
from splat.densify.parts.regularizers import size_penalty
from splat.densify.parts.scorers import (
    elongated,
    error_map,
    finite_rows,
    mean_over_views,
    mean_weight,
)
from splat.densify.parts.selectors import (
    best_first,
    draw_rows,
    gumbel_best,
)

__all__ = [
    "MAX_COPIES",
    "GrowthCurve",
    "annealed",
    "best_first",
    "cap_edit",
    "clone_edit",
    "draw_rows",
    "elongated",
    "error_map",
    "finite_rows",
    "grown_count",
    "gumbel_best",
    "halve_edit",
    "mean_over_views",
    "mean_weight",
    "opacity_decay_edit",
    "opacity_reset_edit",
    "prune_edit",
    "relocated_shape",
    "shared_opacity",
    "size_penalty",
    "split_edit",
]
