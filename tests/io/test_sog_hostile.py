"""SOG files that lie: every one ends in a UserError that names the file, and none takes memory it did not pay for."""

from __future__ import annotations

import json
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gaussians import random_model
from hypothesis import given, settings
from hypothesis import strategies as st

from splat.errors import UserError
from splat.io.formats import read_model, write_model
from splat.io.sog import read_sog, read_sog_folder
from splat.io.sog_meta import parse_meta
from splat.io.webp import webp_bytes, webp_pixels, webp_size

COUNT = 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("sog")
    write_model(random_model(COUNT, sh_degree=1), place / "meta.json")
    return place


def archive_of(
    folder: Path, target: Path, *, meta: Any = None, compress: int = zipfile.ZIP_STORED, **files: bytes
) -> Path:
    """The folder as an archive, with another meta.json or other pictures in it."""
    with zipfile.ZipFile(target, "w", compress) as archive:
        for part in sorted(folder.iterdir()):
            data = part.read_bytes()
            if part.name == "meta.json" and meta is not None:
                data = meta if isinstance(meta, bytes) else json.dumps(meta).encode()
            archive.writestr(part.name, files.get(part.stem, data))
    return target


def meta_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "meta.json").read_bytes())


def blank(width: int, height: int) -> bytes:
    return webp_bytes(np.zeros((height, width, 4), np.uint8))


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a count of": lambda m: m.update(count=-1),
    "a count of 0": lambda m: m.update(count=0),
    "a count of True": lambda m: m.update(count=True),
    "a count of '9'": lambda m: m.update(count="9"),
    "a count of 9.5": lambda m: m.update(count=9.5),
    "268,435,456 are possible": lambda m: m.update(count=10**30),
    "cannot hold": lambda m: m.update(count=2**28),
    "pixels for 5,000 splats": lambda m: m.update(count=5000),
    "version 3": lambda m: m.update(version=3),
    "version '2'": lambda m: m.update(version="2"),
    "no object 'quats'": lambda m: m.pop("quats"),
    "no object 'scales'": lambda m: m.update(scales=[1]),
    "means.mins": lambda m: m["means"].update(mins=[0, 1]),
    "means.maxs": lambda m: m["means"].update(maxs=[0, 1, "2"]),
    "finite numbers": lambda m: m["means"].update(maxs=[0, 1, float("nan")]),
    "scales.codebook": lambda m: m["scales"].update(codebook=[0.0] * 257),
    "entry [0-9]+ of 2": lambda m: m["scales"].update(codebook=[0.0, 1.0]),
    "sh0.codebook": lambda m: m["sh0"].update(codebook={}),
    "means.files": lambda m: m["means"].update(files=["means_l.webp"]),
    "quats.files": lambda m: m["quats"].update(files=[7]),
    "plain names": lambda m: m["quats"].update(files=["../quats.webp"]),
    "only plain names": lambda m: m["quats"].update(files=["/etc/passwd"]),
    "other.webp": lambda m: m["quats"].update(files=["other.webp"]),
    "not a WebP": lambda m: m["quats"].update(files=["meta.json"]),
    "SH bands": lambda m: m["shN"].update(bands=4),
    "a palette of": lambda m: m["shN"].update(count=65_537),
    "entries": lambda m: m["shN"].update(count=60_000),
    "pixels wide": lambda m: m["shN"].update(bands=2),
}


@pytest.mark.parametrize("message", CHANGES)
def test_a_wrong_number_or_name_is_named(folder, tmp_path, message):
    meta = meta_of(folder)
    CHANGES[message](meta)
    file = archive_of(folder, tmp_path / "m.sog", meta=meta)
    with pytest.raises(UserError, match=message) as caught:
        read_model(file)
    assert str(file) in str(caught.value) and len(str(caught.value)) < 400
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    for part in folder.glob("*.webp"):
        (tmp_path / part.name).write_bytes(part.read_bytes())
    with pytest.raises(UserError):
        read_sog_folder(tmp_path / "meta.json")


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 200_000, b'{"count":' + b"9" * 10_000 + b"}"])
def test_a_meta_that_is_no_object_is_refused(folder, tmp_path, text):
    with pytest.raises(UserError, match=r"meta\.json"):
        read_sog(archive_of(folder, tmp_path / "m.sog", meta=text))


def test_bombs_take_no_memory(folder, tmp_path):
    """Pictures of 16,383 squared pixels, a gigabyte each, in a kilobyte; and zeros that a zip holds in nothing."""
    head = bytearray(blank(4, 4))
    head[21:25] = (16_382 | 16_382 << 14 | 1 << 28).to_bytes(4, "little")
    zeros = bytes(80_000_000)
    for number, parts in enumerate(
        ({"quats": bytes(head)}, {"shN_centroids": bytes(head)}, {"meta": zeros}, {"sh0": zeros})
    ):
        file = archive_of(folder, tmp_path / f"{number}.sog", compress=zipfile.ZIP_DEFLATED, **parts)
        tracemalloc.start()
        with pytest.raises(UserError):
            read_sog(file)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 40_000_000


