"""Does training stay honest after edits by hand? Train, move an object, delete another, train on, and measure.

    python scripts/edit_honesty.py --out /tmp/honesty

Trains the embedded capture for ``--before`` steps; from that checkpoint one run goes on as it is (the control), and one
after two edits: the teapot is dragged across the table, and the fruit basket is deleted. Both take ``--after`` steps
more. Told are: how far the moved splats went from where they were put; PSNR of held-out views, over the pixels that
neither edit changed, before the edits and at both ends; how many splats and how much opacity there is where the
basket was. Pictures of some held-out views go beside ``honesty.json``.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splat.config.assemble import Parts, fixed_background, gather, trainer_of
from splat.config.build import build_config, nested
from splat.config.presets import read_preset
from splat.config.schema import TrainConfig
from splat.edit.ops import Delete, Drag, Handle, Op, Select
from splat.edit.protection import Protection, Shield, changed_rows, packed_mask
from splat.edit.session import EditSession, edit_command
from splat.edit.shapes import Box
from splat.edit.sight import Sight
from splat.evaluate.views import render_color, to_8bit
from splat.io.png import write_png
from splat.live.commands import CommandQueue
from splat.train.checkpoint import read_checkpoint, write_checkpoint
from splat.train.events import Edited, Stepped

MOVED = ((-0.2, -0.17, 0.74), (0.2, 0.17, 1.02))
"""Corners of a box about the teapot, world units: above the table, which is at 0.735."""
SHIFT = (0.08, 0.32, 0.0)
GRIP = 0.12
"""Radius of the drag's handle, about the middle of the teapot: the rest follows as rigidly as it can."""
DELETED = ((0.28, -0.09, 0.745), (0.76, 0.36, 1.25))
"""About the basket with its fruit and its handle."""
EDGE = 0.005
"""World units. Splats of the table stand at the lower face of that box and tremble across it by tenths of a
millimetre: what lies less deep is not in the region."""
CHANGED_SHARE = 0.1
"""Of a pixel's colour: where edited splats have more, it is no background."""
PICTURES = 3
LOOK_EVERY = 25


@dataclass(eq=False)
class Told:
    """What is measured along one run."""

    psnr: dict[str, float] = field(default_factory=dict)
    """Over the pixels that no edit changed, by moment, dB."""
    region: list[tuple[int, int, float]] = field(default_factory=list)
    """Step, splats in the deleted region, their opacity."""
    shift: float = 0.0
    """Of the moved splats' centroid from where it was put, world units."""
    largest_change: float = 0.0
    """Of any raw value of a moved splat."""
    splats: int = 0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scene", default=str(Path(__file__).parents[1] / "scenes" / "nook"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--before", type=int, default=1000)
    parser.add_argument("--after", type=int, default=500)
    parser.add_argument("--max-splats", type=int, default=30_000)
    parser.add_argument("--size", type=int, default=320, help="longest side of the pictures, px")
    parser.add_argument("--densifier", default="budget")
    asked = parser.parse_args(arguments)
    config = configured(asked.scene, asked.before + asked.after, asked.max_splats, asked.size, asked.densifier)
    found = measured(config, asked.before, asked.out)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "honesty.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines(found)))


def configured(scene: str, steps: int, max_splats: int, size: int, densifier: str) -> TrainConfig:
    settings = {"capture": scene, "steps": steps, "max_splats": max_splats, "scene.max_size": size,
                "densifier.kind": densifier}  # fmt: skip

    return build_config([("cpu", read_preset("cpu")), ("honesty", nested(settings)), ("", {"preset": "cpu"})])


