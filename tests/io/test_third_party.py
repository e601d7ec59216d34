"""Every format we write, read by somebody else; what somebody else writes, read by us.

The readers: npm's splat-transform (``other_tools.SPLAT_TRANSFORM``), gaussforge and gsply. Each format is held to its
own quantisation step (``steps``). Measured on 600 splats within [-2, 2], mean (most); all readers of a format find the
same, to the digits shown:

====================  =================  =============  ==========  =============  =============  ===============
written by us         position           log size       rotation    opacity        colour (DC)    SH
====================  =================  =============  ==========  =============  =============  ===============
ply                   0                  0              0           0              0              0
compressed-ply        3.9e-4 (1.5e-3)    3.5e-4 (1e-3)  .08° (.16)  .0010 (.0020)  .0026 (.0059)  .0078 (.016)
sog, sog-folder       9.6e-6 (3.2e-5)    .0014 (.0061)  .34° (.65)  .0010 (.0020)  .0019 (.0084)  .00096 (.0095)
spz, spz4             6.1e-5 (1.2e-4)    .016 (.031)    .08° (.21)  .0010 (.0020)  .0061 (.013)   .028 (.066)
spz2                  6.1e-5 (1.2e-4)    .016 (.031)    1.1° (9.7)  .0010 (.0020)  .0061 (.013)   .028 (.066)
splat                 0                  1e-8 (2e-7)    .43° (.78)  .0010 (.0020)  .0037 (.0069)  not held
splat, by s.-transf.  0                  1e-8 (2e-7)    .85° (1.6)  .0010 (.0020)  .0037 (.0069)  not held
====================  =================  =============  ==========  =============  =============  ===============

splat-transform writes, we read, 300 splats: ply and glb 0; compressed-ply and spz as above; sog 1.8e-5 (6.2e-5), .0011
(.0037), .67° (1.7), .0019 (.0039), .0015 (.0055), .025 (.50): it cuts off where we round, and has fewer SH vectors.
The real files are read to the same numbers by us and by splat-transform.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import other_tools
import pytest
import torch
from _pytest.mark import ParameterSet
from gaussians import random_model, shared_file

from splat.io.format_names import file_name
from splat.io.formats import FORMATS, read_model, write_model
from splat.io.plain import PlainSplats, plain_of
from splat.model.splat_model import SplatModel

C0 = 0.28209479177387814
READERS = {
    "splat-transform": other_tools.splat_transform_reads,
    "gaussforge": other_tools.gaussforge_reads,
    "gsply": other_tools.gsply_reads,
}
READ_BY = {
    "ply": ("splat-transform", "gaussforge", "gsply"),
    "compressed-ply": ("splat-transform", "gaussforge", "gsply"),
    "spz": ("splat-transform", "gaussforge", "gsply"),
    "spz2": ("splat-transform", "gaussforge", "gsply"),
    "spz4": ("splat-transform", "gaussforge", "gsply"),
    "sog": ("splat-transform", "gaussforge", "gsply"),
    "sog-folder": ("splat-transform",),
    "splat": ("splat-transform", "gaussforge"),
}
"""Format -> who reads it."""
READ_BY_NOBODY = {
    "native": "our own file",
    "spack": "our own file",
    "html": "drawn in a browser by test_browser_render.py",
    "glb": "none of the tools reads glTF; theirs is read here, and test_gltf.py reads ours",
    "glb-spz": "none of the tools reads glTF; its SPZ is that of spz",
}
WRITTEN_BY_OTHERS = {
    "ply": (".ply", ()),
    "compressed-ply": (".compressed.ply", ()),
    "spz": (".spz", ("--spz-version", "3")),
    "spz4": (".spz", ("--spz-version", "4")),
    "sog": (".sog", ("--iterations", "2")),
    "glb": (".glb", ()),
}
"""What splat-transform writes: format -> suffix and flags."""
REAL_FILES = (
    "playcanvas/biker.compressed.ply", "playcanvas/biker.spz", "playcanvas/guitar.compressed.ply",
    "playcanvas/playbot_lod_3_0/meta.json", "converted/playbot31k_sh2.ply", "converted/playbot31k.compressed.ply",
    "converted/playbot31k_v3.spz", "converted/playbot31k_v4.spz", "converted/playbot31k.sog",
    "converted/playbot31k.splat", "converted/playbot31k_c0_sh2.ksplat", "converted/playbot31k_c1_sh2.ksplat",
    "converted/playbot31k_c2_sh1.ksplat", "fixtures/minimal-v2.spz", "fixtures/minimal-v3.spz",
    "fixtures/minimal-v4.spz", "fixtures/minimal.ksplat", "fixtures/minimal.splat",
    "fixtures/test-splat.3-points-from-train.ply",
)  # fmt: skip
PLAYBOT = "converted/playbot31k_sh2.ply"
Errors = dict[str, np.ndarray]


def typical_model(count: int = 600) -> SplatModel:
    """Splats within every format's range, rotations of any length and sign among them."""
    model = random_model(count, seed=5)
    model.rows["sh0"].clamp_(-1.5, 1.5)  # colours in 0..1, all that .splat holds
    model.rows["sh_rest"].clamp_(-0.9, 0.9)  # SPZ ends at 1
    # splat-transform's WebP does not keep the colour of a splat whose opacity rounds to 0.
    model.rows["logit_opacities"].clamp_(-5, 6)
    return model


