import pytest
import torch

from splat.densify.registry import DENSIFIERS
from splat.geometry.rng import keyed_generator
from splat.model.primitives import PRIMITIVES


@pytest.fixture
def restore_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


PAIRS = [
    pytest.param(densifier, primitive, id=f"{densifier}-{primitive}")
    for densifier in DENSIFIERS
    for primitive in PRIMITIVES
    if DENSIFIERS[densifier]().blocked(PRIMITIVES[primitive]()) is None
]


@pytest.mark.parametrize(("kind", "primitive"), PAIRS)
def test_same_bits_on_any_number_of_threads(new_run, restore_threads, monkeypatch, kind, primitive):
    """Many rows, an odd number of them: torch then shares the work out, and unevenly."""
    monkeypatch.setattr(PRIMITIVES[primitive], "start", _random_start)
    settings = {"revised_opacity": "split-and-clone"} if kind == "adaptive" else {}
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        run = new_run(DENSIFIERS[kind](**settings), PRIMITIVES[primitive](), 70_001, sh_degree=0)
        run.observe(1)
        generator = keyed_generator(0, "noise", 1)
        noise = run.densifier.perturb(run.state, 1, run.model, lr_means=1e-4, generator=generator)
        if noise is not None:
            run.model.rows["means"].add_(noise)
        run.refine(3000)
        results.append(run.model.rows)
    for other in results[1:]:
        assert all(torch.equal(results[0][name], other[name]) for name in other)


def _random_start(self, xyz, rgb, *, sh_degree, generator):
    """Brute-force neighbours would take too long."""
    return {spec.name: torch.randn(len(xyz), *spec.shape, generator=generator) for spec in self.fields(sh_degree)}
