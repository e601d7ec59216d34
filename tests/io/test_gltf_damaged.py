"""Binary glTF of strangers: nothing in a file is believed, and every fault is one line."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from gaussians import random_model
from gltf_files import KHR, SPZ, attributes, put_together, taken_apart, written
from hypothesis import example, given, settings
from hypothesis import strategies as st

from splat.errors import UserError
from splat.io.formats import read_model, write_model
from splat.io.gltf import read_gltf


def _set(*path_and_value):
    *path, key, value = path_and_value

    def change(root: dict) -> None:
        for step in path:
            root = root[step]
        root[key] = value

    return change


PRIMITIVE = ("meshes", 0, "primitives", 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("meshes", 0, "primitives", 0, "extensions", {}), "without Gaussian splats"),
        (_set("nodes", []), r"nodes\[0\], which is not there"),
        (_set("nodes", 0, "mesh", -1), r"meshes\[-1\], which is not there"),
        (_set("nodes", 0, "mesh", [1]), r"meshes\[\[1\]\], which is not there"),
        (_set("nodes", 0, "children", [0]), "more than one parent"),
        (_set("nodes", 0, "rotation", [0, 0, 0, 0]), "rotation has no length"),
        (_set("nodes", 0, "translation", [0, 0, "x"]), "not 3 finite numbers"),
        (_set("nodes", 0, "translation", [0, 0, float("nan")]), "not 3 finite numbers"),
        (_set("nodes", 0, "extensions", {"EXT_mesh_gpu_instancing": {}}), "drawn many times"),
        (_set("scenes", 0, "nodes", [0, 0]), "more than one parent"),
        (_set("meshes", 0, "primitives", {}), "has no primitives"),
        (_set(*PRIMITIVE, "attributes", []), "attributes is no JSON object"),
        (_set(*PRIMITIVE, "attributes", "POSITION", 99), r"accessors\[99\], which is not there"),
        (_set("accessors", 0, "count", 2**40), "more than it has bytes for"),
        (_set("accessors", 0, "count", 41), r"cut short: accessors\[0\] needs 492 bytes, 480 are there"),
        (_set("accessors", 0, "count", 0), "has no elements"),
        (_set("accessors", 0, "count", 39), "differ in length: 39 positions, 40"),
        (_set("accessors", 0, "count", 1.5), "count 1.5; a whole number"),
        (_set("accessors", 0, "byteOffset", 2**60), "byteOffset 1152921504606846976; a whole number"),
        (_set("accessors", 0, "componentType", 1), "component type 1"),
        (_set("accessors", 0, "type", "MAT4"), "of type 'MAT4' where VEC3 is needed"),
        (_set("accessors", 0, "sparse", {"count": 1}), "is sparse"),
        (_set("bufferViews", 0, "byteLength", 2**40), r"cut short: bufferViews\[0\]"),
        (_set("bufferViews", 0, "byteStride", 8), "larger than their stride of 8"),
        (_set("bufferViews", 0, "buffer", 1), r"buffers\[1\], which is not there"),
        (_set("bufferViews", 0, "extensions", {"EXT_meshopt_compression": {}}), "compressed by an extension"),
        (_set("buffers", 0, "uri", "../../secret.bin"), "only data inside the file is read"),
        (_set("extensionsRequired", ["KHR_draco_mesh_compression"]), "needs 'KHR_draco_mesh_compression'"),
        (_set("extensionsRequired", "KHR"), "extensionsRequired is no list"),
        (_set(*PRIMITIVE, "extensions", KHR, "extensions", {"OTHER_splats": {}}), "compressed with 'OTHER_splats'"),
        (_set(*PRIMITIVE, "extensions", KHR, "extensions", {SPZ: {"bufferView": 0}}), "not an SPZ file"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused_in_one_line(tmp_path, change, words):
    root, binary = written(tmp_path, count=40, sh_degree=0)
    change(root)
    with pytest.raises(UserError, match=words) as caught:
        read_gltf(put_together(tmp_path / "bad.glb", root, binary))
    assert str(caught.value).startswith(f"{tmp_path / 'bad.glb'}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["POSITION", f"{KHR}:ROTATION", f"{KHR}:SCALE", f"{KHR}:OPACITY"])
def test_missing_attributes_are_named(tmp_path, missing):
    root, binary = written(tmp_path)
    del attributes(root)[missing]
    with pytest.raises(UserError, match=missing):
        read_gltf(put_together(tmp_path / "bad.glb", root, binary))


def test_bands_are_whole_or_not_there(tmp_path):
    root, binary = written(tmp_path)
    del attributes(root)[f"{KHR}:SH_DEGREE_2_COEF_4"]
    with pytest.raises(UserError, match=r"have \[3, 4, 7\] of 3, 5 and 7"):
        read_gltf(put_together(tmp_path / "bad.glb", root, binary))


@pytest.mark.parametrize("format", ["glb", "glb-spz"])
def test_sharing_data_does_not_multiply_splats(tmp_path, format):
    """A thousand primitives, or meshes, of the same bytes."""
    write_model(random_model(2000, sh_degree=0), tmp_path / "m.glb", format=format)
    root, binary = taken_apart(tmp_path / "m.glb")
    root["meshes"][0]["primitives"] *= 1000
    with pytest.raises(UserError, match="shows the same splats many times"):
        read_gltf(put_together(tmp_path / "bad.glb", root, binary))
    root["meshes"][0]["primitives"] = root["meshes"][0]["primitives"][:1]
    root["nodes"] *= 2
    root["scenes"][0]["nodes"] = [0, 1]
    with pytest.raises(UserError, match=r"meshes\[0\] more than once"):
        read_gltf(put_together(tmp_path / "bad.glb", root, binary))


@pytest.mark.parametrize(
    ("text", "words"),
    [("[" * 100_000, "JSON is damaged"), ("[]", "JSON is no object"), ("{", "JSON is damaged"),
     ('{"nodes": 1' + "0" * 5000 + "}", "JSON is damaged"), ("{}", "without Gaussian splats"), ("", "damaged"),
     ('{"nodes": 3}', "nodes are no list"), ('{"scenes": 3}', r"scenes\[0\]"), ("\xff", "damaged")],
)  # fmt: skip
def test_json_of_any_kind_is_an_error(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        read_gltf(put_together(tmp_path / "bad.glb", text))


def test_containers_of_any_kind_are_an_error(tmp_path):
    write_model(random_model(3), tmp_path / "m.glb")
    data = (tmp_path / "m.glb").read_bytes()
    cases = {
        data[:8]: "the header", data[:-4]: "cut short: the file needs", data[:4] + b"\1" + data[5:]: "version 1",
        data[:8] + struct.pack("<I", 12): "without its JSON",
        data[:12] + struct.pack("<I", 2**32 - 1) + data[16:]: "cut short: a chunk",
    }  # fmt: skip
    for content, words in cases.items():
        (tmp_path / "bad.glb").write_bytes(content)
        with pytest.raises(UserError, match=words):
            read_model(tmp_path / "bad.glb")


@pytest.fixture(scope="module")
def small_files(tmp_path_factory) -> tuple[Path, list[bytes]]:
    folder = tmp_path_factory.mktemp("glb")
    files = []
    for format in ("glb", "glb-spz"):
        write_model(random_model(3, sh_degree=1), folder / "m.glb", format=format)
        files.append((folder / "m.glb").read_bytes())
    return folder / "changed.glb", files


@settings(max_examples=150, deadline=None)
@given(which=st.integers(0, 1), at=st.integers(0, 2**31), value=st.integers(0, 255))
@example(which=0, at=8, value=1)
def test_a_changed_file_is_a_model_or_one_error(small_files, which, at, value):
    path, files = small_files
    data = bytearray(files[which])
    data[at % len(data)] = value
    path.write_bytes(data)
    try:
        model, _ = read_gltf(path)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert model.count <= 3
