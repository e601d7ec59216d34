"""Removes what is left of the sampling noise with Open Image Denoise (package ``oidn``), guided by features.

The guides are the surface colour and the normal at the first hit, traced with so many rays that they are clean:
textures and edges stay as sharp as they are.
"""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

import numpy as np

FORMAT_FLOAT3 = 3
"""``OIDN_FORMAT_FLOAT3`` of oidn.h."""

TINT_FLOOR = 0.04
"""Keeps dark surfaces, whose light is mostly reflection, from being divided by nothing."""


def guides(mitsuba, scene, camera, *, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(albedo, normal), [H,W,3] each, without noise worth naming."""
    integrator = mitsuba.load_dict({"type": "aov", "aovs": "albedo:albedo,normal:sh_normal"})
    layers = np.array(mitsuba.render(scene, sensor=camera, integrator=integrator, spp=samples, seed=seed))[..., -6:]
    return np.clip(np.nan_to_num(layers[..., :3]), 0, 1), np.clip(np.nan_to_num(layers[..., 3:]), -1, 1)


def denoised(light: np.ndarray, albedo: np.ndarray, normal: np.ndarray) -> np.ndarray:  # [H,W,3] linear
    """The same picture without noise. Surface colour is divided out first, so that no texture is softened."""
    tint = albedo + TINT_FLOOR
    library = _library()
    device = library.oidnNewDevice(0)
    library.oidnCommitDevice(device)
    job = library.oidnNewFilter(device, b"RT")
    height, width = light.shape[:2]
    buffers = {"color": light / tint, "albedo": albedo, "normal": normal, "output": np.zeros_like(light)}
    buffers = {name: np.array(value, dtype=np.float32, order="C") for name, value in buffers.items()}
    for name, value in buffers.items():
        library.oidnSetSharedFilterImage(job, name.encode(), value.ctypes.data, FORMAT_FLOAT3, width, height, 0, 0, 0)
    library.oidnSetFilter1b(job, b"hdr", True)
    library.oidnSetFilter1b(job, b"cleanAux", True)
    library.oidnCommitFilter(job)
    library.oidnExecuteFilter(job)
    library.oidnReleaseFilter(job)
    message = ctypes.c_char_p()
    if library.oidnGetDeviceError(device, ctypes.byref(message)):
        raise RuntimeError(f"Open Image Denoise: {(message.value or b'').decode()}")
    library.oidnReleaseDevice(device)
    return buffers["output"] * tint


def _library() -> ctypes.CDLL:
    """The C library inside the ``oidn`` package; its own import misses the bundled TBB, so both are opened here."""
    found = importlib.util.find_spec("oidn")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("the 'oidn' package is missing: pip install --no-deps oidn==0.2.1")
    folder = Path(found.submodule_search_locations[0]) / "lib.linux.x64"
    ctypes.CDLL(str(next(folder.glob("libtbb.so*"))), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(next(folder.glob("libOpenImageDenoise.so*"))))
    handle, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    signatures = {
        "oidnNewDevice": (handle, [ctypes.c_int]), "oidnCommitDevice": (None, [handle]),
        "oidnReleaseDevice": (None, [handle]), "oidnNewFilter": (handle, [handle, text]),
        "oidnSetSharedFilterImage": (None, [handle, text, handle, ctypes.c_int] + [size] * 5),
        "oidnSetFilter1b": (None, [handle, text, ctypes.c_bool]), "oidnCommitFilter": (None, [handle]),
        "oidnExecuteFilter": (None, [handle]), "oidnReleaseFilter": (None, [handle]),
        "oidnGetDeviceError": (ctypes.c_int, [handle, handle]),
    }  # fmt: skip
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