def test_a_picture_of_another_size_is_refused(folder, tmp_path):
    for size in ((4, 4), (400, 400)):
        with pytest.raises(UserError, match="pixels for 90 splats"):
            read_sog(archive_of(folder, tmp_path / "m.sog", sh0=blank(*size)))


def test_an_archive_cut_anywhere_is_refused(folder, tmp_path):
    data = archive_of(folder, tmp_path / "m.sog").read_bytes()
    cut = tmp_path / "cut.sog"
    for size in (*range(0, 200, 23), *range(200, len(data), len(data) // 40), len(data) - 1):
        cut.write_bytes(data[:size])
        with pytest.raises(UserError, match=r"cut\.sog"):
            read_model(cut)


def test_a_missing_picture_beside_a_meta_is_named(folder, tmp_path):
    (tmp_path / "meta.json").write_bytes((folder / "meta.json").read_bytes())
    with pytest.raises(UserError, match=r"means_l\.webp"):
        read_model(tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_changed_bytes_give_a_model_or_one_error(tmp_path_factory, folder, data):
    place = tmp_path_factory.getbasetemp() / "mutant.sog"
    content = bytearray(archive_of(folder, place).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    place.write_bytes(content)
    try:
        assert read_sog(place)[0].count <= COUNT
    except UserError as error:
        assert "mutant.sog" in str(error)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "version",
                        "count",
                        "means",
                        "scales",
                        "quats",
                        "sh0",
                        "shN",
                        "files",
                        "mins",
                        "maxs",
                        "codebook",
                        "extras",
                        "splat",
                        "asset",
                        "shape",
                    ]
                ),
                inner,
            )
        ),
    )
)
def test_any_json_gives_a_meta_or_one_error(value):
    try:
        parse_meta(Path("x"), json.dumps(value).encode())
    except UserError:
        pass


def version_1(folder: Path) -> dict[str, Any]:
    """A meta.json of version 1 around the same pictures."""
    meta = meta_of(folder)
    ends = {"mins": [-3.0, -2.0, -1.0], "maxs": [1.0, 2.0, 3.0]}
    return {
        "means": {"shape": [COUNT, 3], **meta["means"]},
        "scales": {**ends, "files": meta["scales"]["files"]},
        "quats": meta["quats"],
        "sh0": {"mins": [*ends["mins"], -4.0], "maxs": [*ends["maxs"], 4.0], "files": meta["sh0"]["files"]},
        "shN": {"mins": -1.0, "maxs": 1.0, "files": meta["shN"]["files"]},
    }


def test_version_1_spreads_its_bytes_evenly(folder, tmp_path):
    file = archive_of(folder, tmp_path / "m.sog", meta=version_1(folder))
    model = read_model(file).model
    pixels = {
        p.stem: webp_pixels(p, p.name, p.read_bytes()).reshape(-1, 4)[:COUNT].astype(float)
        for p in folder.glob("s*[s0].webp")
    }
    scales = np.array([-3, -2, -1]) + 4 * pixels["scales"][:, :3] / 255
    assert np.allclose(model.rows["log_scales"].numpy(), scales, atol=1e-6)
    assert np.allclose(model.rows["logit_opacities"].numpy(), -4 + 8 * pixels["sh0"][:, 3] / 255, atol=1e-4)
    assert model.sh_degree == 1 and model.rows["sh_rest"].abs().max() <= 1
    for change in ({"shape": []}, {"shape": ["9"]}, {"mins": 3}):
        meta = version_1(folder)
        meta["means"].update(change)
        with pytest.raises(UserError):
            read_sog(archive_of(folder, tmp_path / "bad.sog", meta=meta))


def test_the_size_of_every_kind_of_webp_is_read_from_its_head(tmp_path):
    from io import BytesIO

    from PIL import Image

    picture = Image.fromarray(np.zeros((5, 9, 3), np.uint8))
    for options in ({"lossless": True}, {"lossless": False}, {"lossless": True, "exif": b"Exif\0\0II"}):
        stream = BytesIO()
        picture.save(stream, "WEBP", **options)
        assert webp_size(tmp_path, "x", stream.getvalue()) == (9, 5)
    frames = BytesIO()
    picture.save(frames, "WEBP", save_all=True, append_images=[Image.new("RGB", (9, 5), "red")])
    with pytest.raises(UserError, match="animation"):
        webp_size(tmp_path, "x", frames.getvalue())
