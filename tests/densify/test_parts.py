import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splat.densify import parts
from splat.densify.protocol import refine_is_due
from splat.geometry.rng import keyed_generator
from splat.model.gaussian import GaussianPrimitive
from splat.model.splat_model import SplatModel


def _model(opacities, scales=None, filter3d=None):
    primitive, count = GaussianPrimitive(), len(opacities)
    generator = keyed_generator(0, "parts", count)
    rows = {spec.name: torch.randn(count, *spec.shape, generator=generator) for spec in primitive.fields(1)}
    rows |= primitive.with_opacities(torch.tensor(opacities))
    if scales is not None:
        rows |= primitive.with_scales(torch.tensor(scales)[:, None].repeat(1, 3))
    return SplatModel(primitive, rows, 1, filter3d=filter3d)


# -- golden numbers of specs: densifiers 1.3 and 6.6


@pytest.mark.parametrize(
    ("copies", "opacity", "shrink"), [(2, 0.29289, 0.95215), (3, 0.20630, 0.93688), (5, 0.12945, 0.92491)]
)
def test_relocation_golden_numbers(copies, opacity, shrink):
    shared, factors = parts.relocated_shape(torch.tensor([0.5]), torch.tensor([copies]), min_opacity=0.005)
    assert shared.item() == pytest.approx(opacity, abs=6e-6)
    assert factors.item() == pytest.approx(shrink, abs=3e-5)


def test_revised_opacity_golden_number():
    assert parts.shared_opacity(torch.tensor([0.5]), 2).item() == pytest.approx(0.29289, abs=5e-6)


@given(st.floats(0.01, 0.999), st.integers(1, 51))
@settings(max_examples=100, deadline=None)
def test_copies_together_cover_what_one_did(opacity, copies):
    shared = parts.shared_opacity(torch.tensor([opacity], dtype=torch.float64), copies).item()
    assert 1 - (1 - shared) ** copies == pytest.approx(opacity, rel=1e-9)


@given(st.floats(0.3, 0.999), st.integers(1, 51))
@settings(max_examples=100, deadline=None)
def test_relocated_size_equals_the_double_sum_of_the_paper(opacity, copies):
    shared = 1 - (1 - opacity) ** (1 / copies)
    terms = [
        math.comb(i - 1, k) * (-1) ** k * shared ** (k + 1) / math.sqrt(k + 1)
        for i in range(1, copies + 1)
        for k in range(i)
    ]
    _, factors = parts.relocated_shape(
        torch.tensor([opacity], dtype=torch.float64), torch.tensor([copies]), min_opacity=0.0
    )
    assert factors.item() == pytest.approx(opacity / math.fsum(terms), rel=1e-6)


def test_relocation_edges_are_finite():
    opacities = torch.tensor([1e-4, 0.005, 0.5, 1.0, 1.0])
    copies = torch.tensor([51, 2, 1, 51, 4000])
    shared, factors = parts.relocated_shape(opacities, copies, min_opacity=0.005)
    assert torch.isfinite(factors).all() and (factors > 0).all()
    assert ((shared >= 0.005 - 1e-9) & (shared < 1)).all()
    assert factors[2].item() == pytest.approx(1)
    empty = parts.relocated_shape(opacities[:0], copies[:0], min_opacity=0.005)
    assert [len(part) for part in empty] == [0, 0]


# -- scorers and selectors


def test_mean_over_views():
    mean = parts.mean_over_views(torch.tensor([6.0, 5.0, torch.nan, 0.0]), torch.tensor([3.0, 1.0, 2.0, 0.0]))
    assert mean.tolist() == [2, 5, 0, 0]


@pytest.mark.parametrize("sh_degree", [0, 2])
def test_finite_rows(sh_degree):
    model = _model([0.5, 0.5, 0.5])
    model.rows["sh_rest"] = torch.zeros(3, (sh_degree + 1) ** 2 - 1, 3)
    model.rows["quats"][1, 2] = torch.inf
    assert parts.finite_rows(model).tolist() == [True, False, True]
    assert parts.finite_rows(_model([])).tolist() == []


def test_best_first():
    candidates = torch.tensor([True, True, False, True, True])
    scores = torch.tensor([1.0, 3.0, 9.0, 3.0, 2.0])
    assert parts.best_first(candidates, scores, 2).tolist() == [False, True, False, True, False]
    assert parts.best_first(candidates, scores, 1).tolist() == [False, True, False, False, False]
    assert parts.best_first(candidates, scores, None).tolist() == candidates.tolist()
    assert parts.best_first(candidates, scores, 0).sum() == 0
    assert parts.best_first(candidates, scores, -3).sum() == 0


def test_draws_follow_the_weights():
    weights = torch.tensor([0.0, 1.0, 3.0, -2.0, torch.nan, 4.0, 0.0])
    drawn = parts.draw_rows(weights, 80_000, keyed_generator(0, "draw", 0))
    shares = torch.bincount(drawn, minlength=7) / 80_000
    assert shares[[0, 3, 4, 6]].sum() == 0
    assert shares[[1, 2, 5]].tolist() == pytest.approx([1 / 8, 3 / 8, 4 / 8], abs=0.01)


