"""Colours by hand: the change holds for what is seen from every side."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers_editing import model_of, random_model

from splat.edit.ops import Recolor
from splat.edit.recolor import LUMA, color_map, recolored_values
from splat.errors import UserError
from splat.geometry.sh import C0, sh_basis
from splat.model.primitives import PRIMITIVES

ROWS = torch.tensor([1, 4, 7])
part = st.floats(0, 2)


def seen(rows: dict[str, torch.Tensor], directions: torch.Tensor) -> torch.Tensor:
    """Colours without the cut at 0, float64."""
    basis = sh_basis(directions.double(), 3)
    return C0 * rows["sh0"].double() + (basis[:, 1:, None] * rows["sh_rest"].double()).sum(1) + 0.5


@settings(deadline=None)
@given(st.builds(Recolor, st.tuples(part, part, part), st.floats(-1, 1), part, st.floats(-1, 1), st.floats(-0.5, 0.4),
                 st.floats(0.6, 2)))  # fmt: skip
def test_every_direction_shows_the_changed_colour(op):
    model = random_model(10)
    directions = torch.nn.functional.normalize(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    before = {name: model.rows[name][ROWS] for name in ("sh0", "sh_rest")}
    matrix, offset = (torch.tensor(part, dtype=torch.float64) for part in color_map(op))
    expected = seen(before, directions) @ matrix.T + offset
    after = seen(before | recolored_values(model, ROWS, op), directions)
    assert torch.allclose(after, expected, atol=1e-4)


def changed(color: tuple[float, float, float], **how) -> list[float]:
    matrix, offset = (torch.tensor(part, dtype=torch.float64) for part in color_map(Recolor(**how)))
    return (matrix @ torch.tensor(color, dtype=torch.float64) + offset).tolist()


def test_what_each_setting_does():
    color = (0.8, 0.4, 0.2)
    luma = sum(weight * channel for weight, channel in zip(LUMA, color, strict=True))
    assert changed(color) == pytest.approx(color)
    assert changed(color, tint=(0.5, 1.0, 2.0)) == pytest.approx([0.4, 0.4, 0.4])
    assert changed(color, brightness=0.1) == pytest.approx([0.9, 0.5, 0.3])
    assert changed(color, saturation=0.0) == pytest.approx([luma] * 3)
    assert changed((0.5,) * 3, saturation=1.7) == pytest.approx([0.5] * 3)
    assert changed((0.25, 0.75, 0.5), black=0.25, white=0.75) == pytest.approx([0.0, 1.0, 0.5])
    warm, cold = changed(color, temperature=1.0), changed(color, temperature=-1.0)
    assert warm[0] > color[0] > cold[0] and warm[2] < color[2] < cold[2]
    assert [a * b for a, b in zip(warm, cold, strict=True)] == pytest.approx([channel**2 for channel in color])


@pytest.mark.parametrize("kind", sorted(PRIMITIVES))
def test_opacities_are_multiplied_and_stay_below_one(kind):
    model = model_of(kind)
    for factor in (0.25, 1.5, 0.0, 40.0):
        values = recolored_values(model, ROWS, Recolor(opacity=factor))
        assert set(values) == {"logit_opacities"}
        model.rows["logit_opacities"][ROWS] = values["logit_opacities"]
        expected = (model_of(kind).opacities[ROWS] * factor).clamp(0, 1)
        assert torch.allclose(model.opacities[ROWS], expected, atol=2e-6)
        model = model_of(kind)
    assert recolored_values(model, ROWS, Recolor()) == {}


def test_what_is_switched_off_stays_off():
    model = model_of("convex")
    model.rows["masks"][ROWS[0]], model.rows["logit_opacities"][ROWS[0]] = -99.0, 0.5
    values = recolored_values(model, ROWS, Recolor(opacity=2.0))
    assert values["logit_opacities"][0] == model.rows["logit_opacities"][ROWS[0]]


def test_settings_that_make_no_sense_are_told():
    with pytest.raises(UserError, match=r"white 0.2 must be above black 0.2"):
        color_map(Recolor(black=0.2, white=0.2))
    model = random_model(10)
    del model.rows["sh_rest"]
    with pytest.raises(UserError, match="primitive 'gaussian' has no sh_rest"):
        recolored_values(model, ROWS, Recolor(brightness=0.1))
