"""What a user may decide about depth priors (``scene/depth_prior.py``)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class DepthOptions:
    """Where depth priors come from. Only densifiers that ask for them (geotex) read any."""

    source: Literal["none", "auto", "files", "points", "network"] = "auto"
    """Depth priors; auto takes files beside the images if there are any, then the points of the capture."""
    folder: str | None = None
    """Folder of the depth files, inside the scene or absolute; None looks for disparity, depth and depths."""
    network: Path | None = None
    """TorchScript file of a monocular depth network; never fetched."""
    values: Literal["disparity", "depth"] = "disparity"
    """What the network (or the files of ``folder``) tell, up to scale and offset."""
