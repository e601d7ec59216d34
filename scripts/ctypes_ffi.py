"""As much of cffi as the native layer uses, on ctypes, for machines that have torch and numpy and nothing else.

``stand_in()`` puts it into the place of ``cffi`` where that is missing. It knows the C of ``cuda/include/splat.h``:
structs of numbers, pointers and arrays of them, and functions over those.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import sys
import types
from typing import Any

NUMBERS = {
    "int32_t": ctypes.c_int32, "uint32_t": ctypes.c_uint32, "int64_t": ctypes.c_int64, "uint8_t": ctypes.c_uint8,
    "size_t": ctypes.c_size_t, "double": ctypes.c_double, "float": ctypes.c_float, "int": ctypes.c_int,
}  # fmt: skip


class Pointer:
    """An address."""

    def __init__(self, value: int) -> None:
        self.value = value
        self._as_parameter_ = ctypes.c_void_p(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pointer) and other.value == self.value

    def __hash__(self) -> int:
        return hash(self.value)


class Owned:
    """Memory of one object or array."""

    def __init__(self, held: Any) -> None:
        self.held = held
        self._as_parameter_ = ctypes.c_void_p(ctypes.addressof(held))

    def __getitem__(self, index: int) -> Any:
        if isinstance(self.held, ctypes.Array):
            return self.held[index]
        return self.held if isinstance(self.held, ctypes.Structure) else self.held.value


class FFI:
    NULL = Pointer(0)

    def __init__(self) -> None:
        self._types: dict[str, Any] = dict(NUMBERS)
        self._functions: dict[str, tuple[str, list[str]]] = {}

    def cdef(self, text: str) -> None:
        for body, name in re.findall(r"typedef struct \w+ \{(.*?)\} (\w+);", text, flags=re.DOTALL):
            fields = [field for line in body.split(";") if line.strip() for field in self._fields(line.strip())]
            self._types[name] = type(name, (ctypes.Structure,), {"_fields_": fields})
        rest = re.sub(r"(typedef struct|enum) \w+ \{.*?\}[^;]*;", "", text, flags=re.DOTALL)
        for result, name, arguments in re.findall(r"([\w ]+[ *]+)(\w+)\(([^)]*)\)\s*;", rest):
            listed = [part.strip() for part in arguments.split(",")]
            self._functions[name] = result.strip(), [] if listed == ["void"] else listed

    def _fields(self, line: str) -> list[tuple[str, Any]]:
        """``const void* means`` or ``double fx, fy`` or ``double lr[6]``."""
        kind, names = re.match(r"((?:const )?\w+\s*\**)\s*(.*)", line, flags=re.DOTALL).groups()
        made = []
        for name in names.split(","):
            bare, count = re.match(r"\s*(\w+)(?:\[(\d+)\])?", name).groups()
            made.append((bare, self._type(kind) if count is None else self._type(kind) * int(count)))
        return made

    def _type(self, text: str) -> Any:
        return ctypes.c_void_p if "*" in text else self._types[text.replace("const", "").split()[0]]

    def dlopen(self, path: str) -> Any:
        library = ctypes.CDLL(path)
        return _Library(self, library)

    def new(self, kind: str, init: Any = None) -> Owned:
        base, count = re.match(r"(\w+)\s*(?:\*|\[(\d+)\])$", kind.strip()).groups()
        held = self._types[base]() if count is None else (self._types[base] * int(count))()
        for name, value in (init or {}).items():
            if isinstance(value, list | tuple):
                for index, item in enumerate(value):  # fewer than there are places: the rest stays zero
                    getattr(held, name)[index] = item.value if isinstance(item, Pointer) else item
            else:
                setattr(held, name, value.value if isinstance(value, Pointer) else value)
        return Owned(held)

    def cast(self, _kind: str, value: int) -> Pointer:
        return Pointer(int(value))

    def string(self, pointer: Pointer) -> bytes:
        return ctypes.string_at(pointer.value)


class _Library:
    def __init__(self, ffi: FFI, library: ctypes.CDLL) -> None:
        self._ffi, self._library = ffi, library

    def __getattr__(self, name: str) -> Any:
        result, arguments = self._ffi._functions[name]
        function = getattr(self._library, name)
        function.argtypes = [self._ffi._type(argument) for argument in arguments]
        function.restype = None if result == "void" else self._ffi._type(result)
        call = function if "*" not in result else lambda *args: Pointer(function(*args) or 0)
        setattr(self, name, call)
        return call


def stand_in() -> bool:
    """Take cffi's place if it is not installed; whether that was needed."""
    if importlib.util.find_spec("cffi") is not None:
        return False
    module = types.ModuleType("cffi")
    module.FFI = FFI
    sys.modules["cffi"] = module
    return True
