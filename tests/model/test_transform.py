import numpy as np
import pytest
import torch

from splat.errors import UserError
from splat.geometry.rng import keyed_generator
from splat.geometry.rotations import matrix_from_quat
from splat.geometry.sh import sh_colors
from splat.model.primitives import PRIMITIVES
from splat.model.splat_model import SplatModel
from splat.model.transform import transformed


def _model(sh_degree=3, count=7):
    generator = keyed_generator(0, "transform", 0)
    primitive = PRIMITIVES["gaussian"]()
    rows = {spec.name: torch.randn(count, *spec.shape, generator=generator) for spec in primitive.fields(sh_degree)}
    return SplatModel(primitive, rows, sh_degree, filter3d=torch.rand(count, generator=generator))


def _similarity(scale=1.7):
    generator = keyed_generator(0, "similarity", 0)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = scale * matrix_from_quat(torch.randn(4, generator=generator, dtype=torch.float64))
    matrix[:3, 3] = torch.tensor([0.5, -2, 3])
    return matrix


def _covariances(rows):
    axes = matrix_from_quat(rows["quats"].double())
    return axes @ torch.diag_embed(rows["log_scales"].double().exp().square()) @ axes.transpose(1, 2)


@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
def test_everything_moves_together(sh_degree):
    model, similarity = _model(sh_degree), _similarity()
    before = {name: table.clone() for name, table in model.rows.items()}
    moved = transformed(model, similarity)
    linear, shift = similarity[:3, :3], similarity[:3, 3]
    assert torch.allclose(moved.rows["means"].double(), model.rows["means"].double() @ linear.T + shift, atol=1e-5)
    assert torch.allclose(_covariances(moved.rows), linear @ _covariances(model.rows) @ linear.T, rtol=1e-4, atol=1e-4)
    assert torch.allclose(moved.filter3d, model.filter3d * 1.7)
    rotation = linear / 1.7
    camera = torch.tensor([4.0, 1, -3]).double()
    new_camera = linear @ camera + shift
    views = [
        torch.nn.functional.normalize(m.rows["means"].double() - eye, dim=1)
        for m, eye in ((model, camera), (moved, new_camera))
    ]
    assert torch.allclose(views[1], views[0] @ rotation.T, atol=1e-6)
    colors = [
        sh_colors(m.rows["sh0"].double(), m.rows["sh_rest"].double(), view, sh_degree)
        for m, view in zip((model, moved), views, strict=True)
    ]
    assert torch.allclose(colors[0], colors[1], atol=1e-5)
    assert all(torch.equal(model.rows[name], before[name]) for name in before)


def test_there_and_back():
    model, similarity = _model(), _similarity()
    back = transformed(transformed(model, similarity), torch.linalg.inv(similarity))
    for name in ("means", "log_scales", "logit_opacities", "sh0", "sh_rest"):
        assert torch.allclose(back.rows[name], model.rows[name], atol=1e-4), name
    assert torch.allclose(_covariances(back.rows), _covariances(model.rows), rtol=1e-4, atol=1e-4)


def test_numpy_frames_and_identity():
    model = _model()
    same = transformed(model, np.eye(4))
    assert torch.allclose(same.rows["means"], model.rows["means"])
    assert torch.allclose(same.rows["sh_rest"], model.rows["sh_rest"], atol=1e-6)


def test_empty_model():
    assert transformed(_model(count=0), _similarity()).count == 0


def test_mirror_is_refused():
    with pytest.raises(UserError, match="determinant"):
        transformed(_model(), np.diag([1.0, -1, 1, 1]))
