"""What of a model goes into a file: a box, a least opacity, fewer SH bands, the splats that matter most; and which
way is up there. Everything works on copies.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splat.errors import UserError
from splat.geometry.sh import MAX_DEGREE
from splat.io.formats import in_capture_frame
from splat.model.primitive import Primitive
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel

UP_AXES = {
    sign + name: tuple((-1.0 if sign else 1.0) * float(axis == index) for axis in range(3))
    for index, name in enumerate("xyz")
    for sign in ("", "-")
}
"""``--up``: word -> unit vector."""
CAPTURE_UP = (0.0, -1.0, 0.0)
"""Taken where a file does not say what is up: COLMAP's cameras look along z with y downwards."""
_LARGEST_BOX_FILE = 1_000_000


@dataclass(frozen=True)
class Box:
    """Upright in the capture's own frame; its border belongs to it."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]


@dataclass(frozen=True)
class Selection:
    """What is kept, in the order in which it is judged."""

    crop: Box | None = None
    min_opacity: float = 0.0
    max_splats: int | None = None
    sh_degree: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_opacity <= 1:
            raise UserError(f"--min-opacity {self.min_opacity:g} does not fit: opacities are 0 to 1")
        if self.max_splats is not None and self.max_splats < 1:
            raise UserError(f"--max-splats {self.max_splats} does not fit: keep 1 at least")
        if self.sh_degree is not None and not 0 <= self.sh_degree <= MAX_DEGREE:
            raise UserError(f"--sh-degree {self.sh_degree} does not fit: choices: 0 to {MAX_DEGREE}")

    @property
    def judges_rows(self) -> bool:
        """Whether it can leave splats out."""
        return self.crop is not None or self.min_opacity > 0 or self.max_splats is not None


def selected(
    model: SplatModel,
    selection: Selection,
    *,
    input_from_world: np.ndarray | None = None,
    importance: Callable[[SplatModel], Tensor] | None = None,
) -> tuple[SplatModel, list[str]]:
    """What ``selection`` keeps of ``model``, as a copy in the same frame and order, and a sentence for every part of
    it that left something out.

    ``input_from_world`` [4,4] leads from the model's frame to the capture's, in which the box stands (None: the
    same). ``importance`` gives a number per row, asked only when splats are too many; without it
    ``opacity_importance``. UserError when nothing would be left.
    """
    before, told = model.count, []
    copy = replace(model, rows={name: table.detach() for name, table in model.rows.items()})

    def keep(mask: Tensor, why: str) -> None:
        count = copy.count
        if not mask.all():
            copy.apply(RowEdit.keep(mask, "select"))
            told.append(f"{count - copy.count:,} of {count:,} splats left out: they {why}")
        if before and not copy.count:
            raise UserError(f"no splat would be left ({'; '.join(told)})")

    if selection.judges_rows:
        keep(finite_rows(copy), "have non-finite numbers")
    if selection.crop is not None:
        keep(inside(copy, selection.crop, input_from_world), "lie outside the box")
    if selection.min_opacity > 0:
        limit = selection.min_opacity
        keep(drawn_opacities(copy) >= limit, f"are fainter than {limit:g}")
    if selection.max_splats is not None and copy.count > selection.max_splats:
        matters = (importance or opacity_importance)(copy).to(copy.device)
        keep(largest(matters, selection.max_splats), f"matter less than the best {selection.max_splats:,}")
    if selection.sh_degree is not None and selection.sh_degree < copy.sh_degree:
        told.append(f"SH degree {copy.sh_degree} becomes {selection.sh_degree}")
        copy = with_sh_degree(copy, selection.sh_degree)
    return copy, told


def finite_rows(model: SplatModel) -> Tensor:  # [N] bool
    """Rows without NaN and infinity."""
    finite = torch.ones(model.count, dtype=torch.bool, device=model.device)
    for table in model.rows.values():
        finite &= torch.isfinite(table.detach().reshape(model.count, math.prod(table.shape[1:]))).all(1)
    return finite


def inside(model: SplatModel, box: Box, input_from_world: np.ndarray | None = None) -> Tensor:  # [N] bool
    """Splats whose centre is in the box."""
    means = in_capture_frame(model, input_from_world).rows["means"].detach()
    low, high = means.new_tensor(box.low), means.new_tensor(box.high)
    return ((means >= low) & (means <= high)).all(1)


def drawn_opacities(model: SplatModel) -> Tensor:  # [N]
    """Opacities as a file of plain Gaussians has them: the 3D filter, which thins splats out, included."""
    rows = {name: table.detach() for name, table in model.rows.items()}
    return model.primitive.gaussian_rows(rows, filter3d=model.filter3d)["logit_opacities"].sigmoid().reshape(-1)


def opacity_importance(model: SplatModel) -> Tensor:  # [N]
    """How much a splat matters where no view says it: opacity times the fourth root of its longest axis.

    Of a model of 20,000 splats (scenes/nook, 26.08 dB) the best 80, 60 and 40 % were worth, on held-out views, 25.55,
    22.82 and 18.17 dB by this; 25.45, 22.27, 17.88 by opacity alone; 23.73, 19.74, 15.41 by opacity times area.
    """
    rows = {name: table.detach() for name, table in model.rows.items()}
    gaussians = model.primitive.gaussian_rows(rows, filter3d=model.filter3d)
    opacities = gaussians["logit_opacities"].sigmoid().reshape(-1)
    return opacities * (gaussians["log_scales"].amax(1) / 4).exp()


def largest(values: Tensor, count: int) -> Tensor:  # [N] -> [N] bool
    """The ``count`` rows with the largest values; of equal ones the first."""
    mask = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    mask[values.nan_to_num(-math.inf).argsort(descending=True, stable=True)[:count]] = True
    return mask


def inverse_of(transform: Any) -> np.ndarray | None:  # [4,4]
    """Of a header's ``world_from_input``; None of None."""
    if transform is None:
        return None
    try:
        return np.linalg.inv(np.asarray(transform, np.float64))
    except np.linalg.LinAlgError as error:
        raise UserError(f"world_from_input {transform} cannot be turned round ({error})") from error