def measured(config: TrainConfig, before: int, out: Path, ops: Sequence[Op] | None = None) -> dict[str, Any]:
    """The whole experiment; ``ops`` replaces the two edits (a selection before each)."""
    parts = gather(config, _silent)
    try:
        background = fixed_background(parts.config)
        trained(parts, until=before)
        checkpoint = read_checkpoint(write_checkpoint(out, parts.state, ""))
        ops = default_ops() if ops is None else ops
        masks = held_out_masks(parts, ops)
        told = {}
        moments = {"before": parts.state.model.detached()}
        start = background_psnr(parts, masks, background)
    finally:
        parts.close()
    for name in ("edited", "control"):
        parts = gather(config, _silent, checkpoint=checkpoint)
        try:
            told[name] = run = Told({"before": start})
            session = EditSession(rasterizer=parts.rasterizer)
            commands = CommandQueue()
            if name == "edited":
                for op in ops:
                    commands.put(edit_command(session, op))
            follow(parts, commands, run, moments if name == "edited" else {}, masks=masks)
            run.psnr["after"] = background_psnr(parts, masks, background)
            run.splats = parts.state.model.count
            moments["after" if name == "edited" else "control"] = parts.state.model.detached()
            if name == "control":
                pictures(parts, moments, masks, background, out)
        finally:
            parts.close()
    return summary(told, before=before, steps=config.steps, densifier=config.densifier.kind, masks=masks)


def default_ops() -> list[Op]:
    middle = (np.asarray(MOVED[0]) + MOVED[1]) / 2
    handle = Handle(tuple(middle.tolist()), tuple((middle + SHIFT).tolist()), GRIP)
    drag = Drag((handle,), mode="arap", band=0.0)  # it stands on the table, and the table stays
    return [Select(box_between(*MOVED)), drag, Select(box_between(*DELETED)), Delete()]


def box_between(low: Sequence[float], high: Sequence[float]) -> Box:
    pose = np.eye(4)
    pose[:3, 3] = (np.asarray(low) + high) / 2
    return Box(tuple(map(tuple, pose.tolist())), tuple((np.asarray(high) - low).tolist()))


def trained(parts: Parts, *, until: int) -> None:
    events = trainer_of(parts, CommandQueue()).run()
    for event in events:
        if isinstance(event, Stepped) and event.step == until:
            break
    events.close()


def follow(
    parts: Parts, commands: CommandQueue, told: Told, moments: dict[str, Any], *, masks: Protection
) -> None:  # fmt: skip
    """Drive to the end, watching the deleted region and what was moved."""
    state, moved, put = parts.state, None, {}
    for event in trainer_of(parts, commands).run():
        if isinstance(event, Edited) and event.reason == "drag":
            rows = state.held.nonzero().squeeze(1)
            moved = state.labels.ids[rows].clone()
            put = {name: table.detach()[rows].clone() for name, table in state.model.rows.items()}
        deleted = isinstance(event, Edited) and event.reason == "delete"
        if deleted:
            moments["edited"] = state.model.detached()
            told.psnr["edited"] = background_psnr(parts, masks, fixed_background(parts.config))
        if deleted or (isinstance(event, Stepped) and event.step % LOOK_EVERY == 0):
            told.region.append((event.step, *region_of(parts)))
    if moved is not None:
        rows = state.labels.rows_of(moved)
        assert bool((rows >= 0).all()), "a moved splat is gone"
        now = {name: table.detach()[rows] for name, table in state.model.rows.items()}
        told.shift = float((now["means"].double().mean(0) - put["means"].double().mean(0)).norm())
        told.largest_change = max(float((now[name] - put[name]).abs().max()) for name in put if put[name].numel())


def region_of(parts: Parts) -> tuple[int, float]:
    """Splats in the deleted region that show at all, and the sum of their opacities."""
    model = parts.state.model
    means = model.rows["means"].detach()
    low, high = (torch.tensor(corner, device=means.device) for corner in DELETED)
    inside = ((means > low + EDGE) & (means < high - EDGE)).all(1)
    return int(inside.sum()), float(model.opacities.detach()[inside].sum())


def held_out_masks(parts: Parts, ops: Sequence[Op]) -> Protection:
    """Pixels of the held-out views that the edits change: fewer than training leaves out, so what its margins cost is
    measured, too."""
    from splat.edit.bench import Bench

    bench = Bench(parts.state.model.detached())
    session, protection = EditSession(rasterizer=parts.rasterizer), Protection()
    for number, op in enumerate(ops):
        edit = session.do(bench, op)
        if edit is None:
            raise SystemExit(f"the edit {op} changes nothing")
        old, new = changed_rows(edit)
        inputs = bench.model.render_inputs()
        bench.apply(edit)
        drawings = [Sight(own, parts.rasterizer, bench.model.filter2d).marked(rows) for own, rows in
                    ((inputs, old), (bench.model.render_inputs(), new)) if bool(rows.any())]  # fmt: skip
        found = {}
        for view, camera in enumerate(parts.scene.test_cameras if drawings else ()):
            seen = [each.share(camera) for each in drawings]
            mask = torch.stack(seen).amax(0) > CHANGED_SHARE if seen else None
            if mask is not None and bool(mask.any()):
                found[view] = packed_mask(mask)
        protection = protection.with_shield(number, Shield(found))
    return protection


