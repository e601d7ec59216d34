"""Named tensors and a JSON header in one safetensors file.

The writer is ours because the file must be the same bytes for the same content (the library hands its
metadata through an unordered map) and must stream without a second copy. The reader is the library's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splat.errors import UserError
from splat.io.atomic import atomic_path

HEADER_KEY = "splat"
"""Our one metadata key; its value is a JSON object."""
_DTYPE_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write ``tensors`` and ``header`` (anything JSON can hold) to ``path`` atomically."""
    table: dict[str, Any] = {"__metadata__": {HEADER_KEY: json.dumps(header, sort_keys=True)}}
    # The format asks for aligned offsets: widest elements first, names break ties.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    offset = 0
    for name in names:
        tensor = tensors[name]
        size = tensor.numel() * tensor.element_size()
        table[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    head = json.dumps(table, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        stream.write(len(head).to_bytes(8, "little"))
        stream.write(head)
        for name in names:
            if tensors[name].numel():
                values = tensors[name].detach().cpu().contiguous().reshape(-1)
                stream.write(memoryview(values.view(torch.uint8).numpy()))


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name (on the CPU, memory of their own) and the JSON header ({} when the file has none of ours)."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    header = read_header(path)
    try:
        # Cloned: the library maps the file, and a mapping dies with a file that somebody cuts short.
        return {name: table.clone() for name, table in load_file(path).items()}, header
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise UserError(f"{path}: damaged safetensors file ({_one_line(error)})") from error


def read_header(path: str | Path) -> dict[str, Any]:
    """Only the JSON header; reads no tensor."""
    table = _read_table(Path(path))
    metadata = table.get("__metadata__", {})
    text = metadata.get(HEADER_KEY, "{}") if isinstance(metadata, dict) else "{}"
    try:
        header = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: its header is not JSON ({_one_line(error)})") from error
    if not isinstance(header, dict):
        raise UserError(f"{path}: its header is not a JSON object")
    return header


def _read_table(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > min(_MAX_HEADER_BYTES, path.stat().st_size):
                raise UserError(f"{path}: not a safetensors file, or cut short")
            table = json.loads(stream.read(length).decode("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a safetensors file ({_one_line(error)})") from error
    if not isinstance(table, dict):
        raise UserError(f"{path}: not a safetensors file")
    return table


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