@pytest.mark.slow
def test_draws_have_no_limit_of_2_to_the_24():
    count = 2**24 + 1000
    weights = torch.zeros(count)
    weights[-1] = 1e-3
    assert parts.draw_rows(weights, 3, keyed_generator(0, "draw", 0)).tolist() == [count - 1] * 3


def test_nothing_to_draw_from():
    generator = keyed_generator(0, "draw", 0)
    assert parts.draw_rows(torch.zeros(4), 3, generator).shape == (0,)
    assert parts.draw_rows(torch.zeros(0), 3, generator).shape == (0,)
    assert parts.draw_rows(torch.ones(4), 0, generator).shape == (0,)


def test_gumbel_without_temperature_takes_the_best():
    candidates = torch.tensor([True, True, False, True, True])
    scores = torch.tensor([1.0, 3.0, 9.0, 4.0, 2.0])
    chosen = parts.gumbel_best(candidates, scores, 2, temperature=0.0, generator=keyed_generator(0, "gumbel", 0))
    assert chosen.tolist() == [False, True, False, True, False]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_gumbel_never_takes_what_has_no_score(temperature):
    scores = torch.tensor([0.0, 1.0, -1.0, torch.nan, torch.inf, 2.0])
    chosen = parts.gumbel_best(
        torch.ones(6, dtype=torch.bool), scores, 6, temperature=temperature, generator=keyed_generator(0, "gumbel", 1)
    )
    assert chosen.tolist() == [False, True, False, False, False, True]
    empty = parts.gumbel_best(
        torch.ones(0, dtype=torch.bool), scores[:0], 3, temperature=temperature, generator=keyed_generator(0, "g", 1)
    )
    assert empty.shape == (0,)


