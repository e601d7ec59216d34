"""LPIPS (Zhang et al. 2018) through the ``lpips`` package, only with weights that are on this machine already."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from splat.metrics.pixels import as_picture

_WEIGHT_PATTERNS = {"vgg": "vgg16-*.pth", "alex": "alexnet-*.pth"}  # names torchvision gives its downloads


@dataclass(frozen=True, eq=False)
class LpipsMetric:
    """Either ready (``absent`` is None) or able to say why not."""

    network: str
    absent: str | None
    """One sentence: why there is no LPIPS."""
    _model: Any = None

    @property
    def protocol(self) -> str:
        """For the metrics' protocol: which network, on which input range."""
        return f"absent: {self.absent}" if self.absent else f"{self.network}, inputs scaled to [-1,1]"

    def __call__(self, image: Tensor | np.ndarray, truth: Tensor | np.ndarray) -> float | None:
        """Distance of two pictures [H,W,3] in [0,1]; None when absent."""
        if self.absent:
            return None
        x, y = (2 * as_picture(p).float().permute(2, 0, 1)[None] - 1 for p in (image, truth))
        with torch.no_grad():
            return float(self._model(x.cpu(), y.cpu()))


def lpips_metric(network: Literal["vgg", "alex"] = "vgg") -> LpipsMetric:
    """LPIPS with ``network``; nothing is ever downloaded."""
    if importlib.util.find_spec("lpips") is None:
        return LpipsMetric(network, "the lpips package is not installed (pip install lpips)")
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if not list(folder.glob(_WEIGHT_PATTERNS[network])):
        return LpipsMetric(network, f"no weights {_WEIGHT_PATTERNS[network]} in {folder} (nothing is downloaded here)")
    try:
        import lpips

        return LpipsMetric(network, None, lpips.LPIPS(net=network, verbose=False).eval())
    except Exception as error:  # a broken optional package must cost one metric, not the evaluation
        return LpipsMetric(network, f"the lpips package failed to start ({type(error).__name__}: {error})")
