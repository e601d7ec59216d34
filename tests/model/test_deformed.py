"""Splats turned and deformed each in their own way, against one similarity for all and against covariances."""

import pytest
import torch
from varied_rows import similarity, varied_model

from splat.geometry.deformation import MAX_STRETCH, MIN_STRETCH, deformed_axes, split_gradients
from splat.geometry.rotations import matrix_from_quat, quat_from_matrix, split_similarity
from splat.geometry.sh import rotated_sh, sh_basis
from splat.geometry.sh_turns import turned_sh
from splat.model.primitives import PRIMITIVES

pytestmark = pytest.mark.usefixtures("oracle_ops")
EVERY = pytest.mark.parametrize("kind", PRIMITIVES)


def _model(kind, count=12):
    return varied_model(PRIMITIVES[kind](), count, sh_degree=3)


def _covariances(model, rows):
    axes = torch.eye(3).double()
    rows = {name: table.double() for name, table in rows.items()}
    count = len(rows["means"])
    return torch.stack([model.primitive.covariance_product(rows, axis.expand(count, 3)) for axis in axes], dim=2)


def _gradients(count, seed=0, size=0.3):
    generator = torch.Generator().manual_seed(seed)
    near = torch.eye(3) + size * torch.randn(count, 3, 3, generator=generator)
    return split_gradients(near)[1].float()


@EVERY
def test_deformed_by_a_similarity_is_transformed(kind):
    model, moved = _model(kind), similarity(1.7)
    scale, rotation, _ = split_similarity(moved)
    expected = model.primitive.transformed(model.rows, moved)
    gradients = (scale * rotation).expand(12, 3, 3)
    found = model.primitive.deformed(model.rows, expected["means"], gradients)
    rows = dict(model.rows) | found
    for name, table in expected.items():
        if name not in ("quats", "log_scales"):  # axes may come in another order
            assert torch.allclose(rows[name], table, atol=2e-6, rtol=2e-6), name
    wanted = _covariances(model, expected)
    assert torch.allclose(_covariances(model, rows), wanted, atol=1e-6 * float(wanted.abs().max()))


@EVERY
def test_covariances_follow_the_deformation(kind):
    model, gradients = _model(kind), _gradients(12)
    before = {name: table.clone() for name, table in model.rows.items()}
    rows = dict(model.rows) | model.primitive.deformed(model.rows, model.rows["means"], gradients)
    f = gradients.double()
    wanted = f @ _covariances(model, model.rows) @ f.transpose(1, 2)
    assert torch.allclose(_covariances(model, rows), wanted, atol=2e-6 * float(wanted.abs().max()))
    assert all(torch.isfinite(table).all() and table.dtype == torch.float32 for table in rows.values())
    assert all(torch.equal(model.rows[name], before[name]) for name in before)
    assert all(torch.equal(rows[name], before[name]) for name in ("means", "logit_opacities", "sh0"))


@EVERY
def test_turned_is_the_rotation_of_a_preview(kind):
    model, moved = _model(kind), similarity(1.0)
    turns = quat_from_matrix(split_similarity(moved)[1]).float().expand(12, 4)
    expected = model.primitive.transformed(model.rows, moved)
    found = model.primitive.turned(model.rows, expected["means"], turns)
    assert set(found) < set(expected) and "sh_rest" not in found
    for name, table in found.items():
        assert torch.allclose(table, expected[name], atol=2e-6), name


@EVERY
def test_nothing_to_deform(kind):
    model = _model(kind, count=0)
    values = model.primitive.deformed(model.rows, torch.zeros(0, 3), torch.zeros(0, 3, 3))
    assert all(table.shape == model.rows[name].shape for name, table in values.items())
    values = model.primitive.turned(model.rows, torch.zeros(0, 3), torch.zeros(0, 4))
    assert all(table.shape == model.rows[name].shape for name, table in values.items())


def test_axes_stay_in_order_where_nothing_stretches_them():
    model = _model("gaussian")
    rotation = matrix_from_quat(torch.tensor([0.3, 0.2, -0.5, 0.7])).expand(12, 3, 3)
    values = model.primitive.deformed(model.rows, model.rows["means"], rotation)
    assert torch.allclose(values["log_scales"], model.rows["log_scales"], atol=1e-5)


