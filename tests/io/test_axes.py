"""Axes reversed: the same splats and colours, seen in the other axes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from gaussians import random_model

from splat.geometry.rotations import matrix_from_quat
from splat.geometry.sh import sh_basis
from splat.io.axes import flipped, signs_between
from splat.io.plain import plain_of


@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_places_shapes_and_colours_move_together(signs):
    """Mirrors too: a covariance C becomes M C M, a colour seen along d is then seen along M d."""
    plain = plain_of(random_model(20, sh_degree=3))
    found, mirror = flipped(plain, signs), np.diag(signs).astype(np.float32)
    np.testing.assert_array_equal(found.means, plain.means @ mirror)
    turns = (matrix_from_quat(torch.from_numpy(one.quats)).numpy() for one in (plain, found))
    here, there = (turn * np.exp(plain.log_scales)[:, None] for turn in turns)
    covariance = mirror @ here @ here.transpose(0, 2, 1) @ mirror
    np.testing.assert_allclose(there @ there.transpose(0, 2, 1), covariance, atol=1e-6)
    directions = torch.nn.functional.normalize(torch.randn(20, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    before = np.einsum("dk,nkc->ndc", sh_basis(directions, 3)[:, 1:].numpy(), plain.sh_rest)
    after = np.einsum("dk,nkc->ndc", sh_basis(directions @ torch.from_numpy(mirror), 3)[:, 1:].numpy(), found.sh_rest)
    np.testing.assert_allclose(after, before, atol=1e-5)
    again = flipped(found, signs)
    assert all(np.array_equal(getattr(again, name), getattr(plain, name)) for name in ("means", "quats", "sh_rest"))


def test_names_of_axes():
    assert signs_between("RDF", "RUB") == (1, -1, -1) and signs_between("LUF", "RDF") == (-1, -1, 1)
