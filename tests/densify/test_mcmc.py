import pytest
import torch

from splat.densify.mcmc import Mcmc
from splat.geometry.rng import keyed_generator
from splat.geometry.rotations import matrix_from_quat
from splat.model.gaussian import GaussianPrimitive


@pytest.fixture
def run_with(new_run):
    def make(opacities, *, settings=None, **context):
        run = new_run(Mcmc(**(settings or {})), GaussianPrimitive(), len(opacities), **context)
        run.model.rows |= run.model.primitive.with_opacities(torch.tensor(opacities))
        run.model.rows |= run.model.primitive.with_scales(torch.full((len(opacities), 3), 0.1))
        return run

    return make


def test_dead_move_onto_the_live(run_with):
    run = run_with([0.5, 0.001, 0.005, 0.004], max_splats=4)
    assert run.refine(600) == ["relocate"]
    assert run.names.tolist() == [0, 0, 0, 0]
    # Four copies share 0.5: 1 - 0.5^(1/4), and all have one size.
    assert run.model.opacities.tolist() == pytest.approx([1 - 0.5**0.25] * 4, abs=1e-6)
    assert (run.model.scales == run.model.scales[0, 0]).all() and run.model.scales[0, 0] < 0.1
    (edit,) = run.edits
    assert edit.fresh.all() and (edit.added, edit.removed) == (3, 3)


def test_relocation_keeps_coverage(run_with):
    opacities = [0.8, 0.5, 0.3] + [0.001] * 4
    run = run_with(opacities, max_splats=7)
    run.refine(600)
    for parent, before in enumerate(opacities[:3]):
        copies = run.model.opacities[run.names == parent].double()
        assert 1 - (1 - copies).prod().item() == pytest.approx(before, abs=1e-5)
    untouched = [p for p in range(3) if (run.names == p).sum() == 1]
    for parent in untouched:
        assert not run.edits[0].fresh[parent]


def test_broken_rows_are_dead(run_with):
    run = run_with([0.5, 0.9, 0.4], max_splats=3)
    run.model.rows["log_scales"][1, 0] = torch.nan
    (edit,) = run.densifier.refine(run.state, 600, run.model, run.context)
    assert edit.reason == "relocate" and edit.source[1] in (0, 2)


def test_all_dead_stays_as_it_is(run_with):
    run = run_with([0.001, 0.002], max_splats=2)
    assert run.refine(600) == []


def test_growth_of_five_percent_to_the_cap(run_with):
    run = run_with([0.5] * 200, max_splats=230)
    counts = []
    for step in range(600, 1200, 100):
        assert run.refine(step) == (["grow"] if not counts or counts[-1] < 230 else [])
        counts.append(run.model.count)
    assert counts == [210, 220, 230, 230, 230, 230][: len(counts)]


def test_growth_keeps_coverage_and_marks_touched_rows_fresh(run_with):
    run = run_with([0.6, 0.3, 0.1] * 20, settings={"growth": 1.5})
    before = run.model.opacities.tolist()
    assert run.refine(600) == ["grow"]
    assert run.model.count == 90
    (edit,) = run.edits
    for parent in range(60):
        rows = run.names == parent
        assert 1 - (1 - run.model.opacities[rows].double()).prod().item() == pytest.approx(before[parent], abs=1e-4)
        assert bool(edit.fresh[rows].all()) == (rows.sum() > 1)
    assert torch.equal(run.names[:60], torch.arange(60.0)), "old rows keep their place"


def test_growth_prefers_the_opaque(run_with):
    run = run_with([0.9] * 100 + [0.1] * 100, settings={"growth": 1.5}, max_splats=10_000)
    run.refine(600)
    new = run.names[200:]
    assert (new < 100).float().mean() == pytest.approx(0.9, abs=0.1)


def test_a_single_splat_grows(run_with):
    run = run_with([0.5], max_splats=4)
    for step in range(600, 1000, 100):
        run.refine(step)
    assert run.model.count == 4


def test_own_cap_holds_without_a_limit_of_the_run(run_with):
    run = run_with([0.5] * 20, settings={"cap": 22, "growth": 2.0})
    run.refine(600)
    assert run.model.count == 22
    wider = run_with([0.5] * 20, settings={"cap": 22, "growth": 2.0}, max_splats=30)
    wider.refine(600)
    assert wider.model.count == 30


def test_above_the_cap_the_faintest_go_first(run_with):
    run = run_with([0.5, 0.2, 0.9, 0.3], max_splats=2)
    assert run.refine(600) == ["prune"]
    assert run.names.tolist() == [0, 2]


def test_schedule_is_that_of_the_reference(run_with):
    run = run_with([0.5, 0.001], max_splats=2)
    due = []
    for step in range(1, 30_001):
        run.model.rows["logit_opacities"][:] = torch.tensor([0.0, -9.0])
        if run.refine(step):
            due.append(step)
    assert (due[0], due[-1], len(due)) == (600, 24_900, 244)


def test_shortened_run_grows_by_the_same_multiple():
    short = Mcmc().rescaled(0.1)
    assert (short.refine_start, short.refine_stop, short.refine_every) == (50, 2500, 25)
    assert short.growth ** ((2500 - 50) / 25) == pytest.approx(1.05 ** ((25_000 - 500) / 100), rel=1e-6)
    assert Mcmc().rescaled(2.0).growth == 1.05


def test_regularizer_and_its_gradient(run_with):
    run = run_with([0.5, 0.1])
    run.model.requires_grad_()
    loss = run.densifier.regularizer(run.model)
    assert loss.item() == pytest.approx(0.01 * 0.3 + 0.01 * 0.1)
    loss.backward()
    assert run.model.rows["logit_opacities"].grad.tolist() == pytest.approx([0.01 * 0.25 / 2, 0.01 * 0.09 / 2])
    assert run.model.rows["log_scales"].grad.flatten().tolist() == pytest.approx([0.01 * 0.1 / 6] * 6)
    assert Mcmc(opacity_reg=0.0, scale_reg=0.0).regularizer(run.model) is None


def test_noise_is_shaped_like_the_splat_and_spares_the_visible(run_with):
    run = run_with([0.005, 0.5, 0.001])
    model = run.model
    model.rows["log_scales"] = torch.tensor([[-2.0, -4.0, -3.0]]).repeat(3, 1)
    before = model.rows["means"].clone()
    generator = keyed_generator(0, "noise", 1)
    noise = run.densifier.perturb(run.state, 1, model, lr_means=1e-4, generator=generator)
    white = torch.randn(3, 3, generator=keyed_generator(0, "noise", 1), dtype=torch.float32).double()
    axes = matrix_from_quat(model.rows["quats"].double())
    covariance = axes @ torch.diag_embed(model.rows["log_scales"].double().exp().square()) @ axes.transpose(1, 2)
    strength = torch.sigmoid(-100 * (model.opacities.double() - 0.005)) * 5e5 * 1e-4
    expected = torch.einsum("nij,nj->ni", covariance, white) * strength[:, None]
    assert torch.allclose(noise.double(), expected, rtol=1e-4, atol=1e-12)
    assert strength[0] == pytest.approx(25, rel=1e-3)
    assert noise[1].abs().max() < 1e-14
    assert not noise.requires_grad
    assert torch.equal(model.rows["means"], before)
    assert Mcmc(noise=0.0).perturb(run.state, 1, model, lr_means=1e-4, generator=generator) is None


def test_needs_no_pictures_statistics():
    assert Mcmc().needs(1) == frozenset()
    assert dict(Mcmc.start_settings) == {"init_opacity": 0.5, "init_scale": 0.1, "lr_opacities": 0.05}
