"""Codecs alone: their bounds by theory, not by what they say of themselves."""

import numpy as np
import pytest

from splat.io.codecs import CODECS
from splat.io.codecs.codebook import Codebook, nearest_entry, scalar_codebook
from splat.io.codecs.coding import picture_width, restored, squeezed
from splat.io.codecs.half import Half
from splat.io.codecs.log16 import Log16
from splat.io.codecs.palette import Palette
from splat.io.codecs.smallest3 import Smallest3, upright
from splat.io.codecs.uniform import Uniform

RNG = np.random.default_rng(0)
VALUES = (RNG.standard_normal((300, 4, 3)) * np.array([1, 10, 100])).astype(np.float32)
QUATS = RNG.standard_normal((500, 4)).astype(np.float32)


def _decoded(attribute, shape):
    layout = CODECS[attribute.codec].layout(attribute.numbers, {"x": shape})
    assert {name: (array.dtype.name, array.shape) for name, array in attribute.streams.items()} == layout
    return CODECS[attribute.codec].decode(attribute, {"x": shape})["x"]


class TestUniform:
    @pytest.mark.parametrize("bits", [1, 5, 8, 9, 16])
    @pytest.mark.parametrize("per", ["channel", "whole"])
    def test_half_a_step_at_most(self, bits, per):
        attribute = Uniform(bits, per).encode(VALUES)
        spread = np.ptp(VALUES) if per == "whole" else np.ptp(VALUES, axis=0)
        error = np.abs(_decoded(attribute, VALUES.shape) - VALUES)
        assert (error <= spread / (2**bits - 1) / 2 * (1 + 1e-4) + 1e-5).all()
        assert attribute.tolerance == pytest.approx(error.max())
        assert error.mean() > spread.mean() / (2**bits - 1) / 5 - 1e-6, "too good: it does not quantise"

    def test_the_ends_are_exact_and_codes_survive_a_round(self):
        first = Uniform(8).encode(VALUES)
        values = _decoded(first, VALUES.shape)
        assert (values.min(0) == VALUES.min(0)).all() and (values.max(0) == VALUES.max(0)).all()
        again = Uniform(8).encode(values)
        assert (again.streams["codes"] == first.streams["codes"]).all() and again.numbers == first.numbers

    def test_opacities_are_even_in_what_is_drawn(self):
        logits = np.linspace(-8, 25, 1000).astype(np.float32)
        back = _decoded(Uniform(8, through="sigmoid").encode(logits), logits.shape)
        shown = 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-back))
        assert np.abs(shown[0] - shown[1]).max() <= 0.5 / 255 * 1.001
        assert np.isfinite(back).all()

    def test_what_is_not_finite_is_refused(self):
        with pytest.raises(ValueError, match="finite"):
            Uniform().encode(np.array([np.nan], np.float32))

    def test_constants_are_exact(self):
        constant = np.full((5, 2), 0.1, np.float32)
        assert (_decoded(Uniform().encode(constant), constant.shape) == constant).all()


def test_log16_is_relative_far_out():
    far = np.sign(VALUES) * np.expm1(np.abs(VALUES) / 30)
    far = far.astype(np.float32)
    attribute = Log16().encode(far)
    back = _decoded(attribute, far.shape)
    step = np.ptp(np.copysign(np.log1p(np.abs(far.astype(np.float64))), far), axis=0) / 65535
    assert (np.abs(back - far) <= 0.51 * step * (1 + np.abs(far)) + 1e-6).all()
    again = Log16().encode(back)
    assert (again.streams["codes"] == attribute.streams["codes"]).all()


def test_half_keeps_three_digits_and_says_where_it_ends():
    assert (np.abs(_decoded(Half().encode(VALUES), VALUES.shape) - VALUES) <= np.abs(VALUES) * 2**-11 + 1e-7).all()
    with pytest.raises(ValueError, match="65504"):
        Half().encode(np.array([7e4], np.float32))