# --- what a format may lose --------------------------------------------------------------------------------------


def steps(name: str, plain: PlainSplats) -> dict[str, float]:
    """Largest differences by attribute that the format's own numbers explain, for splats like ``plain``."""
    exact = {"means": 2e-6, "log_scales": 2e-6, "degrees": 1e-4, "opacities": 1e-6, "sh0": 2e-6, "sh_rest": 2e-6}
    family = {"spz2": "spz", "spz4": "spz", "sog-folder": "sog"}.get(name, name)
    if family in ("ply", "glb"):
        return exact
    steps = {**exact, "opacities": 0.5 / 255 + 1e-6}
    if family == "compressed-ply":  # 10 bits per number in the box of 256 splats, here of all
        steps["means"] = np.ptp(plain.means, axis=0).max() / 1023 / 2
        steps["log_scales"] = np.ptp(plain.log_scales, axis=0).max() / 1023 / 2
        steps["degrees"] = turn(2**0.5 / 1023 / 2)
        steps["sh0"] = np.ptp(plain.sh0, axis=0).max() / 255 / 2
        steps["sh_rest"] = 8 / 256 / 2
    elif family == "spz":
        steps["means"], steps["log_scales"], steps["sh0"] = 2.0**-13, 1 / 32, 0.5 / 255 / 0.15
        steps["degrees"] = turn(0.5**0.5 / 511 / 2)
        steps["sh_rest"] = (8 + 0.5) / 128  # 4 bits of 8
        if name == "spz2":  # x, y, z in bytes, and w from what is left: coarse where it is small
            off = 0.5 / 127.5
            steps["degrees"] = np.degrees(2 * (3 * off**2 + (2 * 3**0.5 * off + 3 * off**2)) ** 0.5)
    elif family == "splat":
        steps["sh0"], steps["degrees"] = 0.5 / 255 / C0, np.degrees(2 * 2 / 255)
    elif family == "sog":
        logs = np.sign(plain.means) * np.log1p(np.abs(plain.means))
        steps["means"] = np.ptp(logs, axis=0).max() / 65535 / 2 * (1 + np.abs(plain.means).max())
        steps["degrees"] = turn(2**0.5 / 255 / 2)
        # 256 values wherever they are needed most: wide apart at the ends.
        steps["log_scales"], steps["sh0"] = np.ptp(plain.log_scales) / 100, np.ptp(plain.sh0) / 100
        steps["sh_rest"] = np.ptp(plain.sh_rest) / 100 if plain.count <= 1024 else np.inf  # a palette beyond
    return {attribute: step * 1.001 + 1e-7 for attribute, step in steps.items()}


def turn(off: float) -> float:
    """Largest angle in degrees between a unit quaternion and itself with its three smaller components ``off``.

    The fourth, the largest (1/2 or more), makes the length 1 again and moves by 3 ``off`` at most."""
    return float(np.degrees(2 * (3 + 9) ** 0.5 * off))