def background_psnr(parts: Parts, masks: Protection, background: tuple[float, float, float]) -> float:
    """Mean over the held-out views of the PSNR over the pixels that count, dB."""
    scores = []
    for view, drawn, truth in views_of(parts, background):
        kept = masks.kept(view, parts.scene.test_cameras[view], drawn.shape[1], drawn.shape[0])
        squared = (drawn - truth).square().mean(2)
        scores.append(-10 * math.log10(float(squared.mean() if kept is None else squared[kept].mean())))
    return float(np.mean(scores))


def views_of(parts: Parts, background: tuple[float, float, float]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Held-out views as drawn and as photographed, [H,W,3] in 0..1."""
    for view, index in enumerate(parts.scene.test_indices):
        truth = torch.from_numpy(parts.store.frame(index).pixels).float() / 255
        drawn = render_color(parts.state.model, parts.rasterizer, parts.scene.cameras[index], background)
        yield view, torch.as_tensor(drawn).cpu().clamp(0, 1), truth


def pictures(
    parts: Parts, moments: dict[str, Any], masks: Protection, background: tuple[float, float, float], out: Path
) -> None:
    """Rows: some held-out views. Columns: photograph, before, right after the edits, at the end, the control's end."""
    out.mkdir(parents=True, exist_ok=True)
    indices = parts.scene.test_indices
    shown = [number * len(indices) // PICTURES for number in range(min(PICTURES, len(indices)))]
    rows = []
    for view in shown:
        camera, truth = parts.scene.cameras[indices[view]], parts.store.frame(indices[view]).pixels
        kept = masks.kept(view, camera, camera.width, camera.height)
        dimmed = truth if kept is None else (truth * np.where(kept.numpy(), 1.0, 0.3)[..., None]).astype(np.uint8)
        drawn = [
            to_8bit(render_color(moments[name], parts.rasterizer, camera, background))
            for name in ("before", "edited", "after", "control") if name in moments
        ]  # fmt: skip
        rows.append(np.concatenate([dimmed, *drawn], axis=1))
    write_png(out / "honesty.png", np.concatenate(rows, axis=0))


def summary(told: dict[str, Told], *, before: int, steps: int, densifier: str, masks: Protection) -> dict[str, Any]:
    edited, control = told["edited"], told["control"]
    return {
        "densifier": densifier, "steps_before": before, "steps_after": steps - before, "shift": edited.shift,
        "largest_change": edited.largest_change, "psnr": {name: run.psnr for name, run in told.items()},
        "psnr_change": edited.psnr["after"] - edited.psnr["before"],
        "psnr_against_control": edited.psnr["after"] - control.psnr["after"],
        "region": {name: run.region for name, run in told.items()},
        "splats": {name: run.splats for name, run in told.items()},
    }  # fmt: skip


def lines(found: dict[str, Any]) -> Iterator[str]:
    psnr, region = found["psnr"], found["region"]
    yield f"densifier {found['densifier']}, {found['steps_before']} steps, then {found['steps_after']} after the edits"
    yield f"moved splats: centroid shift {found['shift']:.3g}, largest change of a value {found['largest_change']:.3g}"
    yield (
        f"background PSNR: {psnr['edited']['before']:.2f} dB before, {psnr['edited']['edited']:.2f} right after the "
        f"edits, {psnr['edited']['after']:.2f} at the end ({found['psnr_change']:+.2f}), "
        f"{psnr['control']['after']:.2f} without edits ({found['psnr_against_control']:+.2f})"
    )
    for name in ("edited", "control"):
        if region[name]:
            (_, first, glow), (step, last, dim) = region[name][0], region[name][-1]
            yield f"deleted region, {name}: {first} splats (opacity {glow:.1f}) -> {last} ({dim:.1f}) at step {step}"


def _silent(_: str) -> None:
    return None


if __name__ == "__main__":
    main()
