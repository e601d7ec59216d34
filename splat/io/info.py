"""What ``splat info FILE`` says: what the file is, what is in it, and what looks wrong with it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from splat.geometry.sh import C0
from splat.io.format_names import stored_bytes
from splat.io.formats import FORMATS, model_file, read_model, sniff
from splat.io.selection import finite_rows
from splat.model.filter2d import FILTERS_2D
from splat.model.gaussian_family import GAUSSIAN_FIELDS
from splat.model.primitive import FieldSpec, Primitive
from splat.model.splat_model import SplatModel

OPACITY_CUT = 1 / 255  # fainter splats never pass the blending cut, so they are never drawn
OVERSIZED_RATIO = 0.1  # of the diagonal of the 1-99 % box
FLOATER_CELLS = 64  # at most so many cells along that diagonal; a floater has no company in the 27 cells around it
FLOATER_NEIGHBOURS = 3
BAND_STEP = 1 / 32  # the coarsest writer's distance between two SH coefficients: its zeros may be read as half of it
_BARS = " ▁▂▃▄▅▆▇█"
_BINS = 24


@dataclass(frozen=True)
class Histogram:
    """Counts of finite values in equal bins between ``low`` and ``high``."""

    low: float
    high: float
    median: float
    counts: tuple[int, ...]

    def sparkline(self) -> str:
        top = max(self.counts, default=0)
        return "".join(_BARS[math.ceil(8 * count / top) if top else 0] for count in self.counts)


@dataclass(frozen=True)
class FileInfo:
    """Facts about one model file. Boxes are (min [3], max [3]) in the units of the file's frame; None when empty."""

    path: str
    format: str
    size_bytes: int
    splats: int
    bytes_per_splat: float
    primitive: str
    sh_degree: int
    filter2d: str
    has_filter3d: bool
    box: tuple[tuple[float, ...], tuple[float, ...]] | None
    box_98: tuple[tuple[float, ...], tuple[float, ...]] | None
    """Between the 1st and 99th percentile of each axis."""
    opacity: Histogram
    log10_scale: Histogram
    """Of the largest axis of each splat."""
    floaters: int
    """Visible splats with fewer than ``FLOATER_NEIGHBOURS`` others near them."""
    oversized: int
    """Splats whose largest standard deviation exceeds ``OVERSIZED_RATIO`` of the 98 % box's diagonal."""
    nearly_invisible: int
    """Splats with opacity below 1/255: they are never drawn."""
    non_finite: int
    """Rows of the model with NaN or infinity."""
    frame: str
    up_axis: list[float] | None
    provenance: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    own_fields: dict[str, Histogram] = field(default_factory=dict)
    """What this primitive has beyond plain Gaussians, one number per splat: activated, or its log10 where so named."""
    own_tables: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """The same for fields with more numbers per splat: their shape."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the primitive that differ from their defaults."""
    bits_per_splat: float = 0.0
    sh_degree_used: int = 0
    """Highest band with a coefficient that is not zero, or that differs between splats or coefficients."""
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Least and largest number: ``base colour`` (0 to 1 is displayed) and ``SH band 1`` to ``3``, coefficients."""
    lost: tuple[str, ...] = ()
    """What the file cannot have kept of the model it was made from, as far as it says."""
    attributes: dict[str, int] = field(default_factory=dict)
    """Bytes by attribute, where the format keeps them apart."""

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)

    def text(self) -> str:
        """A page for the terminal."""
        row = FILTERS_2D[self.filter2d]
        filter2d = f"off ({self.filter2d})" if row.render_mode == "default" else f"{self.filter2d}: {row.purpose}"
        shapes = {name: " x ".join(map(str, shape)) for name, shape in self.own_tables.items()}
        changed = ", ".join(f"{name} = {value}" for name, value in self.settings.items())
        lines = [
            ("file", self.path),
            ("format", f"{self.format}, {self._bytes_text(self.size_bytes)}"),
            *((f"  {name}", self._bytes_text(count)) for name, count in self.attributes.items()),
            ("splats", f"{self.splats:,} ({self.primitive}), SH degree {self.sh_degree}{self._bands_text()}"),
            ("anti-aliasing", filter2d + (", and the Mip 3D filter" if self.has_filter3d else "")),
            ("box", _box_text(self.box)),
            ("box 1-99 %", _box_text(self.box_98)),
            ("opacity", _histogram_text(self.opacity, "{:.2f}")),
            ("size, log10", _histogram_text(self.log10_scale, "{:.1f}")),
            *((name, f"{low:.3g} to {high:.3g}") for name, (low, high) in self.ranges.items()),
            *((name, f"{shape} numbers per splat") for name, shape in shapes.items()),
            *((name, _histogram_text(values, "{:.2f}")) for name, values in self.own_fields.items()),
            *([("settings", changed)] if changed else []),
            ("looks wrong", self._wrong_text()),
            ("frame", self.frame + (f", up is {_vector(self.up_axis)}" if self.up_axis else "")),
            *((f"  {key}", str(value)) for key, value in sorted(self.provenance.items())),
            *(("not kept", words) for words in self.lost),
            *(("warning", warning) for warning in self.warnings),
        ]
        return "\n".join(f"{name:<14} {value}" for name, value in lines)

    def _bytes_text(self, count: int) -> str:
        per_splat = f", {8 * count / self.splats:,.1f} bits per splat" if self.splats else ""
        return f"{count:,} bytes{per_splat}"

    def _bands_text(self) -> str:
        if not self.splats or self.sh_degree_used == self.sh_degree:
            return ""
        return f", of which {self.sh_degree_used} is used: the bands above are zero"

    def _wrong_text(self) -> str:
        counts = {
            "floaters": self.floaters, "oversized": self.oversized,
            "nearly invisible (never drawn)": self.nearly_invisible, "non-finite": self.non_finite,
        }  # fmt: skip
        return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "nothing"


def describe(path: str | Path) -> FileInfo:
    """Read a model file (or a run folder's model) and look it over."""
    file = model_file(path)
    loaded = read_model(file)
    model, header = loaded.model, loaded.header
    row, size = sniff(file), stored_bytes(file)
    finite = finite_rows(model).cpu()
    means, opacities, largest = _drawn_values(model, finite)
    low, high = (np.percentile(means, (1, 99), axis=0) if len(means) else np.zeros((2, 3))).astype(float)
    diagonal = float(np.linalg.norm(high - low))
    return FileInfo(
        path=str(file),
        format=row.name,
        size_bytes=size,
        splats=model.count,
        bytes_per_splat=size / max(model.count, 1),
        primitive=model.primitive.kind,
        sh_degree=model.sh_degree,
        filter2d=model.filter2d,
        has_filter3d=model.filter3d is not None,
        box=_box(means.min(0), means.max(0)) if len(means) else None,
        box_98=_box(low, high) if len(means) else None,
        opacity=_histogram(opacities, 0.0, 1.0),
        log10_scale=_histogram(np.log10(np.maximum(largest, 1e-30))),
        floaters=count_floaters(means[opacities >= OPACITY_CUT], _floater_cell(low, high, len(means))),
        oversized=int((largest > OVERSIZED_RATIO * diagonal).sum()) if diagonal > 0 else 0,
        nearly_invisible=int((opacities < OPACITY_CUT).sum()),
        non_finite=int((~finite).sum()),
        frame=_frame(header, row.frame),
        up_axis=header.get("up_axis"),
        provenance=dict(header.get("provenance") or {}),
        warnings=tuple(header["warnings"]),
        own_fields=_own_fields(model, finite),
        own_tables={spec.name: tuple(spec.shape) for spec in _own_specs(model) if spec.shape},
        settings=_changed_settings(model.primitive),
        bits_per_splat=8 * size / max(model.count, 1),
        sh_degree_used=_sh_degree_used(model, finite),
        ranges=_ranges(model, finite),
        lost=_lost(header, row.name),
        attributes=_attributes(header),
    )


def count_floaters(means: np.ndarray, cell: float) -> int:  # [N,3]
    """Splats with fewer than ``FLOATER_NEIGHBOURS`` others in the 27 grid cells around theirs."""
    if len(means) <= FLOATER_NEIGHBOURS or cell <= 0:
        return 0
    cells = np.floor((means - means.min(0)) / cell)
    cells = np.minimum(cells, 2**20 - 3).astype(np.int64) + 1  # 20 bits an axis, with a border cell either side
    stride = np.array([1 << 40, 1 << 20, 1])
    keys, owner, counts = np.unique(cells @ stride, return_inverse=True, return_counts=True)
    near = np.zeros(len(keys), np.int64)
    for offset in np.ndindex(3, 3, 3):
        wanted = keys + (np.array(offset) - 1) @ stride
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        near += np.where(keys[at] == wanted, counts[at], 0)
    return int((near[owner.reshape(-1)] - 1 < FLOATER_NEIGHBOURS).sum())


def _floater_cell(low: np.ndarray, high: np.ndarray, count: int) -> float:
    """Side of a grid cell: a share of the scene, but in sparse models so large that splats inside have company."""
    size = np.maximum(high - low, 0)
    spacing = float(np.prod(size) / max(count, 1)) ** (1 / 3)
    return max(float(np.linalg.norm(size)) / FLOATER_CELLS, spacing)


def _drawn_values(model: SplatModel, finite: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, opacities and largest scales as drawn (3D filter included) of the finite rows.

    Only these are converted: the conversion of another primitive need not take NaN.
    """
    rows = {name: table.detach()[finite] for name, table in model.rows.items()}
    gaussians = model.primitive.gaussian_rows(rows, filter3d=None if model.filter3d is None else model.filter3d[finite])
    means = gaussians["means"].cpu().numpy().astype(np.float64)
    opacities = gaussians["logit_opacities"].sigmoid().cpu().numpy()
    return means, opacities, gaussians["log_scales"].exp().cpu().numpy().max(axis=1, initial=0.0)


def _own_specs(model: SplatModel) -> list[FieldSpec]:
    return [spec for spec in model.primitive.fields(model.sh_degree) if spec.name not in GAUSSIAN_FIELDS]


def _own_fields(model: SplatModel, finite: torch.Tensor) -> dict[str, Histogram]:
    """Histograms of the fields with one number per splat that plain Gaussians do not have."""
    shown = {}
    for spec in _own_specs(model):
        if spec.shape:
            continue
        values = model.rows[spec.name].detach().cpu()[finite].numpy()
        name = spec.name.removeprefix("log_").removeprefix("logit_")
        if spec.activation == "exp":  # rows hold natural logarithms
            shown[f"{name}, log10"] = _histogram(values / math.log(10))
        elif spec.activation == "sigmoid":
            shown[name] = _histogram(1 / (1 + np.exp(-values.astype(np.float64))), 0.0, 1.0)
        else:
            shown[name] = _histogram(values)
    return shown


def _changed_settings(primitive: Primitive) -> dict[str, Any]:
    usual = type(primitive)()
    return {item.name: getattr(primitive, item.name) for item in fields(primitive)
            if getattr(primitive, item.name) != getattr(usual, item.name)}  # fmt: skip


def _bands(model: SplatModel, finite: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Every band above the constant one, with its coefficients of the finite rows [n,2l+1,3]."""
    rest = model.rows["sh_rest"].detach().cpu()[finite]
    for band in range(1, model.sh_degree + 1):
        yield band, rest[:, band * band - 1 : (band + 1) ** 2 - 1]


def _sh_degree_used(model: SplatModel, finite: torch.Tensor) -> int:
    used = [0]
    for band, values in _bands(model, finite):
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
        if low != high or abs(low) >= BAND_STEP:
            used.append(band)
    return max(used)


def _ranges(model: SplatModel, finite: torch.Tensor) -> dict[str, tuple[float, float]]:
    if not finite.any():
        return {}
    colors = 0.5 + C0 * model.rows["sh0"].detach().cpu()[finite]
    ranges = {"base colour": colors} | {f"SH band {band}": values for band, values in _bands(model, finite)}
    return {name: (float(values.min()), float(values.max())) for name, values in ranges.items()}


def _attributes(header: dict[str, Any]) -> dict[str, int]:
    """Whatever stands there: anybody may have written it."""
    told = header.get("attributes")
    return {name: size for name, size in told.items() if type(size) is int} if isinstance(told, dict) else {}


def _lost(header: dict[str, Any], format_name: str) -> tuple[str, ...]:
    lost = []
    if FORMATS[format_name].fidelity == "lossy":
        lost.append(f"numbers are rounded ({format_name} is a lossy format)")
    origin = (header.get("provenance") or {}).get("Converted from")
    if origin:
        lost.append(f"these Gaussians stand for other splats: {origin}")
    return tuple(lost)


def _histogram(values: np.ndarray, low: float | None = None, high: float | None = None) -> Histogram:
    if not len(values):
        return Histogram(low or 0.0, high or 0.0, 0.0, (0,) * _BINS)
    low, high = float(values.min() if low is None else low), float(values.max() if high is None else high)
    counts, _ = np.histogram(values, bins=_BINS, range=(low, high if high > low else low + 1))
    return Histogram(low, high, float(np.median(values)), tuple(int(count) for count in counts))


def _frame(header: dict[str, Any], frame: str) -> str:
    transform = header.get("world_from_input")
    if frame == "capture":
        return "as written"
    if transform is None or np.allclose(transform, np.eye(4)):
        return "the capture's own"
    scale = abs(float(np.linalg.det(np.asarray(transform)[:3, :3]))) ** (1 / 3)
    return f"training frame, {scale:.4g} x the capture's (export returns to the capture's)"


def _box(low: np.ndarray, high: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(float(v) for v in low), tuple(float(v) for v in high)


def _box_text(box: tuple[tuple[float, ...], tuple[float, ...]] | None) -> str:
    if box is None:
        return "empty"
    size = [high - low for low, high in zip(*box, strict=True)]
    return f"{_vector(box[0])} to {_vector(box[1])}, size {' x '.join(f'{v:.4g}' for v in size)}"


def _vector(values: Any) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values) + ")"


def _histogram_text(histogram: Histogram, pattern: str) -> str:
    low, high, median = (pattern.format(v) for v in (histogram.low, histogram.high, histogram.median))
    return f"{low} |{histogram.sparkline()}| {high}, median {median}"
