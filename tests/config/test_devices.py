from types import SimpleNamespace

import pytest
import torch
from helpers_train import all_bits, make_trainer

from splat.config import devices
from splat.config.schema import RenderConfig
from splat.errors import UserError
from splat.render.bridge import OnDevice
from splat.render.registry import rasterizer
from splat.train.trainer import drive


def gpu_machine(monkeypatch, able: set[str]) -> None:
    """A machine with a GPU on which the rasterizers in ``able`` can draw."""

    def choose(device, wanted, *, options):
        names = ("native", "gsplat") if wanted == "auto" else (wanted,)
        for name in names:
            if (torch.device(device).type == "cpu" and name != "gsplat") or name in able:
                return SimpleNamespace(name=name)
        raise UserError(f"no rasterizer can draw on {device}")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices, "choose", choose)


@pytest.mark.parametrize(("device", "wanted", "able", "expected"), [
    ("auto", "auto", {"native"}, ("cuda", "native")), ("auto", "auto", {"gsplat"}, ("cpu", "native")),
    ("auto", "gsplat", {"gsplat"}, ("cpu", "gsplat on cuda")), ("cuda", "auto", {"gsplat"}, ("cpu", "gsplat on cuda")),
    ("cpu", "auto", {"native", "gsplat"}, ("cpu", "native")), ("auto", "reference", set(), ("cpu", "reference")),
])  # fmt: skip
def test_on_a_machine_with_a_gpu(monkeypatch, device, wanted, able, expected):
    gpu_machine(monkeypatch, able)
    said = []
    at, drawn_by = devices.choose_device(RenderConfig(device=device, rasterizer=wanted), said.append)
    assert (at.type, drawn_by.name) == expected
    assert bool(said) == ((device, wanted, able) == ("auto", "auto", {"gsplat"}))


def test_what_cannot_draw_there_is_refused(monkeypatch):
    gpu_machine(monkeypatch, set())
    with pytest.raises(UserError, match="no rasterizer"):
        devices.choose_device(RenderConfig(device="cuda", rasterizer="gsplat"), print)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_an_error():
    at, drawn_by = devices.choose_device(RenderConfig(), print)
    assert (at.type, drawn_by.name) == ("cpu", "native")
    with pytest.raises(UserError, match="splat doctor"):
        devices.choose_device(RenderConfig(device="cuda"), print)


def test_the_bridge_changes_no_bits():
    plain = make_trainer()
    bridged = make_trainer(rasterizer=OnDevice(rasterizer("native"), torch.device("cpu")))
    for trainer in (plain, bridged):
        drive(trainer, [])
    assert all_bits(plain.state) == all_bits(bridged.state)


def test_negative_threads_are_refused():
    with pytest.raises(UserError, match=r"render\.threads = -1"):
        devices.prepare_process(-1)