class TestCodebook:
    def test_better_than_equal_steps(self):
        values = RNG.standard_normal(20_000).astype(np.float32) ** 3
        errors = [
            np.square(_decoded(codec.encode(values), values.shape) - values).mean()
            for codec in (Codebook(64), Uniform(6))
        ]
        assert errors[0] < 0.2 * errors[1]

    def test_few_values_are_kept(self):
        values = RNG.choice(np.array([0.1, 0.5, -3], np.float32), (40, 3))
        attribute = Codebook().encode(values)
        assert attribute.tolerance == 0 and attribute.numbers["entries"] == 3

    def test_indices_are_the_nearest(self):
        book = scalar_codebook(VALUES, 16)
        nearest = np.abs(VALUES[..., None] - book).argmin(-1)
        chosen = nearest_entry(VALUES, book)
        assert np.allclose(np.abs(book[chosen] - VALUES), np.abs(book[nearest] - VALUES))
        assert len(book) == 16


class TestSmallest3:
    @pytest.mark.parametrize("bits", [4, 8, 10, 16])
    def test_turns_within_a_step(self, bits):
        back = _decoded(Smallest3(bits).encode(QUATS), QUATS.shape)
        dots = np.abs((back * upright(QUATS)).sum(1)).clip(0, 1)
        angles = 2 * np.arccos(dots.astype(np.float64))
        assert angles.max() < 4 * np.sqrt(0.5) / (2 ** (bits - 1) - 1) * 1.2 + 1e-3
        assert np.allclose(np.linalg.norm(back, axis=1), 1, atol=1e-6)

    def test_no_turn_and_no_length(self):
        quats = np.array([[1, 0, 0, 0], [-5, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, -2]], np.float32)
        back = _decoded(Smallest3(8).encode(quats), quats.shape)
        assert np.allclose(back, [[1, 0, 0, 0]] * 3 + [[0, 0, 0, 1]])


class TestPalette:
    def test_entries_by_label(self):
        palette = RNG.standard_normal((40, 5, 3)).astype(np.float32)
        labels = RNG.integers(0, 30, 400)
        attribute = Palette(16).encode(palette[labels], palette, labels)
        assert np.abs(_decoded(attribute, (400, 5, 3)) - palette[labels]).max() < 1e-4
        assert attribute.numbers["entries"] == 30 and attribute.streams["labels"].dtype == np.uint8

    def test_a_label_beyond_the_end(self):
        attribute = Palette().encode(np.zeros((3, 2), np.float32), np.zeros((1, 2), np.float32), np.zeros(3))
        attribute.streams["labels"][1] = 1
        with pytest.raises(ValueError, match="beyond"):
            _decoded(attribute, (3, 2))


class TestCoding:
    @pytest.mark.parametrize("coding", ["raw", "zstd", "webp"])
    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    @pytest.mark.parametrize("shape", [(1,), (7,), (50, 2), (50, 3), (49, 4), (33, 5, 3), (0, 3), (4, 0)])
    def test_back_as_it_was(self, coding, dtype, shape):
        array = RNG.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
        facts, parts = squeezed(array, coding)
        back = restored(parts, facts, dtype, shape)
        assert back.dtype == array.dtype and (back == array).all() and back.shape == shape

    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    def test_what_grows_slowly_is_kept_as_steps(self, dtype):
        walk = np.cumsum(RNG.integers(-3, 4, (2000, 3)), axis=0).astype(dtype)  # wraps around
        facts, parts = squeezed(walk, "zstd")
        assert facts.get("steps") and (restored(parts, facts, dtype, walk.shape) == walk).all()
        assert len(parts[0]) < 2000 * 3 * 0.5

    def test_floats(self):
        for dtype in ("float16", "float32"):
            array = RNG.standard_normal((9, 2)).astype(dtype)
            facts, parts = squeezed(array, "zstd")
            assert (restored(parts, facts, dtype, (9, 2)) == array).all()
        with pytest.raises(ValueError, match="picture"):
            squeezed(array, "webp")

    def test_a_square_grid_stays_a_picture(self):
        assert [picture_width(rows) for rows in (0, 1, 4, 5, 9, 10, 100)] == [1, 1, 2, 3, 3, 4, 10]
