"""Rows of any primitive for tests: started from points, then moved off the start in every field."""

from __future__ import annotations

import numpy as np
import torch

from splat.geometry.rng import keyed_generator
from splat.geometry.rotations import matrix_from_quat
from splat.model.splat_model import SplatModel
from splat.render.reference import ReferenceRasterizer
from splat.render.types import CameraBatch, RenderOptions

FOCAL = 60.0


def varied_model(primitive, count=12, *, sh_degree=2, seed=0, spread=0.3):
    """A model of ``count`` splats around the origin, a unit across (needs the ``oracle_ops`` fixture)."""
    generator = keyed_generator(seed, "varied", count)
    xyz = torch.rand(count, 3, generator=generator) - 0.5
    primitive = primitive.fitted(FOCAL)
    rows = primitive.start(xyz, torch.rand(count, 3, generator=generator), sh_degree=sh_degree, generator=generator)
    for name, table in rows.items():
        noise = torch.randn(table.shape, generator=generator)
        rows[name] = table * (1 + spread * noise) if name == "vertices" else table + spread * noise * _unit(name)
    return SplatModel(primitive, rows, sh_degree)


def _unit(name):
    return {"means": 0.05, "shapes": 2.0, "logit_opacities": 3.0}.get(name, 1.0)


def camera_at(distance=2.5, *, size=(24, 18), focal=FOCAL, dtype=torch.float64):
    width, height = size
    pose = torch.eye(4, dtype=dtype)
    pose[2, 3] = distance
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=dtype)
    return CameraBatch(pose[None], K[None], width, height)


def drawn(model, cameras, *, filter2d="classic", dtype=torch.float64):
    """The picture [H,W,3] of the readable reference, in float64."""
    rows = {name: table.detach().to(dtype) for name, table in model.rows.items()}
    inputs = model.primitive.render_inputs(rows)
    options = RenderOptions(sh_degree=model.sh_degree, filter2d=filter2d)
    return ReferenceRasterizer().render(inputs, cameras, options).color[0]


def similarity(scale=1.7):
    matrix = torch.eye(4, dtype=torch.float64)
    turn = torch.tensor(np.array([0.3, -0.5, 0.7, 0.2]), dtype=torch.float64)
    matrix[:3, :3] = scale * matrix_from_quat(turn)
    matrix[:3, 3] = torch.tensor([0.5, -2, 3])
    return matrix