def with_sh_degree(model: SplatModel, degree: int) -> SplatModel:
    """The model with the bands above ``degree`` left out, or zero bands added up to it."""
    rows = {}
    for spec in model.primitive.fields(degree):
        table = model.rows[spec.name].detach()
        rows[spec.name] = table.new_zeros((len(table), *spec.shape))
        common = tuple(slice(min(sizes)) for sizes in zip(table.shape, rows[spec.name].shape, strict=True))
        rows[spec.name][common] = table[common]
    return replace(model, rows=rows, sh_degree=degree)


def merged(models: Sequence[SplatModel]) -> SplatModel:
    """All rows in one model, which has the highest SH degree among them. UserError where they cannot stand beside
    each other: another primitive, other settings of it, another 2D filter."""
    first, degree = models[0], max(model.sh_degree for model in models)
    for other in models[1:]:
        for what, ours, theirs in (
            ("primitive", first.primitive.kind, other.primitive.kind),
            ("primitive settings", _lasting(first.primitive), _lasting(other.primitive)),
            ("2D filter", first.filter2d, other.filter2d),
        ):
            if ours != theirs:
                raise UserError(f"models of different {what} cannot be merged: {ours} and {theirs}")
    padded = [with_sh_degree(model, degree) for model in models]
    rows = {name: torch.cat([model.rows[name] for model in padded]) for name in padded[0].rows}
    filters = [model.filter3d for model in models]
    joined = None
    if any(each is not None for each in filters):  # a filter of size 0 changes nothing
        joined = torch.cat([m.rows["means"].new_zeros(m.count) if m.filter3d is None else m.filter3d for m in models])
    return replace(first, rows=rows, sh_degree=degree, filter3d=joined)


def _lasting(primitive: Primitive) -> dict[str, Any]:
    """Its settings, without those that only steer a training."""
    settings = {item.name: getattr(primitive, item.name) for item in fields(primitive)}
    return {name: value for name, value in settings.items() if not name.startswith(("lr_", "init_"))}


# --- boxes and axes in words -------------------------------------------------------------------------------------