def test_thin_splats_keep_their_thickness():
    """A sheet of a millionth of its width, bent: the small axis is as exact as the large ones."""
    axes = torch.eye(3).double()[None] * torch.tensor([1.0, 0.7, 1e-6]).double()
    turn = matrix_from_quat(torch.tensor([0.9, 0.1, 0.2, -0.3]).double())
    _, lengths = deformed_axes(axes, (turn * 1.25)[None])
    assert torch.allclose(lengths / 1.25, torch.tensor([[1.0, 0.7, 1e-6]]).double(), rtol=1e-9)


@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
def test_gradients_taken_apart(size):
    gradients = torch.eye(3).double() + size * torch.randn(500, 3, 3, generator=torch.Generator().manual_seed(1))
    rotations, limited = split_gradients(gradients)
    identity = torch.eye(3).double()
    assert torch.allclose(rotations @ rotations.transpose(1, 2), identity.expand(500, 3, 3), atol=1e-12)
    assert (torch.linalg.det(rotations) > 0).all() and (torch.linalg.det(limited) > 0).all()
    stretches = torch.linalg.svdvals(limited)
    assert stretches.min() >= MIN_STRETCH - 1e-9 and stretches.max() <= MAX_STRETCH + 1e-9
    # The nearest rotation: U diag(1, 1, det) V^T of Kabsch.
    u, s, vh = torch.linalg.svd(gradients)
    u[:, :, 2] *= torch.sign(torch.linalg.det(u @ vh))[:, None]
    assert torch.allclose(rotations, u @ vh, atol=1e-6)
    inside = (s.amax(1) <= MAX_STRETCH) & (s.amin(1) >= MIN_STRETCH) & (torch.linalg.det(gradients) > 0)
    assert torch.equal(limited[inside], gradients[inside])


def test_degenerate_gradients_become_something_sound():
    flat, line, nothing, mirrored = (1.0, 1, 0), (9.0, 0, 0), (0, 0, 0), (1.0, -1, 1)
    rotations, limited = split_gradients(torch.diag_embed(torch.tensor([flat, line, nothing, mirrored])))
    assert torch.allclose(rotations @ rotations.transpose(1, 2), torch.eye(3).double().expand(4, 3, 3), atol=1e-12)
    assert (torch.linalg.det(rotations) > 0.99).all()
    expected = [MIN_STRETCH, MAX_STRETCH * MIN_STRETCH**2, MIN_STRETCH**3, MIN_STRETCH]
    assert torch.allclose(torch.linalg.det(limited), torch.tensor(expected).double())


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_colours_turn_row_by_row(degree):
    generator = torch.Generator().manual_seed(2)
    rest = torch.randn(300, (degree + 1) ** 2 - 1, 3, generator=generator)
    rotations = matrix_from_quat(torch.randn(300, 4, generator=generator).double())
    turned = turned_sh(rest, rotations)
    assert turned.shape == rest.shape and turned.dtype == torch.float32
    for row in range(0, 300, 100):
        expected = rotated_sh(rest[row : row + 1].double(), rotations[row])
        assert torch.allclose(turned[row : row + 1].double(), expected, atol=1e-6)
    directions = torch.nn.functional.normalize(torch.randn(300, 3, generator=generator).double(), dim=1)
    back = (rotations.transpose(1, 2) @ directions[..., None])[..., 0]
    seen, before = sh_basis(directions, degree)[:, 1:, None], sh_basis(back, degree)[:, 1:, None]
    assert torch.allclose((seen * turned).sum(1), (before * rest).sum(1), atol=2e-6)


def test_the_same_bits_on_any_number_of_threads():
    model, gradients = _model("gaussian"), _gradients(9011)
    model.rows = {name: table.repeat_interleave(751, dim=0)[:9011] for name, table in model.rows.items()}
    threads = torch.get_num_threads()
    try:
        first = model.primitive.deformed(model.rows, model.rows["means"], gradients)
        torch.set_num_threads(1)
        second = model.primitive.deformed(model.rows, model.rows["means"], gradients)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(first[name], second[name]) for name in first)