def test_gumbel_draws_follow_the_scores():
    """One of three, many times: with temperature 1 shares are those of the scores, with 0.5 those of their squares."""
    copies = 20_000
    for temperature, shares in ((1.0, [1 / 6, 2 / 6, 3 / 6]), (0.5, [1 / 14, 4 / 14, 9 / 14])):
        taken = torch.zeros(3)
        generator = keyed_generator(0, "gumbel", int(10 * temperature))
        for _ in range(copies // 10):
            taken += parts.gumbel_best(
                torch.ones(3, dtype=torch.bool), torch.tensor([1.0, 2.0, 3.0]), 1, temperature=temperature,
                generator=generator,
            )  # fmt: skip
        assert (taken / taken.sum()).tolist() == pytest.approx(shares, abs=0.04)


def test_needles_by_the_middle_axis():
    scales = torch.tensor([[1.0, 0.05, 0.001], [1.0, 0.3, 0.001], [0.1, 2.0, 0.1], [1.0, 1.0, 1.0]])
    assert parts.elongated(scales, 0.1).tolist() == [True, False, True, False]


def test_mean_weight_of_a_map():
    mean = parts.mean_weight(torch.tensor([1.0, 0.0, 3.0, torch.nan]), torch.tensor([4.0, 0.0, 3.0, 1.0]))
    assert mean.tolist() == [0.25, 0, 1, 0]


def test_error_map_takes_the_worst_tenth_above_the_floor():
    target = torch.zeros(10, 20, 3)
    color = torch.linspace(0, 0.5, 200).view(10, 20, 1).repeat(1, 1, 3)
    worst = parts.error_map(color, target)
    assert worst.shape == (1, 10, 20) and worst.sum() == 19 and (worst.flatten()[-19:] == 1).all()
    assert parts.error_map(0.03 * color, target).sum() == 0, "everything below 0.02"
    few = torch.zeros(10, 20, 3)
    few[0, :3] = 0.5
    assert parts.error_map(few, target).sum() == 3
    assert parts.error_map(target[:0], target[:0]).shape == (1, 0, 20)


# -- growth


@pytest.mark.parametrize("curve", ["root", "quadratic", "linear"])
def test_budget_never_falls_nor_passes_the_cap(curve):
    counts = [parts.grown_count(1000, 5000, step / 100, curve=curve) for step in range(-20, 150)]
    assert counts == sorted(counts)
    assert counts[0] == counts[20] == 1000 and counts[120] == counts[-1] == 5000
    assert parts.grown_count(6000, 5000, 0.3, curve=curve) == 5000


def test_budget_curves_golden_numbers():
    assert parts.grown_count(1000, 5000, 0.25, curve="root") == 3000
    assert parts.grown_count(1000, 5000, 0.5, curve="quadratic") == 1000 + int(0.75 * 4000)
    assert parts.grown_count(1000, 5000, 0.5, curve="linear") == 3000


def test_annealed():
    assert [parts.annealed(0.3, 1.0, x) for x in (-1, 0, 0.5, 1, 2)] == pytest.approx([0.3, 0.3, 0.65, 1.0, 1.0])


# -- operators


def test_clone_is_an_exact_copy_or_shares_its_opacity():
    model = _model([0.5, 0.2, 0.9])
    chosen = torch.tensor([True, False, True])
    exact = parts.clone_edit(model, chosen, share_opacity=False)
    assert exact.source.tolist() == [0, 1, 2, 0, 2] and exact.values == {} and exact.reason == "clone"
    assert exact.fresh.tolist() == [False, False, False, True, True]
    shared = parts.clone_edit(model, chosen, share_opacity=True)
    model.apply(shared)
    expected = [0.29289, 0.2, 1 - math.sqrt(0.1), 0.29289, 1 - math.sqrt(0.1)]
    assert model.opacities.tolist() == pytest.approx(expected, abs=1e-5)
    assert parts.clone_edit(model, torch.zeros(5, dtype=torch.bool), share_opacity=True) is None


@pytest.mark.parametrize("children", [2, 3])
def test_split_replaces_the_parent(children):
    model = _model([0.5, 0.2, 0.9], scales=[1.0, 2.0, 3.0])
    chosen = torch.tensor([True, False, True])
    edit = parts.split_edit(
        model, chosen, children=children, share_opacity=True, generator=keyed_generator(0, "split", 0)
    )
    assert edit.source.tolist() == [1, *[0, 2] * children]
    model.apply(edit)
    each = [1 - (1 - opacity) ** (1 / children) for opacity in (0.5, 0.9)]
    assert model.opacities.tolist() == pytest.approx([0.2, *each * children], abs=1e-5)
    sizes = [2.0, *[1 / (0.8 * children), 3 / (0.8 * children)] * children]
    assert model.scales[:, 0].tolist() == pytest.approx(sizes, rel=1e-5)


def test_halve_replaces_the_parent_by_its_ends():
    model = _model([0.5, 0.2, 0.9], scales=[1.0, 2.0, 3.0])
    edit = parts.halve_edit(model, torch.tensor([True, False, True]), generator=keyed_generator(0, "halve", 0))
    assert edit.source.tolist() == [1, 0, 2, 0, 2] and edit.reason == "split"
    model.apply(edit)
    assert model.opacities.tolist() == pytest.approx([0.2, 0.3, 0.54, 0.3, 0.54], abs=1e-6)
    assert parts.halve_edit(model, torch.zeros(5, dtype=torch.bool), generator=keyed_generator(0, "halve", 0)) is None


def test_what_cannot_halve_splits():
    @dataclass(frozen=True)
    class Whole(GaussianPrimitive):
        can: ClassVar[frozenset] = GaussianPrimitive.can - {"halve"}

    model = _model([0.5, 0.2], scales=[1.0, 2.0])
    model = SplatModel(Whole(), model.rows, 1)
    model.apply(parts.halve_edit(model, torch.tensor([True, False]), generator=keyed_generator(0, "halve", 0)))
    assert model.scales[:, 0].tolist() == pytest.approx([2.0, 1 / 1.6, 1 / 1.6], rel=1e-5)


def test_opacity_decay():
    model = _model([0.5, 0.003, 0.9])
    edit = parts.opacity_decay_edit(model, loss=0.004, factor=0.5, floor=0.002)
    assert edit.is_identity and edit.fresh is None and edit.reason == "decay"
    model.apply(edit)
    assert model.opacities.tolist() == pytest.approx([0.246, 0.002, 0.446], rel=1e-4)
    model.apply(parts.opacity_decay_edit(model, loss=0.5, floor=0.1))
    assert model.opacities.tolist() == pytest.approx([0.1, 0.002, 0.1], rel=1e-4), "what is below the floor stays"
    assert parts.opacity_decay_edit(model, loss=0.0) is None
    assert parts.opacity_decay_edit(_model([]), loss=0.1) is None


def test_cap_drops_the_faintest():
    model = _model([0.5, 0.2, 0.9, 0.3])
    assert parts.cap_edit(model, 2).source.tolist() == [0, 2]
    assert parts.cap_edit(model, 4) is None and parts.cap_edit(model, None) is None
    assert parts.cap_edit(model, 0).count_after == 0


def test_reset_lowers_only_what_is_higher():
    model = _model([0.5, 0.002, 0.9])
    edit = parts.opacity_reset_edit(model, 0.01)
    assert edit.is_identity and edit.fresh_fields == {"logit_opacities"} and set(edit.values) == {"logit_opacities"}
    model.apply(edit)
    assert model.opacities.tolist() == pytest.approx([0.01, 0.002, 0.01], rel=1e-4)


def test_reset_with_a_3d_filter_limits_what_is_drawn():
    model = _model([0.5, 0.5], scales=[0.1, 1.0], filter3d=torch.tensor([0.2, 0.0]))
    model.apply(parts.opacity_reset_edit(model, 0.01))
    drawn = torch.sigmoid(model.primitive.gaussian_rows(model.rows, filter3d=model.filter3d)["logit_opacities"])
    assert drawn.tolist() == pytest.approx([0.01, 0.01], rel=1e-3)
    assert model.opacities[0] > 0.1


# -- schedules


def test_due_steps_are_those_of_the_reference():
    due = [step for step in range(20_000) if refine_is_due(step, start=500, stop=15_000, every=100)]
    assert (due[0], due[-1], len(due)) == (600, 14_900, 144)