def parse_box(text: str) -> Box:
    """``x0,y0,z0,x1,y1,z1``, or a file with these six numbers or a JSON object with ``min`` and ``max``."""
    path = Path(text)
    numbers = _numbers(text)
    if numbers is None and path.is_file():
        numbers = _box_file(path)
    if numbers is None or len(numbers) != 6 or not all(map(math.isfinite, numbers)):
        raise UserError(f"--crop {text!r} is neither a file nor six numbers x0,y0,z0,x1,y1,z1")
    low, high = tuple(numbers[:3]), tuple(numbers[3:])
    if any(a > b for a, b in zip(low, high, strict=True)):
        raise UserError(f"--crop {text!r}: the first corner {low} must not lie beyond the second {high} on any axis")
    return Box(low, high)


def _box_file(path: Path) -> list[float] | None:
    try:
        if path.stat().st_size > _LARGEST_BOX_FILE:
            raise UserError(f"{path}: too large for a file with a box")
        text = path.read_text(encoding="utf-8")
        if not text.lstrip().startswith("{"):
            return _numbers(text)
        tables = json.loads(text)
        return [float(number) for name in ("min", "max") for number in tables[name]]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a box ({error})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no box: a JSON object needs 'min' and 'max', three numbers each") from error


def _numbers(text: str) -> list[float] | None:
    try:
        return [float(part) for part in re.split(r"[\s,;\[\]]+", text.strip(" \t\r\n[]"))]
    except ValueError:
        return None


def up_vector(word: str) -> tuple[float, float, float]:
    """The axis a word stands for; UserError with the choices."""
    axis = UP_AXES.get(word.lower().removeprefix("+"))
    if axis is None:
        raise UserError(f"--up {word!r} is no axis; choices: {', '.join(UP_AXES)}")
    return axis


def turned_to_up(header: dict[str, Any], word: str) -> dict[str, Any]:
    """The header of files whose up is the axis ``word``.

    The rows stay; the turn goes into ``world_from_input``, so that every format ends up in the same frame and the
    native file still knows its way back. The capture's up comes from ``header["up_axis"]``, else ``CAPTURE_UP``.
    """
    target = up_vector(word)
    turn = turn_between(header.get("up_axis") or CAPTURE_UP, target)
    world_from_input = np.asarray(header.get("world_from_input", np.eye(4)), np.float64)
    inverse = np.eye(4)
    inverse[:3, :3] = turn.T
    turned = {**header, "world_from_input": (world_from_input @ inverse).tolist(), "up_axis": list(target)}
    if header.get("start_view") is not None:
        view = header["start_view"]
        turned["start_view"] = {**view, **{key: (turn @ view[key]).tolist() for key in ("position", "target", "up")}}
    return turned


def turn_between(up: Sequence[float], target: Sequence[float]) -> np.ndarray:  # [3,3]
    """The rotation that takes ``up`` to the axis ``target``.

    First the shortest way to the nearest axis, which takes a tilt out, then from axis to axis: going straight would
    turn captures with nearly opposite axes about whatever direction their tilt happens to have.
    """
    start = np.asarray(up, np.float64)
    length = np.linalg.norm(start)
    if not np.isfinite(length) or length == 0:
        raise UserError(f"an up axis {list(up)} points nowhere")
    start = start / length
    nearest = np.zeros(3)
    nearest[np.argmax(np.abs(start))] = np.sign(start[np.argmax(np.abs(start))])
    return _shortest_turn(nearest, np.asarray(target, np.float64)) @ _shortest_turn(start, nearest)


def _shortest_turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:  # [3], [3] unit -> [3,3]
    cosine = float(start @ end)
    if cosine < -1 + 1e-9:  # half a turn about the first axis across: y down, z ahead becomes y up, z back
        across = np.eye(3)[np.argmin(np.abs(start))]
        across = across - (across @ start) * start
        across /= np.linalg.norm(across)
        return 2 * np.outer(across, across) - np.eye(3)
    x, y, z = np.cross(start, end)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + cross + cross @ cross / (1 + cosine)  # Rodrigues
