"""The table of rasterizers, and gsplat's answers on a machine that cannot run it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields, replace

import pytest
import torch
from helpers_render import Case, build, native_rasterizer

from splat.errors import UserError
from splat.render.gsplat_rasterizer import GsplatRasterizer
from splat.render.reference import ReferenceRasterizer
from splat.render.registry import RASTERIZERS, choose, empty_inputs, rasterizer
from splat.render.types import RenderOptions


def test_names_lead_to_rasterizers_of_that_name() -> None:
    for name in RASTERIZERS:
        if name == "native":
            native_rasterizer()
        assert rasterizer(name).name == name


def test_an_unknown_name_is_answered_with_the_choices() -> None:
    with pytest.raises(UserError, match=r"'refrence' \(did you mean 'reference'\?\); use one of auto, gsplat, native"):
        rasterizer("refrence")
    with pytest.raises(UserError, match="use one of auto, gsplat, native, reference"):
        choose("cpu", "zzz")


def test_choosing() -> None:
    assert isinstance(choose("cpu", "reference"), ReferenceRasterizer)
    with pytest.raises(UserError, match="gsplat draws on CUDA devices only"):
        choose("cpu", "gsplat")
    native_rasterizer()
    assert choose("cpu").name == "native"


def test_choosing_reports_an_option_that_is_not_supported() -> None:
    with pytest.raises(UserError, match="grad3d"):
        choose("cpu", "reference", options=RenderOptions(stats=frozenset({"grad3d"})))


def test_asking_loads_neither_gsplat_nor_the_native_library() -> None:
    code = (
        "import sys; import splat.render.registry, splat.render.gsplat_rasterizer; "
        "sys.exit(any(m.split('.')[0] == 'gsplat' or m.startswith('splat.native') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_gsplat_says_why_it_cannot_draw_here() -> None:
    scene = build(Case(count=1))
    subject = GsplatRasterizer()
    assert "not on 'cpu'" in subject.supports(scene.inputs, scene.options, torch.device("cpu"))
    assert "GPU" in subject.supports(scene.inputs, scene.options, torch.device("cuda"))
    with pytest.raises(UserError, match="CUDA"):
        subject.render(scene.inputs, scene.cameras, scene.options)
    with pytest.raises(UserError, match="no rasterizer can draw on device 'cuda'"):
        choose("cuda", "gsplat")
    assert empty_inputs(torch.device("cuda")).count == 0


def test_gsplat_is_called_as_its_signature_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: a stand-in that checks the arguments, draws with the reference and fills gsplat's ``meta``."""
    gsplat = pytest.importorskip("gsplat")
    scene = build(Case(size=(17, 9), count=20, degree=2, filter2d="mip", filter3d=True, views=2, seed=8))
    names = frozenset({"visible", "depths", "radii_px", "grad2d", "abs_grad2d"})
    options = replace(scene.options, top_id=False, depth=frozenset({"expected"}), stats=names)
    rows = {f.name: getattr(scene.inputs, f.name) for f in fields(scene.inputs)}
    rows = {k: v.clone().requires_grad_() for k, v in rows.items() if isinstance(v, torch.Tensor)}
    inputs = replace(scene.inputs, **rows)
    background = options.background.clone().requires_grad_()
    signature = inspect.signature(gsplat.rasterization)

    def stand_in(*args: object, **kwargs: object) -> tuple:
        call = signature.bind(*args, **kwargs).arguments
        assert (call["eps2d"], call["rasterize_mode"], call["render_mode"]) == (0.1, "antialiased", "RGB+D")
        assert (call["sh_degree"], call["packed"], call["absgrad"]) == (2, False, True)
        assert call["colors"].shape == (20, 9, 3)
        drawn = ReferenceRasterizer().render(
            replace(inputs, log_scales=call["scales"].log(), logit_opacities=call["opacities"].logit(), filter3d=None),
            scene.cameras, replace(options, background=None, stats=frozenset({"visible", "depths", "radii_px"})),
        )
        means2d = torch.zeros(2, 20, 2, dtype=torch.float64, requires_grad=True) + 0.0
        means2d.absgrad = torch.full_like(means2d, 2.0)
        picture = torch.cat([drawn.color + means2d[:, :1, 0].sum(), drawn.depth_expected[..., None]], -1)
        stats = drawn.stats
        meta = {"radii": stats.radii_px.ceil().int(), "means2d": means2d, "depths": stats.depths}
        return picture, drawn.alpha[..., None], meta

    monkeypatch.setattr(gsplat, "rasterization", stand_in)
    monkeypatch.setattr(GsplatRasterizer, "supports", lambda *_: None)
    out = GsplatRasterizer().render(inputs, scene.cameras, replace(options, background=background))
    expected = ReferenceRasterizer().render(scene.inputs, scene.cameras, options)
    for name in ("color", "alpha", "depth_expected"):
        torch.testing.assert_close(getattr(out, name), getattr(expected, name), rtol=1e-7, atol=1e-9)
    assert torch.equal(out.stats.visible, expected.stats.visible)
    torch.testing.assert_close(out.stats.depths, expected.stats.depths)
    out.color.sum().backward()
    assert background.grad is not None and inputs.sh_rest.grad.any()
    pixels = 3 * 2 * 17 * 9
    assert out.stats.grad2d[0, 0].item() == pytest.approx(pixels * 17 / 2) and not out.stats.grad2d[:, 1:].any()
    assert out.stats.abs_grad2d.flatten().tolist() == pytest.approx([(17**2 + 9**2) ** 0.5] * 40)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("filter2d", ["classic", "aa"])
def test_gsplat_draws_what_the_reference_draws(filter2d: str) -> None:
    pytest.importorskip("gsplat")
    scene = build(Case(size=(64, 48), count=60, filter2d=filter2d, filter3d=True, views=2, off_center=True))
    names = frozenset({"visible", "depths", "grad2d", "abs_grad2d"})
    options = replace(scene.options, top_id=False, depth=frozenset({"expected"}), stats=names, pixel_weights=None)
    outputs = []
    for subject, device in ((ReferenceRasterizer(), "cpu"), (GsplatRasterizer(), "cuda")):
        tensors = {f.name: getattr(scene.inputs, f.name) for f in fields(scene.inputs)}
        moved = {k: v.float().to(device) for k, v in tensors.items() if isinstance(v, torch.Tensor)}
        moved["means"].requires_grad_()
        cameras = replace(
            scene.cameras, camera_from_world=scene.cameras.camera_from_world.float().to(device),
            K=scene.cameras.K.float().to(device),
        )
        out = subject.render(
            replace(scene.inputs, **moved), cameras, replace(options, background=options.background.float().to(device))
        )
        out.color.square().sum().backward()
        outputs.append((out, moved["means"].grad.cpu()))
    (ours, our_grad), (other, their_grad) = outputs
    for name in ("color", "alpha", "depth_expected"):
        gap = (getattr(ours, name) - getattr(other, name).cpu()).abs()
        assert gap.mean() < 2e-4 and gap.max() < 0.05, name
    assert (our_grad - their_grad).norm() < 0.01 * our_grad.norm()
    for name in ("grad2d", "abs_grad2d"):
        mine, theirs = getattr(ours.stats, name), getattr(other.stats, name).cpu()
        assert (mine - theirs).norm() < 0.01 * mine.norm(), name
