"""Numbers of every splat that can be looked at, drawn as a histogram, and selected by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from splat.geometry.sh import rgb_from_sh0
from splat.model.labels import Labels
from splat.model.splat_model import SplatModel

_TINY = 1e-20
"""World units; keeps a ratio of sizes finite."""


@dataclass(frozen=True)
class Attribute:
    """One number per splat."""

    purpose: str
    unit: str
    """Empty where it has none."""
    values: Callable[[SplatModel, Labels], Tensor]  # -> [N] float, on the device of the model


def base_colors(model: SplatModel) -> Tensor:  # [N,3]
    """What splats show from everywhere (degree 0), in 0..1."""
    return rgb_from_sh0(model.rows["sh0"].detach()).clamp(0, 1)


def _column(index: int) -> Callable[[SplatModel, Labels], Tensor]:
    return lambda model, _: model.rows["means"].detach()[:, index]


def _channel(index: int) -> Callable[[SplatModel, Labels], Tensor]:
    return lambda model, _: base_colors(model)[:, index]


def _distance(model: SplatModel, _: Labels) -> Tensor:
    x, y, z = model.rows["means"].detach().unbind(1)
    return (x * x + y * y + z * z).sqrt()


def _scales(model: SplatModel) -> tuple[Tensor, ...]:
    return model.scales.detach().unbind(1)


def _volume(model: SplatModel, _: Labels) -> Tensor:
    a, b, c = _scales(model)
    return 4 / 3 * pi * (a * b * c)


def _surface(model: SplatModel, _: Labels) -> Tensor:
    a, b, c = _scales(model)
    return 4 / 3 * pi * (a * b + b * c + c * a)


def _elongation(model: SplatModel, _: Labels) -> Tensor:
    scales = model.scales.detach()
    return scales.amax(1) / scales.amin(1).clamp_min(_TINY)


def _hsv(model: SplatModel) -> tuple[Tensor, Tensor, Tensor]:
    """Hue (degrees), saturation and value of base colours; a grey has hue 0."""
    colors = base_colors(model)
    red, green, blue = colors.unbind(1)
    value, least = colors.amax(1), colors.amin(1)
    chroma = value - least
    safe = chroma.clamp_min(_TINY)
    sixth = torch.where(
        value == red,
        ((green - blue) / safe) % 6,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    hue = torch.where(chroma > 0, sixth * 60, torch.zeros_like(value))
    return hue, chroma / value.clamp_min(_TINY), value


def _view_dependence(model: SplatModel, _: Labels) -> Tensor:
    # The basis is orthonormal on the sphere, whose area is 4 pi.
    rest = model.rows["sh_rest"].detach()
    return (rest.square().sum(dim=(1, 2)) / (12 * pi)).sqrt()


ATTRIBUTES: Mapping[str, Attribute] = {
    "x": Attribute("position along x", "world units", _column(0)),
    "y": Attribute("position along y", "world units", _column(1)),
    "z": Attribute("position along z", "world units", _column(2)),
    "distance": Attribute("distance from the origin", "world units", _distance),
    "opacity": Attribute("opacity, 0 to 1", "", lambda model, _: model.opacities.detach()),
    "scale_max": Attribute("longest axis (standard deviation)", "world units",
                           lambda model, _: model.scales.detach().amax(1)),
    "scale_min": Attribute("shortest axis (standard deviation)", "world units",
                           lambda model, _: model.scales.detach().amin(1)),
    "elongation": Attribute("longest over shortest axis: needles and discs are large", "", _elongation),
    "volume": Attribute("volume within one standard deviation", "world units^3", _volume),
    "surface": Attribute("surface at one standard deviation, about", "world units^2", _surface),
    "red": Attribute("red of the base colour, 0 to 1", "", _channel(0)),
    "green": Attribute("green of the base colour, 0 to 1", "", _channel(1)),
    "blue": Attribute("blue of the base colour, 0 to 1", "", _channel(2)),
    "hue": Attribute("hue of the base colour", "degrees", lambda model, _: _hsv(model)[0]),
    "saturation": Attribute("saturation of the base colour, 0 to 1", "", lambda model, _: _hsv(model)[1]),
    "value": Attribute("largest channel of the base colour, 0 to 1", "", lambda model, _: _hsv(model)[2]),
    "view_dependence": Attribute("how much the colour changes with the view (mean deviation)", "", _view_dependence),
    "age": Attribute("step of the training that made it; 0 = there from the start", "steps",
                     lambda _, labels: labels.born.float()),
    "reason": Attribute("why it was made: index into the names of the labels", "",
                        lambda _, labels: labels.reasons.float()),
    "id": Attribute("its number in the run", "", lambda _, labels: labels.ids.double()),
}  # fmt: skip
