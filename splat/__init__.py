"""Posed photos in, a Gaussian splat out. The command line is ``splat``; the library is these packages."""

from __future__ import annotations

import os

if not os.path.isdir(os.path.join(__path__[0], "viewer")):  # a source tree: viewer/ lies beside the package
    __path__.append(os.path.dirname(os.path.abspath(__path__[0])))


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module 'splat' has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("splat")
    except PackageNotFoundError:  # run from a source tree
        return "0+source"
