"""Models to drag: bars and blocks of small round splats."""

from __future__ import annotations

import torch

from splat.model.primitives import PRIMITIVES
from splat.model.splat_model import SplatModel


def block(count, size, *, at=(0.0, 0.0, 0.0), seed=0, sh_degree=1, kind="gaussian"):
    """``count`` splats at random in a box of full side lengths ``size`` about ``at``."""
    generator = torch.Generator().manual_seed(seed)
    xyz = (torch.rand(count, 3, generator=generator) - 0.5) * torch.tensor(size) + torch.tensor(at)
    primitive = PRIMITIVES[kind]().fitted(60.0)
    rgb = torch.rand(count, 3, generator=generator)
    rows = primitive.start(xyz, rgb, sh_degree=sh_degree, generator=generator)
    for name in ("quats", "sh_rest"):
        if name in rows:
            rows[name] = rows[name] + 0.3 * torch.randn(rows[name].shape, generator=generator)
    return SplatModel(primitive, rows, sh_degree)


def bar(count=3000, **settings):
    """2 long, 0.2 wide, along x."""
    return block(count, (2.0, 0.2, 0.2), **settings)


def hose(count=3000, *, seed=0):
    """The skin of a tube 2 long and 0.5 wide, along x."""
    model, generator = bar(count), torch.Generator().manual_seed(seed)
    around = 2 * torch.pi * torch.rand(count, generator=generator)
    along = model.rows["means"][:, 0]
    model.rows["means"] = torch.stack([along, 0.25 * around.cos(), 0.25 * around.sin()], dim=1)
    return model


def joined(*models):
    rows = {name: torch.cat([model.rows[name] for model in models]) for name in models[0].rows}
    return SplatModel(models[0].primitive, rows, models[0].sh_degree)


def everything(model):
    return torch.ones(model.count, dtype=torch.bool)


def near(model, place, radius):
    """Rows [N] bool with their middle this near."""
    return (model.rows["means"] - torch.tensor(place)).norm(dim=1) <= radius
