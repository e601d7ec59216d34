"""SOG, PlayCanvas' format: attributes as bytes of lossless WebP pictures, and a ``meta.json`` that explains them.

Either one zip archive (``.sog``) or a folder with ``meta.json`` in it. Version 2 is written; versions 1 and 2 are read
(https://developer.playcanvas.com/user-manual/gaussian-splatting/formats/sog). Splat i lies at (i mod W, i div W):

* means: sign(x) ln(1 + |x|), 16 bits between the axis' ends, low and high bytes in two pictures;
* quats: the three smaller components times the square root of 2, 8 bits each, and which one was the largest;
* scales, sh0: indices into a codebook of 256 values each; opacity is 8 bits of alpha;
* shN: indices into a palette of up to 65,536 vectors, whose entries are indices into a third codebook.

Values are those of a PLY file, in its frame.
"""

from __future__ import annotations

from pathlib import Path

from splat.io.sog_read import read_sog, read_sog_folder
from splat.io.sog_write import write_sog, write_sog_folder

__all__ = ["looks_like_sog", "looks_like_sog_folder", "read_sog", "read_sog_folder", "write_sog", "write_sog_folder"]


def looks_like_sog(head: bytes, path: Path) -> bool:
    return head[:4] == b"PK\x03\x04" and (path.suffix.lower() == ".sog" or b".webp" in head or b"meta.json" in head)


def looks_like_sog_folder(head: bytes, path: Path) -> bool:
    """The ``meta.json`` of an unpacked one."""
    return head.lstrip()[:1] == b"{" and (path.name.lower() == "meta.json" or b'"means_l.webp"' in head)
