import numpy as np
import pytest
import torch

from splat.compress.color_field import (
    PLACES,
    FieldSize,
    field_colors,
    field_shape,
    importance,
    put_field,
    rounded_grid,
    shape_in,
    started_field,
    tables_in,
)
from splat.compress.protocol import CompressState
from splat.io.codecs.field import Field, coefficients, level_values, rounded_levels
from splat.io.codecs.hash_grid import contracted, looked_up, plan_of, planned

SIZE = FieldSize(levels=4, features=2, entries_per_splat=0.5, hidden=16)


def _points(count=400, seed=0):
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


def _colors(means):
    """Smooth in space, six numbers."""
    waves = [torch.sin(k * means[:, axis]) for axis in range(3) for k in (1, 3)]
    return torch.stack(waves, 1)


class TestGrid:
    def test_what_it_looks_up(self):
        """Against the definition, one point at a time: trilinear between corners that share entries by the hash."""
        shape = field_shape(_points(), SIZE, 3).grid
        points = contracted(_points(20), (0, 0, 0), 1.5)
        table = torch.randn(sum(shape.sizes), 2, generator=torch.Generator().manual_seed(1))
        found = looked_up(table, planned(points, shape)).view(20, -1)
        start = 0
        for level, (cells, size) in enumerate(zip(shape.resolutions, shape.sizes, strict=True)):
            for row, point in enumerate(points.double()):
                corner = (point.float() * cells).floor()
                inside = (point * cells - corner).tolist()
                total = torch.zeros(2, dtype=torch.float64)
                for offsets in np.ndindex(2, 2, 2):
                    x, y, z = (int(c) + o for c, o in zip(corner, offsets, strict=True))
                    dense = (cells + 1) ** 3 <= size
                    entry = (z * (cells + 1) + y) * (cells + 1) + x
                    entry = entry if dense else (x ^ y * 2654435761 ^ z * 805459861) % size
                    weight = np.prod(
                        [part if offset else 1 - part for part, offset in zip(inside, offsets, strict=True)]
                    )
                    total += weight * table[start + entry].double()
                torch.testing.assert_close(found[row, 2 * level : 2 * level + 2], total.float(), atol=2e-4, rtol=1e-3)
            start += size
        assert any((cells + 1) ** 3 > size for cells, size in zip(shape.resolutions, shape.sizes, strict=True))

    def test_gradients_of_the_table(self):
        shape = field_shape(_points(), SIZE, 3).grid
        plan = planned(contracted(_points(30), (0, 0, 0), 1.5), shape)
        table = torch.randn(sum(shape.sizes), 2).requires_grad_(True)
        weights = torch.randn(30 * 4, 2)
        (looked_up(table, plan) * weights).sum().backward()
        free = table.detach().clone().requires_grad_(True)
        ((free[plan.entries.long()] * plan.weights[..., None]).sum(1) * weights).sum().backward()
        torch.testing.assert_close(table.grad, free.grad)

    def test_labels_are_a_plan_of_one(self):
        labels = torch.tensor([2, 0, 2, 2, 4])
        table = torch.arange(10.0).view(5, 2).requires_grad_(True)
        rows = looked_up(table, plan_of(labels[:, None], torch.ones(5, 1), 5))
        assert torch.equal(rows, table[labels])
        rows.sum().backward()
        assert table.grad[:, 0].tolist() == [1, 0, 3, 0, 1]

    def test_everything_is_inside(self):
        points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, -1e6, 0], [2, 0, 0]])
        found = contracted(points, (0, 0, 0), 1.0)
        torch.testing.assert_close(found[:, 0], torch.tensor([0.5, 0.75, 0.5, 0.875]))
        assert found.min() >= 0 and found[2, 1] < 1e-5


@pytest.fixture(scope="module")
def started():
    means = _points()
    shape = field_shape(means, SIZE, 6)
    return means, shape, started_field(shape, means, _colors(means), torch.ones(len(means)), steps=150, seed=0)


class TestField:
    def test_it_learns_the_colours_that_are_there(self, started):
        means, shape, tables = started
        error = (coefficients(shape, tables, shape.plan(means)) - _colors(means)).square().mean()
        assert error < 0.3 * _colors(means).var()  # a small table: entries are shared

    def test_state_and_file_agree(self, started):
        means, shape, tables = started
        state = CompressState()
        put_field(state, shape, {name: table.clone() for name, table in tables.items()}, means)
        assert shape_in(state) == shape
        drawn = field_colors(state, bits=8).detach()
        values = {"means": means.numpy(), "sh0": drawn[:, :3].numpy(), "sh_rest": drawn[:, 3:].numpy()}
        attribute = Field().encode(
            values, shape, {name: table.detach().numpy() for name, table in tables_in(state).items()}
        )
        shapes = {name: table.shape for name, table in values.items()}
        decoded = Field.decode(attribute, shapes)
        for name in ("sh0", "sh_rest"):  # what remains: places in 16 bits, the network in float16
            assert np.abs(decoded[name] - values[name]).max() < 0.02
        layout = Field.layout(attribute.numbers, shapes)
        assert {name: (array.dtype.name, array.shape) for name, array in attribute.streams.items()} == layout

    def test_gradients_reach_every_table(self, started):
        means, shape, tables = started
        state = CompressState()
        put_field(state, shape, {name: table.clone() for name, table in tables.items()}, means)
        field_colors(state, bits=8).square().sum().backward()
        assert all(table.grad.abs().sum() > 0 for table in tables_in(state).values())
        assert state.rows[PLACES].grad is None

    def test_the_same_on_any_number_of_threads(self, started):
        means, shape, _ = started
        used, results = torch.get_num_threads(), []
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                tables = started_field(shape, means, _colors(means), torch.ones(len(means)), steps=5, seed=0)
                results.append(torch.cat([table.flatten() for table in tables.values()]))
        finally:
            torch.set_num_threads(used)
        assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])

    def test_its_size_follows_the_scene(self):
        sizes = [field_shape(_points(count), SIZE, 3).grid.log2_size for count in (0, 1, 300, 5000)]
        assert sizes == [6, 6, 8, 12]


def test_training_rounds_as_the_file_does():
    shape = field_shape(_points(), SIZE, 3).grid
    grid = torch.randn(sum(shape.sizes), 2)
    codes, ranges = rounded_levels(grid.numpy(), shape.sizes, 8)
    stored = torch.from_numpy(level_values(codes, shape.sizes, ranges, 8))
    torch.testing.assert_close(rounded_grid(grid, shape, 8), stored, atol=1e-5, rtol=0)


def test_importance_favours_what_is_seen():
    opacities = torch.tensor([1.0, 0.01, 1.0])
    scales = torch.tensor([[1.0, 1, 0.01], [1, 1, 0.01], [0.01, 0.01, 0.01]])
    worth = importance(opacities, scales)
    assert worth[0] > 50 * worth[1] and worth[0] > 50 * worth[2]
