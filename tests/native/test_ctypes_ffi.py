"""``scripts/ctypes_ffi.py`` stands in for cffi on machines that lack it: same calls, same numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import importlib.util, json, sys
root, hide = sys.argv[1], sys.argv[2] == "hide"
sys.path[:0] = [root, root + "/scripts", root + "/tests"]
if hide:
    real = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name == "cffi" else real(name, *rest)
import ctypes_ffi
stood_in = ctypes_ffi.stand_in()
import torch
torch.set_num_threads(1)
from helpers_parity import everything
from helpers_render import Case, build, draw, native_rasterizer, random_cotangents
from splat.native import ops
scene = build(Case(size=(33, 40), count=60, degree=2, features=2, hostile=True, seed=5))
drawn = everything(draw(native_rasterizer(), scene, torch.float32, random_cotangents(scene)))
convex = build(Case(kind="convex", size=(17, 9), count=20, degree=0, focal=9.0, seed=6))
shaped = everything(draw(native_rasterizer(), convex, torch.float32, random_cotangents(convex)))
drawn |= {"convex " + name: tensor for name, tensor in shaped.items()}
numbers = {name: tensor.double().nan_to_num().sum().item() for name, tensor in drawn.items()}
random = torch.Generator().manual_seed(1)
color, target = torch.rand(3, 9, 7, generator=random), torch.zeros(9, 7, 3, dtype=torch.uint8)
numbers["loss"] = ops.photometric(color, target, None, ssim_weight=0.2, grad=None, scratch=torch.empty(0))
numbers["knn"] = ops.knn_mean_sq_dist(torch.rand(20, 3, generator=random)).sum().item()
try:
    ops.set_isa("abacus")
except ValueError as error:
    numbers["refusal"] = str(error)
print(json.dumps([stood_in, ops.info(), numbers]))
"""


def numbers(how: str) -> list:
    command = [sys.executable, "-c", CODE, str(ROOT), how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_same_numbers_without_cffi() -> None:
    pytest.importorskip("cffi")
    with_cffi, without = numbers("keep"), numbers("hide")
    assert (with_cffi[0], without[0]) == (False, True)
    assert with_cffi[1:] == without[1:]
    assert len(with_cffi[2]) > 20
