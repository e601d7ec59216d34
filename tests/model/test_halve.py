"""Halving along the longest axis (specs: densifiers 5.6, 6.6)."""

import pytest
import torch

from splat.geometry.rng import keyed_generator
from splat.geometry.rotations import matrix_from_quat
from splat.model.primitives import PRIMITIVES

KINDS = [kind for kind in PRIMITIVES if "halve" in PRIMITIVES[kind].can]
FAMILY = [kind for kind in KINDS if kind != "convex"]


def _rows(kind, count=7, sizes=(0.1, 0.4, 0.2)):
    primitive = PRIMITIVES[kind]()
    generator = keyed_generator(0, "halve", 0)
    rows = {spec.name: torch.randn(count, *spec.shape, generator=generator) for spec in primitive.fields(1)}
    if kind == "convex":
        rows["masks"] = torch.full((count,), 4.0)
    else:
        rows["log_scales"] = torch.tensor(sizes).log().repeat(count, 1)
    return primitive, rows


def _children(primitive, rows, parents, how="ends"):
    """All fields of the children, as a row edit makes them: [2P]."""
    copied = {name: table[parents.repeat(2)] for name, table in rows.items()}
    return copied | primitive.halve(rows, parents, how=how)


def test_every_primitive_halves():
    assert set(KINDS) >= {"gaussian", "ges", "gef", "convex"}


@pytest.mark.parametrize("kind", FAMILY)
def test_golden_numbers(kind):
    primitive, rows = _rows(kind)
    parents = torch.tensor([4, 1])
    children = _children(primitive, rows, parents)
    sizes = primitive.scales(rows)[parents].repeat(2, 1)
    assert torch.allclose(primitive.scales(children) / sizes, torch.tensor([0.893, 0.55, 0.893]), rtol=1e-5)
    assert torch.allclose(primitive.opacities(children), 0.6 * primitive.opacities(rows)[parents].repeat(2), rtol=1e-5)
    longest = matrix_from_quat(rows["quats"][parents])[:, :, 1]
    offset = 1.35 * primitive.scales(rows)[parents, 1:2] * longest
    expected = torch.cat([rows["means"][parents] + offset, rows["means"][parents] - offset])
    assert torch.allclose(children["means"], expected, atol=1e-6)


@pytest.mark.parametrize("kind", FAMILY)
def test_overlapping_halves_keep_variance(kind):
    """The mixture of both halves has the parent's variance along each axis (at most a cross term off the axes)."""
    primitive, rows = _rows(kind)
    parents = torch.arange(7)
    children = _children(primitive, rows, parents, "overlap")
    axes = matrix_from_quat(rows["quats"])
    offsets = torch.einsum("nij,ni->nj", axes, children["means"][:7] - rows["means"])  # along the parent's axes
    variance = primitive.scales(children)[:7].square() + offsets.square()
    assert torch.allclose(variance, primitive.scales(rows).square(), rtol=1e-4)
    longest = primitive.scales(children)[:7, 1] / primitive.scales(rows)[:, 1]
    assert longest.tolist() == pytest.approx([0.5**0.5] * 7, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_overlapping_halves_golden_opacity(kind):
    primitive, rows = _rows(kind)
    rows |= primitive.with_opacities(torch.full((7,), 0.5))
    children = _children(primitive, rows, torch.tensor([3]), "overlap")
    assert primitive.opacities(children).tolist() == pytest.approx([0.38745] * 2, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_middle_of_the_halves_is_the_parent(kind):
    primitive, rows = _rows(kind)
    parents = torch.arange(7)
    values = primitive.halve(rows, parents)
    assert {len(new) for new in values.values()} == {14}
    if kind == "convex":
        return  # its mean of vertices is not the middle of its extent
    assert torch.allclose((values["means"][:7] + values["means"][7:]) / 2, rows["means"], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_and_nothing_changes(kind):
    primitive, rows = _rows(kind)
    before = {name: table.clone() for name, table in rows.items()}
    assert all(len(new) == 0 for new in primitive.halve(rows, torch.zeros(0, dtype=torch.int64)).values())
    primitive.halve(rows, torch.arange(3))
    assert all(torch.equal(rows[name], before[name]) for name in rows)


@pytest.mark.parametrize(("how", "length", "width"), [("ends", 0.55, 0.893), ("overlap", 0.5**0.5, 1.0)])
def test_halves_of_a_convex_share_its_length(how, length, width):
    """Along the line between the two vertices farthest apart the halves reach exactly as far as the parent."""
    primitive, rows = _rows("convex")
    parents = torch.tensor([2, 5])
    children = _children(primitive, rows, parents, how)
    for index, parent in enumerate(parents.tolist()):
        vertices = rows["vertices"][parent] - rows["vertices"][parent].mean(dim=0)
        gaps = torch.cdist(vertices, vertices)
        first, second = divmod(int(gaps.argmax()), len(vertices))
        axis = (vertices[first] - vertices[second]) / gaps.max()
        along = (rows["means"][parent] + vertices) @ axis
        halves = [(children["means"][row] + children["vertices"][row]) @ axis for row in (index, index + 2)]
        both = torch.cat(halves)
        assert both.min().item() == pytest.approx(along.min().item(), abs=1e-5)
        assert both.max().item() == pytest.approx(along.max().item(), abs=1e-5)
        for half in halves:
            assert (half.max() - half.min()).item() == pytest.approx(length * gaps.max().item(), rel=1e-4)
        across = vertices - (vertices @ axis)[:, None] * axis
        child = children["vertices"][index] - (children["vertices"][index] @ axis)[:, None] * axis
        assert torch.allclose(child, width * across, atol=1e-5)


def test_opacity_of_the_ends_of_a_convex():
    primitive, rows = _rows("convex")
    children = _children(primitive, rows, torch.tensor([2, 5]))
    expected = 0.6 * primitive.opacities(rows)[[2, 5, 2, 5]]
    assert torch.allclose(primitive.opacities(children), expected, rtol=1e-4)


def test_a_convex_without_extent():
    primitive, rows = _rows("convex", count=2)
    rows["vertices"][:] = 0.5
    children = primitive.halve(rows, torch.tensor([0, 1]))
    assert all(torch.isfinite(new).all() for new in children.values())
    assert torch.equal(children["means"], rows["means"].repeat(2, 1))
