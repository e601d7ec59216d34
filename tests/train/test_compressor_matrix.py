"""Every compressor with every primitive and several densifiers: trains, is stopped and resumed, and leaves files."""

from itertools import product

import pytest
import torch
from helpers_compress import Veil, compress_bits
from helpers_train import all_bits, make_trainer

from splat.compress.registry import COMPRESSORS
from splat.densify.registry import DENSIFIERS
from splat.geometry.rng import keyed_generator
from splat.io.formats import read_model, write_model
from splat.io.packed_file import write_packed
from splat.model.primitives import PRIMITIVES
from splat.model.splat_model import SplatModel
from splat.optim.adam import SplatAdam
from splat.train.checkpoint import read_checkpoint, restore, write_checkpoint
from splat.train.events import Stepped
from splat.train.state import TrainState
from splat.train.trainer import drive

STEPS, STOP, SPLATS = 4, 2, 25
ALL = COMPRESSORS | {"veil": Veil}
COMBINATIONS = [
    *product(ALL, PRIMITIVES, ("none",)),
    *product(ALL, ("gaussian",), ("adaptive", "mcmc", "budget")),
    *product(ALL, ("convex",), ("convex",)),
]


def state_of(compressor, primitive, densifier) -> TrainState:
    generator = keyed_generator(0, "matrix", 0)
    xyz = torch.randn(SPLATS, 3, generator=generator) * 0.4
    rows = primitive.start(xyz, torch.rand(SPLATS, 3, generator=generator), sh_degree=1, generator=generator)
    model = SplatModel(primitive, rows, 1)
    adam = SplatAdam(primitive.fields(1))
    adam.start(model)
    return TrainState(model, adam, densifier.start(model), compress=compressor.start(model, seed=1))


def trainer_of(state, compressor, densifier):
    return make_trainer(state, densifier, compressor=compressor, steps=STEPS, sh_every=0)


@pytest.mark.parametrize(
    ("compressor", "primitive", "densifier"), COMBINATIONS, ids=["-".join(parts) for parts in COMBINATIONS]
)
def test_they_combine(tmp_path, compressor, primitive, densifier):
    kinds = compressor, primitive
    compressor, primitive = ALL[compressor]().rescaled(STEPS / 30_000), PRIMITIVES[primitive]().fitted(12.0)
    densifier = DENSIFIERS[densifier]().rescaled(STEPS / 30_000)
    reason = compressor.blocked(primitive)
    if reason is not None:  # said before training, naming both
        assert all(f"'{kind}'" in reason for kind in kinds)
        return
    assert densifier.blocked(primitive) is None
    whole = state_of(compressor, primitive, densifier)
    for event in trainer_of(whole, compressor, densifier).run():
        if isinstance(event, Stepped) and event.step == STOP:
            path = write_checkpoint(tmp_path, event.state, "")
    again = state_of(compressor, primitive, densifier)
    restore(again, read_checkpoint(path))
    drive(trainer_of(again, compressor, densifier), [])
    assert again.step == STEPS and all_bits(again) == all_bits(whole)
    assert compress_bits(again.compress) == compress_bits(whole.compress)
    for table in (*whole.compress.rows.values(), *whole.model.rows.values()):
        assert table.shape[0] == whole.model.count
    _leaves_files(tmp_path, compressor, whole)


def _leaves_files(folder, compressor, state):
    model = state.model.requires_grad_(False)
    shown = compressor.finished(state.compress, STEPS, model)
    assert model.rows.keys() == shown.rows.keys() and 0 < shown.count <= model.count
    for name in ("native", "ply"):
        write_model(shown, folder / f"m.{name}", format=name)
        assert read_model(folder / f"m.{name}").model.count == shown.count
    packed = compressor.pack(state.compress, model)
    if packed is None:
        return
    write_packed(packed, folder / "m.spack")
    decoded = read_model(folder / "m.spack").model
    assert decoded.primitive.kind == model.primitive.kind and decoded.count == shown.count
    assert decoded.rows.keys() == shown.rows.keys()
    ours, theirs = (torch.sort(each.rows["means"].detach().norm(dim=1)).values for each in (decoded, shown))
    assert torch.allclose(ours, theirs, atol=0.02), (ours - theirs).abs().max()
