"""Two questions apart from the tables of ``bench_compression.py``: what masks remove, and what an order is worth."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bench_compression_runs import MASKS_ALONE, Job, Packing, Row, Training, Watch, compressor_kinds, packed, replaced
from bench_compression_sorting import ORDERS, TRAINED_ORDERS, sorting_rows

from splat.cli.opening import run_config
from splat.compress.grid import GridCompressor

if TYPE_CHECKING:
    from bench_compression import Bench

SMOOTHLESS = "--compressor.smoothness=0"


def mask_jobs(bench: Bench) -> list[Job]:
    """Masks alone on a training that grows as it will: what they remove, and what that costs."""
    plain = replace(bench.training, name="masks-none", label="no masks", densifier="adaptive", max_splats=None,
                    like=None, steps=bench.args.steps)  # fmt: skip
    todo = [plain]
    for weight in bench.args.mask_weights:
        more = (*MASKS_ALONE, f"--compressor.mask-weight={weight:g}")
        todo.append(replaced(plain, name=f"masks-{weight:g}", label=f"weight {weight:g}", more=more))
    jobs = [Job(f"masks: {training.label}", partial(_mask_rows, bench, plain, training), "masks",
                {"label": training.label}, training.steps) for training in todo]  # fmt: skip
    packing = Packing("rvq", 0, flags=(*MASKS_ALONE[2:], "--compressor.masks=false", *bench.device()))
    packed_alike = Job("masks: packed without", partial(_mask_packing, bench, plain, packing), "masks",
                       {"label": "no masks, packed alike"})  # fmt: skip
    return [jobs[0], packed_alike, *jobs[1:]]


def _mask_rows(bench: Bench, plain: Training, training: Training, watch: Watch) -> list[Row]:
    row = bench.trained(training, watch)
    return [_against(plain, bench, {**row, "label": training.label})]


def _mask_packing(bench: Bench, plain: Training, packing: Packing, _: Watch) -> list[Row]:
    """The same training as the masks' file keeps numbers: that loss is no fault of theirs."""
    at = replace(bench.at, run=bench.runs / plain.name)
    (row,) = packed(packing, at, bench.files / "masks")
    return [_against(plain, bench, {**row, "label": "no masks, packed alike", "train_secs": None})]


def _against(plain: Training, bench: Bench, row: Row) -> Row:
    keys = ("label", "status", "reason", "splats", "psnr", "ssim", "train_secs", "reused")
    row = {key: row.get(key) for key in keys}
    first = bench.done.get(plain.name, {})
    if row["status"] == "ok" and first.get("status") == "ok":
        row |= {"removed": 1 - row["splats"] / first["splats"], "drop": first["psnr"] - row["psnr"]}
    return row


def sorting_jobs(bench: Bench) -> list[Job]:
    """Orders of the base, and of two trainings on the grid: pulled towards neighbours, and not."""
    found = [Job("sorting: the base", partial(_sorted_base, bench), "sorting", {"model": "base", "order": ""})]
    if "grid" not in compressor_kinds(None):
        return found
    for name, label, more in (("train-grid", "trained with smoothness", ()),
                              ("train-grid-rough", "trained without smoothness", (SMOOTHLESS,))):  # fmt: skip
        flags = ("--compressor", "grid", *bench.flags_of.get("grid", ()), *more)
        training = replaced(bench.training, name=name, label=label if more else "grid", more=flags)
        found.append(Job(f"sorting: grid {label}", partial(_sorted_training, bench, label, training), "sorting",
                         {"model": label, "order": ""}, training.steps))  # fmt: skip
    return found


def _sorted_base(bench: Bench, _: Watch) -> list[Row]:
    model = bench.at.held_out.model(bench.at.run)
    rows = sorting_rows("base", model, ORDERS, GridCompressor(), seed=bench.args.seed)
    return [{**row, "status": "ok", "psnr": bench.at.scores["psnr"]} for row in rows]


def _sorted_training(bench: Bench, label: str, training: Training, watch: Watch) -> list[Row]:
    run = bench.trained(training, watch)
    if run["status"] != "ok":
        return [{"model": label, "order": "", "status": run["status"], "reason": run["reason"]}]
    model = bench.at.held_out.model(bench.runs / training.name / "model.spack")
    own = run_config(bench.runs / training.name).compressor  # its bits
    rows = sorting_rows(label, model, TRAINED_ORDERS, own, seed=bench.args.seed)
    return [{**row, "status": "ok", "psnr": run["psnr"]} for row in rows]
