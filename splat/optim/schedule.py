"""Learning rates over a run."""

from __future__ import annotations

from collections.abc import Iterable

from splat.model.primitive import FieldSpec


def learning_rates(
    specs: Iterable[FieldSpec], step: float, total_steps: int, extent: float, scale: float = 1.0
) -> dict[str, float]:
    """Rate per field at ``step`` of ``total_steps``: log-linear from ``lr`` to ``lr * lr_final_ratio``.

    ``extent`` is the scene extent in world units; fields that say so are multiplied by it. Steps past the
    last one keep the last rate. ``scale`` is a factor on all but opacities, whose rates densifiers set.
    """
    progress = min(max(step / total_steps, 0.0), 1.0) if total_steps > 0 else 1.0
    return {
        spec.name: spec.lr * spec.lr_final_ratio**progress * (extent if spec.lr_times_extent else 1.0)
        * (1.0 if spec.activation == "sigmoid" else scale)
        for spec in specs
    }  # fmt: skip
