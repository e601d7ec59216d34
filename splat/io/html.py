"""One HTML file that shows the splats: viewer, renderer and data in it, and no network needed or allowed.

The renderer is the PlayCanvas engine (MIT), built by ``scripts/build_html_viewer.py`` and shipped as package data in
``html_page/``; the page around it is ours. The splats lie in the page as SOG, which is what makes the file lossy. A
content security policy names the scripts by their hashes and forbids every connection, so that opening the file tells
nobody anything, and text from a header cannot become code.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np

from splat.errors import UserError
from splat.io.atomic import write_bytes
from splat.io.plain import PlainSplats, plain_of
from splat.model.filter2d import FILTERS_2D
from splat.model.splat_model import SplatModel

FOV_DEG = 50.0
"""Of the first view, vertical."""
DEFAULT_UP = (0.0, -1.0, 0.0)
"""Where nothing says what is up: captures have y pointing down."""
PAYLOADS = (".sog", ".ply")
"""What the page can draw."""


def write_html(model: SplatModel, path: str | Path, header: dict[str, Any] | None = None) -> None:
    """Write a page that shows ``model`` in the frame its rows are in.

    ``header["up_axis"]`` (three numbers) holds the view upright; ``header["start_view"]``, where given, is the first
    view: ``position``, ``target`` and ``up`` (three numbers each) and ``fov`` (vertical degrees). ``provenance`` is
    listed in the page. UserError for a model without splats.
    """
    from splat.io.sog import write_sog

    path, header = Path(path), dict(header or {})
    plain = plain_of(model)
    if not plain.count:
        raise UserError(f"{path}: there are no splats to show")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "splats.sog"
        write_sog(model, file, header)
        payload = file.read_bytes()
    facts = [("Splats", f"{plain.count:,}"), ("SH degree", str(plain.sh_degree)), ("2D filter", model.filter2d)]
    if model.primitive.kind != "gaussian":
        facts.append(("Converted from", f"{model.primitive.kind} ({model.primitive.export})"))
    facts.append(("Data", f"{len(payload):,} bytes of SOG"))
    facts += [(str(name), str(value)) for name, value in sorted(header.get("provenance", {}).items())]
    settings = {
        **placed(plain, header),
        "filter": drawn_filter(model.filter2d),
        "facts": facts,
    }
    write_bytes(path, page(payload, ".sog", title=path.stem, settings=settings))


def looks_like_html(head: bytes, path: Path) -> bool:
    return head.lstrip().lower().startswith(b"<!doctype html")


def page(payload: bytes, suffix: str, *, title: str, settings: Mapping[str, Any]) -> bytes:
    """The page around ``payload``, the bytes of a file of a kind in ``PAYLOADS``.

    ``settings``: ``view``, ``center`` and ``radius`` as ``placed`` gives them, ``filter`` as ``drawn_filter`` gives
    it, ``facts`` (pairs of words).
    """
    if suffix not in PAYLOADS:
        raise ValueError(f"suffix {suffix!r}; choices: {', '.join(PAYLOADS)}")
    inside = json.dumps({**settings, "file": f"splats{suffix}"}, allow_nan=False)
    parts = {
        "title": escape(title),
        "generator": escape(f"splat {_version()}"),
        "style": _part("page.css"),
        "engine": _part("engine.js"),
        "script": _part("page.js"),
        "licence": escape(_part("LICENSE.playcanvas.txt")),
        "settings": inside.replace("<", "\\u003c"),
        "splats": base64.b64encode(payload).decode("ascii"),
    }
    parts["policy"] = _policy(scripts=(parts["engine"], parts["script"]), style=parts["style"])
    text = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _part("page.html"))
    return text.encode("utf-8")


def drawn_filter(filter2d: str) -> dict[str, Any]:
    """The screen filter of the page for a model trained with ``filter2d``: the same, or the closest to an integral."""
    row = FILTERS_2D[FILTERS_2D[filter2d].elsewhere]
    return {"variance_px": row.variance_px, "compensates": row.compensates}


def placed(plain: PlainSplats, header: Mapping[str, Any]) -> dict[str, Any]:
    """Where the splats are and the first view of them: ``center`` [3], ``radius``, ``view``."""
    middle, radius = robust_ball(plain)
    up = np.asarray(header.get("up_axis") or DEFAULT_UP, np.float64)
    up = up / np.linalg.norm(up) if np.linalg.norm(up) > 0 else np.array(DEFAULT_UP)
    view = header.get("start_view")
    if view is None:
        # From the capture's front (cameras look along +z), a little above, far enough for the ball to fit.
        front = np.array((0.0, 0.0, -1.0)) if abs(up[2]) < 0.9 else np.array((0.0, 1.0, 0.0))
        level = front - (front @ up) * up
        outward = level / np.linalg.norm(level) + 0.25 * up
        distance = radius / np.sin(np.radians(FOV_DEG / 2))
        position = middle + distance * outward / np.linalg.norm(outward)
        view = {"position": position, "target": middle, "up": up, "fov": FOV_DEG}
    vectors = {name: [float(v) for v in view[name]] for name in ("position", "target", "up")}
    return {"center": middle.tolist(), "radius": radius, "view": {**vectors, "fov": float(view["fov"])}}


def robust_ball(plain: PlainSplats) -> tuple[np.ndarray, float]:  # -> [3], radius
    """A ball around most of what is seen: floaters and what is hardly opaque do not widen it."""
    seen = plain.opacities > 0.1
    means = plain.means[seen] if seen.any() else plain.means
    low, middle, high = np.percentile(means.astype(np.float64), (5, 50, 95), axis=0)
    size = np.exp(np.median(plain.log_scales.astype(np.float64).max(axis=1)))
    return middle, float(max(np.linalg.norm(high - low) / 2, 3 * size, 1e-6))


def _policy(*, scripts: tuple[str, ...], style: str) -> str:
    def hashed(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") + "'"

    # The sort worker is made from a blob; nothing else is ever loaded.
    return (
        f"default-src 'none'; script-src {' '.join(map(hashed, scripts))}; style-src {hashed(style)}; "
        "worker-src blob:; base-uri 'none'; form-action 'none'"
    )


@cache
def _part(name: str) -> str:
    return resources.files("splat.io").joinpath("html_page", name).read_text(encoding="utf-8")


def _version() -> str:
    try:
        return metadata.version("splat")
    except metadata.PackageNotFoundError:
        return "(source tree)"