def errors(truth: PlainSplats, got: PlainSplats) -> Errors:
    """Absolute differences by attribute, row by row; [N,...] each. A format without SH has none of them."""
    a, b = (q / np.linalg.norm(q, axis=1, keepdims=True) for q in (truth.quats.astype(float), got.quats.astype(float)))
    chord = np.minimum(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
    found = {name: np.abs(getattr(truth, name) - getattr(got, name)) for name in ("means", "log_scales", "sh0")}
    found["opacities"] = np.abs(truth.opacities - got.opacities)
    found["degrees"] = np.degrees(4 * np.arcsin(chord / 2))
    if got.sh_degree:
        found["sh_rest"] = np.abs(truth.sh_rest - got.sh_rest)
    return found


def paired(truth: PlainSplats, got: PlainSplats) -> PlainSplats:
    """``got`` in the order of ``truth``, by nearest position: writers reorder."""
    assert got.count == truth.count
    order = torch.cdist(torch.from_numpy(truth.means), torch.from_numpy(got.means)).argmin(dim=1).numpy()
    assert len(set(order.tolist())) == truth.count, "two splats landed on one"
    return got.taken(order)


def check(truth: PlainSplats, got: PlainSplats, limits: dict[str, float]) -> None:
    found = errors(truth, paired(truth, got))
    print({name: f"{values.mean():.2g}, most {values.max():.2g}" for name, values in found.items()})
    too_far = {name: float(values.max()) for name, values in found.items() if not values.max() <= limits[name]}
    assert not too_far, f"beyond {limits}"


# --- ours, read by others ----------------------------------------------------------------------------------------


def test_somebody_reads_every_format_we_write() -> None:
    written = {name for name, row in FORMATS.items() if row.write is not None}
    assert written == set(READ_BY) | set(READ_BY_NOBODY) and not set(READ_BY) & set(READ_BY_NOBODY)


def pairs() -> list[ParameterSet]:
    """Every format with every reader. gsply compiles itself for seconds, and starting node takes one: what gaussforge
    reads too is left to the slow tests where it is a variant of another format."""
    found = []
    for name, readers in READ_BY.items():
        for reader in readers:
            slow = reader == "gsply" or (reader == "splat-transform" and name in ("spz2", "spz4", "sog-folder"))
            found.append(pytest.param(name, reader, marks=[pytest.mark.slow] if slow else []))
    return found


@pytest.mark.parametrize(("name", "reader"), pairs())
def test_others_read_what_we_write(tmp_path: Path, name: str, reader: str) -> None:
    model = typical_model()
    file = tmp_path / file_name("ours", name)
    write_model(model, file, format=name)
    truth, got = plain_of(model), READERS[reader](file)
    limits = steps(name, truth)
    if (name, reader) == ("splat", "splat-transform"):
        limits["degrees"] *= 2  # it takes a byte b for b/255*2-1 where everybody else takes (b-128)/128
    if name != "splat":
        assert got.sh_degree == 3
    check(truth, got, limits)


# --- theirs, read by us ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITTEN_BY_OTHERS)
def test_we_read_what_others_write(tmp_path: Path, name: str) -> None:
    model = typical_model(300)
    write_model(model, tmp_path / "ours.ply")
    suffix, flags = WRITTEN_BY_OTHERS[name]
    file = tmp_path / f"theirs{suffix}"
    other_tools.splat_transform(tmp_path / "ours.ply", file, *flags)
    truth = plain_of(model)
    limits = steps(name, truth)
    if name == "sog":  # it cuts off where we round
        limits |= {attribute: 2 * limits[attribute] for attribute in ("means", "degrees", "opacities")}
        limits["sh_rest"] = np.inf  # its palette has fewer vectors than there are splats
    check(truth, other_tools.we_read(file), limits)


def test_a_single_coefficient_stays_in_its_place(tmp_path: Path) -> None:
    """Orders of SH differ between formats: red of the first band alone tells a wrong one at once."""
    model = typical_model(40)
    model.rows["sh_rest"].zero_()
    model.rows["sh_rest"][:, 0, 0] = 0.75
    for name in ("compressed-ply", "spz", "sog"):
        file = tmp_path / file_name("red", name)
        write_model(model, file, format=name)
        rest = other_tools.gaussforge_reads(file).sh_rest
        np.testing.assert_allclose(rest[:, 0, 0], 0.75, atol=0.04, err_msg=name)
        rest[:, 0, 0] = 0
        np.testing.assert_allclose(rest, 0, atol=0.04, err_msg=name)


# --- real files --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("relative", REAL_FILES)
def test_we_and_splat_transform_see_the_same(tmp_path: Path, relative: str) -> None:
    """The same file, the same numbers row by row: nothing is lost between two readers."""
    source = shared_file(f"splats/{relative}")
    out = tmp_path / "read.ply"
    other_tools.splat_transform(source, out)
    ours, theirs = other_tools.we_read(source), other_tools.we_read(out)
    assert (ours.count, ours.sh_degree) == (theirs.count, theirs.sh_degree)
    found = errors(ours, theirs)
    degrees = 1.0 if relative.endswith(".splat") else 0.02  # bytes are b/255*2-1 to it
    limits = {"means": 1e-5, "log_scales": 1e-4, "sh0": 1e-4, "opacities": 1e-5, "degrees": degrees, "sh_rest": 1e-4}
    assert {name: float(values.max()) for name, values in found.items() if not values.max() <= limits[name]} == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", READ_BY)
def test_a_real_model_survives_the_way_through_others(tmp_path: Path, name: str) -> None:
    model = read_model(shared_file(f"splats/{PLAYBOT}")).model
    file = tmp_path / file_name("ours", name)
    write_model(model, file, format=name)
    truth = plain_of(model)
    got = other_tools.splat_transform_reads(file)
    assert got.count == truth.count
    # Splats that share a place are paired at random: what is compared is what both sides have, in order of size.
    for attribute, limit in (("means", 1.5), ("log_scales", 1.5), ("opacities", 1.5)):
        ours, theirs = (np.sort(getattr(side, attribute), axis=0) for side in (truth, got))
        assert np.abs(ours - theirs).max() <= limit * steps(name, truth)[attribute], attribute
