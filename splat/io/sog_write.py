"""Writing SOG version 2 (see ``sog.py``): values are rounded, never cut, and the file is the same every time."""

from __future__ import annotations

import json
import zipfile
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from splat.errors import UserError
from splat.io.atomic import write_bytes, write_error
from splat.io.codebook import codebook_indices, fit_codebook
from splat.io.palette import kmeans, nearest
from splat.io.plain import PlainSplats, plain_of
from splat.io.sog_meta import MAX_PALETTE, PALETTE_ROW
from splat.io.sog_turns import bytes_of_turns
from splat.io.webp import MAX_SIDE, webp_bytes
from splat.model.splat_model import SplatModel

SEED = 0
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say


def write_sog(model: SplatModel, path: str | Path, header: dict[str, Any] | None = None) -> None:
    """Write one ``.sog`` archive, its files stored as they are.

    ``header["up_axis"]`` and ``header["provenance"]`` go to ``extras`` of ``meta.json``, which renderers pass over.
    UserError for a model without splats.
    """
    path = Path(path)
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, data in _files(model, path, header or {}).items():
            info = zipfile.ZipInfo(name, _DATE)
            info.create_system, info.external_attr = 3, 0o644 << 16  # the same bytes on every system
            archive.writestr(info, data)
    write_bytes(path, stream.getvalue())


def write_sog_folder(model: SplatModel, path: str | Path, header: dict[str, Any] | None = None) -> None:
    """Write ``path``, the ``meta.json``, and the pictures beside it. It comes last, and one that is there goes first:
    whatever is interrupted, no ``meta.json`` ever explains other pictures than its own."""
    path = Path(path)
    files = _files(model, path, header or {})
    explained = files.pop("meta.json")
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(error, path) from error
    for name, data in files.items():
        write_bytes(path.with_name(name), data)
    write_bytes(path, explained)


