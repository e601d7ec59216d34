"""safetensors with a JSON header: exact, deterministic, readable by others."""

from __future__ import annotations

import errno
import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from splat.errors import UserError
from splat.io.tensors import load_tensors, read_header, save_tensors

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


def test_every_dtype_shape_and_the_header_survive(tmp_path):
    path = tmp_path / "t.safetensors"
    tensors = {str(dtype): (torch.arange(6).reshape(2, 3) % 2).to(dtype) for dtype in DTYPES}
    tensors |= {"empty": torch.zeros(0, 3), "flat0": torch.zeros(4, 0, 3), "scalar": torch.tensor(3.5)}
    tensors["strided"] = torch.randn(5, 4).t()
    header = {"step": 3, "name": "größe", "nested": {"x": [1, 2.5, None]}}
    save_tensors(path, tensors, header)
    loaded, back = load_tensors(path)
    assert back == header == read_header(path)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], tensor), name


def test_bits_are_kept_even_of_nan(tmp_path):
    bits = torch.tensor([0x7FC00001, 0x7F800000, -1, 1], dtype=torch.int32)
    save_tensors(tmp_path / "t.safetensors", {"x": bits.view(torch.float32)}, {})
    assert torch.equal(load_tensors(tmp_path / "t.safetensors")[0]["x"].view(torch.int32), bits)


def test_the_same_content_is_the_same_file_and_aligned(tmp_path):
    tensors = {"b": torch.randn(3), "a": torch.tensor([1], dtype=torch.uint8), "c": torch.randn(2).double()}
    save_tensors(tmp_path / "1", tensors, {"x": 1, "y": 2})
    save_tensors(tmp_path / "2", dict(reversed(tensors.items())), {"y": 2, "x": 1})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    with safe_open(tmp_path / "1", "pt") as file:  # the library checks offsets and sizes
        assert torch.equal(file.get_tensor("c"), tensors["c"])


def test_a_loaded_tensor_can_be_changed_without_touching_the_file(tmp_path):
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"x": torch.zeros(1000)}, {})
    load_tensors(path)[0]["x"].add_(1)
    assert load_tensors(path)[0]["x"].sum() == 0


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "step_1.safetensors"
    save_tensors(path, {"x": torch.ones(3)}, {"step": 1})
    real_open = open

    class FullDisk:
        def __init__(self, *arguments, **settings):
            self._stream = real_open(*arguments, **settings)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._stream.close()

        def write(self, data):
            if len(data) > 8:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self._stream.write(data)

    monkeypatch.setattr("splat.io.tensors.open", FullDisk, raising=False)
    with pytest.raises(UserError, match="no space left"):
        save_tensors(path, {"x": torch.zeros(3)}, {"step": 2})
    monkeypatch.undo()
    assert load_tensors(path)[1] == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_foreign_files_have_an_empty_header(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.ones(2)}, str(tmp_path / "f.safetensors"), metadata={"format": "pt"})
    tensors, header = load_tensors(tmp_path / "f.safetensors")
    assert header == {} and torch.equal(tensors["x"], torch.ones(2))


def test_missing_and_cut_files(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_tensors(tmp_path / "none.safetensors")
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"x": torch.randn(100)}, {"a": 1})
    whole = path.read_bytes()
    for length in (0, 4, 8, 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="safetensors"):
            load_tensors(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_garbage_is_a_user_error(tmp_path, data):
    path = tmp_path / "g.safetensors"
    path.write_bytes(data)
    with pytest.raises(UserError):
        load_tensors(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=json_values, names=st.sampled_from(["x", "__metadata__", "rows.means"]), body=st.binary(max_size=16))
def test_garbage_inside_valid_json_is_a_user_error_or_loads(tmp_path, table, names, body):
    path = tmp_path / "g.safetensors"
    head = json.dumps({names: table}).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + body)
    try:
        load_tensors(path)
    except UserError:
        pass
