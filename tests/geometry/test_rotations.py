import numpy as np
import pytest
import torch

from splat.errors import UserError
from splat.geometry.rng import keyed_generator
from splat.geometry.rotations import matrix_from_quat, quat_from_matrix, quat_product, rotated, split_similarity


def _quats(count, purpose="quats"):
    return torch.randn(count, 4, generator=keyed_generator(0, purpose, 0), dtype=torch.float64)


def test_known_turns():
    half = 0.5**0.5
    about_z = matrix_from_quat(torch.tensor([half, 0, 0, half], dtype=torch.float64))
    assert torch.allclose(about_z @ torch.tensor([1.0, 0, 0]).double(), torch.tensor([0.0, 1, 0]).double())
    about_x = matrix_from_quat(torch.tensor([half, half, 0, 0], dtype=torch.float64))
    assert torch.allclose(about_x @ torch.tensor([0.0, 1, 0]).double(), torch.tensor([0.0, 0, 1]).double())


def test_matrices_are_rotations_whatever_the_length():
    matrices = matrix_from_quat(_quats(50) * 7)
    eye = torch.eye(3, dtype=torch.float64)
    assert torch.allclose(matrices @ matrices.transpose(1, 2), eye.expand(50, 3, 3), atol=1e-12)
    assert torch.allclose(torch.linalg.det(matrices), torch.ones(50, dtype=torch.float64))
    assert torch.equal(matrix_from_quat(torch.zeros(4, dtype=torch.float64)), eye)


def test_quat_of_matrix_goes_back_and_forth():
    special = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0.6, 0.8, 0]]).double()
    quats = torch.cat([_quats(200), special])
    quats = quats / quats.norm(dim=1, keepdim=True)
    back = quat_from_matrix(matrix_from_quat(quats))
    assert (back[:, 0] >= 0).all()
    assert torch.allclose((back * quats).sum(dim=1).abs(), torch.ones(205, dtype=torch.float64), atol=1e-12)


def test_product_is_composition():
    left, right = _quats(20, "left"), _quats(20, "right")
    composed = matrix_from_quat(quat_product(left, right))
    assert torch.allclose(composed, matrix_from_quat(left) @ matrix_from_quat(right), atol=1e-12)


def test_rotated_is_matrix_times_vector():
    matrices, vectors = matrix_from_quat(_quats(9)), _quats(9, "v")[:, :3]
    assert torch.allclose(rotated(matrices, vectors), torch.einsum("nij,nj->ni", matrices, vectors))


def test_similarity_comes_apart():
    rotation = matrix_from_quat(_quats(1))[0]
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3], matrix[:3, 3] = 2.5 * rotation, torch.tensor([1.0, 2, 3])
    scale, turn, shift = split_similarity(matrix)
    assert scale == pytest.approx(2.5)
    assert torch.allclose(turn, rotation)
    assert shift.tolist() == [1, 2, 3]
    assert split_similarity(np.eye(4))[0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("matrix", "word"),
    [
        (np.diag([1.0, 1, -1, 1]), "determinant"),
        (np.diag([1.0, 2, 1, 1]), "uneven"),
        (np.full((4, 4), np.nan), "finite"),
        (np.eye(3), "4x4"),
        (np.diag([1.0, 1, 1, 2]), "last row"),
    ],
)
def test_what_is_no_similarity_is_refused(matrix, word):
    with pytest.raises(UserError, match=word):
        split_similarity(matrix)