def palette_size(count: int) -> int:
    """How many vectors of spherical harmonics stand for ``count`` of them; splat-transform's rule."""
    if count < 1024:
        return count
    return 1024 * min(64, 2 ** int(np.log2(count // 1024)))


def _files(model: SplatModel, path: Path, header: dict[str, Any]) -> dict[str, bytes]:
    """Every file by name."""
    plain = plain_of(model)
    if not plain.count:
        raise UserError(f"{path}: there are no splats to write, and SOG cannot hold none")
    low, high, codes = _positions(plain.means)
    order = _locality(codes)
    plain, codes = plain.taken(order), codes[order]
    width = 4 * -(-int(np.ceil(np.sqrt(plain.count))) // 4)
    if width > MAX_SIDE:
        raise UserError(
            f"{path}: {plain.count:,} splats are more than its pictures hold; choose fewer, or another format"
        )
    scale_book, color_book = fit_codebook(plain.log_scales), fit_codebook(plain.sh0)
    colors = np.concatenate([codebook_indices(plain.sh0, color_book), _unorm(plain.opacities)[:, None]], axis=1)
    pictures = {
        "means_l.webp": codes & 255, "means_u.webp": codes >> 8, "quats.webp": bytes_of_turns(plain.quats),
        "scales.webp": codebook_indices(plain.log_scales, scale_book), "sh0.webp": colors,
    }  # fmt: skip
    meta: dict[str, Any] = {"version": 2, "asset": {"generator": f"splat {_version()}"}, "count": plain.count}
    if plain.antialiased:
        meta["model"] = "antialiased"
    meta["means"] = {"mins": low.tolist(), "maxs": high.tolist(), "files": ["means_l.webp", "means_u.webp"]}
    meta["scales"] = {"codebook": _numbers(scale_book), "files": ["scales.webp"]}
    meta["quats"] = {"files": ["quats.webp"]}
    meta["sh0"] = {"codebook": _numbers(color_book), "files": ["sh0.webp"]}
    files = {}
    if plain.sh_degree:
        book, centroids, labels = sh_palette(plain)
        names = ["shN_centroids.webp", "shN_labels.webp"]
        meta["shN"] = {
            "count": len(centroids), "bands": plain.sh_degree, "codebook": _numbers(book), "files": names,
        }  # fmt: skip
        files[names[0]] = webp_bytes(_palette_picture(centroids))
        pictures[names[1]] = np.stack([labels & 255, labels >> 8], axis=1)
    meta["extras"] = {"splat": _extras(model, header)}
    files |= {name: webp_bytes(_picture(values, width)) for name, values in pictures.items()}
    meta_bytes = json.dumps(meta, separators=(",", ":"), allow_nan=False).encode("utf-8")
    return {"meta.json": meta_bytes, **files}


def sh_palette(plain: PlainSplats) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codebook [256], palette [P,K-1,3] of indices into it, and every splat's entry [N], for its view-dependent colour.

    The palette is found first, its numbers rounded to the codebook, and then the splats choose again. Entries stand in
    the order in which they are first used: where splats are neighbours, so are they.
    """
    vectors = torch.from_numpy(np.ascontiguousarray(plain.sh_rest.reshape(plain.count, -1)))
    centroids, labels = kmeans(vectors, min(palette_size(plain.count), MAX_PALETTE), seed=SEED)
    uses = np.bincount(labels.numpy(), minlength=len(centroids))
    book = fit_codebook(centroids.numpy(), weights=np.broadcast_to(uses[:, None], tuple(centroids.shape)))
    indices = codebook_indices(centroids.numpy(), book)
    chosen = nearest(vectors, torch.from_numpy(book[indices]), labels).numpy()
    used, first, entry = np.unique(chosen, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return book, indices[used[order]].reshape(len(used), -1, 3), place[entry]


def _positions(means: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ends of the axes on the logarithmic scale [3] and [3], and the codes [N,3] uint16."""
    squeezed = np.sign(means) * np.log1p(np.abs(means.astype(np.float64)))
    low, high = squeezed.min(axis=0), squeezed.max(axis=0)
    span = np.where(high > low, high - low, 1)
    return low, high, np.rint((squeezed - low) / span * 65_535).astype(np.uint16)


def _locality(codes: np.ndarray) -> np.ndarray:  # [N,3] uint16 -> [N]
    """Rows in Morton order of their codes: all 48 bits, so that writing again what was read changes nothing."""
    mixed = np.zeros(len(codes), np.uint64)
    for axis in range(3):
        spread = codes[:, axis].astype(np.uint64)
        # Each round halves the runs of bits and moves them apart, to two free places between any two bits.
        for shift, mask in ((16, 0xFF0000FF), (8, 0xF00F00F00F), (4, 0xC30C30C30C3), (2, 0x249249249249)):
            spread = (spread | spread << np.uint64(shift)) & np.uint64(mask)
        mixed |= spread << np.uint64(axis)
    return np.argsort(mixed, kind="stable")


def _unorm(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _picture(values: np.ndarray, width: int) -> np.ndarray:  # [N,2..4] -> [H,W,4] uint8
    """Rows of splats; the rest is the last splat again, alpha 255 where ``values`` have none."""
    height = 4 * -(-len(values) // (4 * width))
    pixels = np.zeros((height * width, 4), np.uint8)
    pixels[:, 3] = 255
    pixels[: len(values), : values.shape[1]] = values
    pixels[len(values) :] = pixels[len(values) - 1]
    return pixels.reshape(height, width, 4)


def _palette_picture(centroids: np.ndarray) -> np.ndarray:  # [P,K-1,3] -> [H,W,4] uint8
    count, coefficients, _ = centroids.shape
    pixels = np.zeros((-(-count // PALETTE_ROW) * PALETTE_ROW, coefficients, 4), np.uint8)
    pixels[:, :, 3] = 255
    pixels[:count, :, :3] = centroids
    return pixels.reshape(-1, PALETTE_ROW * coefficients, 4)


def _extras(model: SplatModel, header: dict[str, Any]) -> dict[str, Any]:
    extras: dict[str, Any] = {"filter2d": model.filter2d}
    if header.get("up_axis") is not None:
        extras["up_axis"] = [float(part) for part in header["up_axis"]]
    if model.primitive.kind != "gaussian":
        extras["converted_from"] = f"{model.primitive.kind} ({model.primitive.export})"
    if header.get("provenance"):
        extras["provenance"] = {str(key): str(value) for key, value in sorted(header["provenance"].items())}
    return extras


def _numbers(book: np.ndarray) -> list[float]:
    """The shortest decimals that name the same float32."""
    return [float(str(value)) for value in book]


def _version() -> str:
    try:
        return metadata.version("splat")
    except metadata.PackageNotFoundError:
        return "(source tree)"
