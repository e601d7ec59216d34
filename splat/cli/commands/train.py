"""``splat train``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from splat.cli.parsing import Parser, UsageError, split_settings
from splat.cli.viewer_flags import add_viewer_flags, viewer_options
from splat.errors import UserError

_PAGE = """
usage: splat train SCENE [-o RUN] [--preset NAME] [options]
       splat train --resume [RUN] [--steps N] [--max-minutes M] [--target-psnr X]

SCENE is a COLMAP folder, a transforms.json or its folder, a Blender scene, a folder of photos, or a video.

what to train
{presets}
  --steps N              optimizer steps; every schedule stretches with it
  --max-splats N         never more splats than this
  --max-minutes M        finish cleanly after this time, with evaluation and export
  --target-psnr X        finish cleanly when the training views' last visits reach X dB on average
  --target-mb X          never more splats than fit into a model.safetensors of X MB; a compressor that can aim at a
                         size makes its own file of it
  --sh-degree D          0 to 3                          --seed S           one seed, one result, bit for bit
  --primitive KIND       what one splat is
{primitives}
  --densifier KIND       when and where splats appear and vanish
{densifiers}
  --compressor KIND      how small the trained model becomes; what is shown and written is what the small file holds
{compressors}
  --start-from MODEL     begin with the splats of a model file or run, not with the capture's points; all SH bands at
                         once. Usually with --densifier none, and --set optim.lr-start=1 for the last learning rates
  --filter2d F           how splats meet the area of a pixel
{filters}
the capture
  -r, --downscale N      divide picture sides by N; auto (default) keeps them below 1600 px
  --max-size PX          no picture side longer than this
  --images DIR  --masks DIR  --test-every N  -w, --white-background
the machine
  --device D             auto, cpu or cuda               --threads N        0 is one per core
  --rasterizer R         auto, native, gsplat or reference
the run
  -o, --output RUN       folder of the run; without it a fresh runs/<scene>/<preset>
  --resume [RUN]         go on from the last checkpoint, to the same bits; no RUN takes the newest
  --overwrite            replace the run that is in -o
  --config FILE          start from a config.toml, such as another run's
  --dry-run              say what would be trained and the memory it needs, draw the first picture, stop
  --no-viewer            without the page that watches and edits the run in a browser; -q has none either, as nobody
                         would learn its address (except with --no-token)
  --host H --port P      where that page is (127.0.0.1, this machine alone; 8080, or the next that is free)
  --no-token             let everybody in who can reach the port
  --viewer-share S       part of the time that stays training's while somebody moves in the page (default 0.5); a page
                         at rest takes a few per cent, and no page takes nothing
  --keep-viewer          go on serving the finished model until Ctrl-C
  --export F[,F...]      formats written at the end beside model.safetensors and the PLY; splat export --help lists them
  -q, --quiet            only errors
every setting
  --help-all             lists all settings with their values under the preset
  --SECTION.KEY VALUE    sets one, as does --set SECTION.KEY=VALUE
Flags take dashes or underscores; the names other trainers use (--iterations, -s, -m, --data-factor ...) work too.
Exit codes: 0 done, 2 something to mend in the input, 1 a failure, 130/143 interrupted (a checkpoint is written).
"""


def __getattr__(name: str) -> str:
    """``HELP``, put together when it is asked for: it reads the tables of plug-ins."""
    if name == "HELP":
        return help_page()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def help_page() -> str:
    """What ``splat train --help`` prints; imports nothing heavy."""
    from splat.cli.purposes import purposes, table
    from splat.config.presets import preset_names
    from splat.model.filter2d import FILTERS_2D

    presets = f"{', '.join(preset_names())} (--help-all says what each is for)"
    return _PAGE.format(
        presets=table({"--preset NAME": presets}, indent=2, width=21),
        primitives=table(purposes("primitive")),
        densifiers=table(purposes("densifier")),
        compressors=table(purposes("compressor")),
        filters=table({name: row.purpose for name, row in FILTERS_2D.items()}),
    )


# Flag names -> setting; the first is ours, the others are what other trainers call the same thing.
SETTING_FLAGS: dict[str, tuple[str, ...]] = {
    "steps": ("--steps", "--iterations", "--max-steps", "--max-num-iterations", "--total-train-iters", "--num-iters"),
    "seed": ("--seed",),
    "max_splats": ("--max-splats", "--max-cap", "--cap-max", "--max-gs-num", "--strategy.cap-max"),
    "max_minutes": ("--max-minutes",),
    "target_psnr": ("--target-psnr",),
    "target_mb": ("--target-mb",),
    "densifier.kind": ("--densifier", "--strategy"),
    "primitive.kind": ("--primitive",),
    "compressor.kind": ("--compressor",),
    "start_from": ("--start-from",),
    "scene.downscale": ("--downscale", "-r", "--resolution", "--data-factor", "--downscale-factor"),
    "scene.max_size": ("--max-size", "--max-resolution", "--max-width"),
    "scene.images": ("--images", "--images-path", "--colmap-image-path"),
    "scene.masks": ("--masks",),
    "scene.test_every": ("--test-every", "--eval-split-every"),
    "optim.sh_degree": ("--sh-degree",),
    "render.filter2d": ("--filter2d",),
    "render.device": ("--device",),
    "render.threads": ("--threads",),
    "render.rasterizer": ("--rasterizer",),
    "output.export": ("--export",),
    "output.eval_at": ("--eval-at", "--test-iterations", "--eval-steps"),
    "output.export_at": ("--export-at", "--save-iterations", "--save-steps"),
}
SCENE_FLAGS = ("-s", "--source", "--source-path", "--data", "--data-dir", "--data-path")
OUTPUT_FLAGS = (
    "-o", "--output", "-m", "--model-path", "--out", "--output-dir", "--output-path", "--result-dir", "--export-path",
)  # fmt: skip
FREE_ON_RESUME = ("steps", "max_minutes", "max_splats", "target_psnr", "target_mb", "capture", "render.", "output.")
"""Settings a resumed run may change; the others would make it another run."""


def run(argv: Sequence[str]) -> int:
    flags, settings = split_settings(_known_dotted(argv))
    args = _parser().parse(flags)
    settings = {**_settings_of(args), **settings}
    viewer_options(args)  # wrong ones are told at once
    if args.help_all:
        _print_all_settings(args, settings)
        return 0
    from splat.cli.training import TrainCommand

    say = (lambda _: None) if args.quiet else _say
    return TrainCommand(args, settings, say).run()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _known_dotted(argv: Sequence[str]) -> list[str]:
    """Dotted names of other trainers that are flags here."""
    return ["--max-splats" + token[len(dotted):] if token.startswith(dotted) else token
            for token in argv for dotted in ("--strategy.cap-max",)]  # fmt: skip


def _parser() -> Parser:
    parser = Parser("train")
    parser.add_argument("scene", nargs="?")
    parser.add_argument(*SCENE_FLAGS, dest="scene_flag")
    parser.add_argument(*OUTPUT_FLAGS, dest="output")
    parser.add_argument("--preset", "-p")
    parser.add_argument("--config")
    parser.add_argument("--resume", nargs="?", const="")
    for name in ("--overwrite", "--dry-run", "--help-all", "--no-viewer", "--keep-viewer", "--eval"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--disable-viewer", "--headless", dest="no_viewer", action="store_true")
    parser.add_argument("--quiet", "-q", action="store_true")
    add_viewer_flags(parser)
    parser.add_argument("--viewer-share", type=float)
    parser.add_argument("--white-background", "-w", action="store_true")
    for key, names in SETTING_FLAGS.items():
        many = "+" if key in ("output.eval_at", "output.export_at") else None
        own = [name for name in names if "." not in name]
        parser.add_argument(*own, dest=f"set:{key}", nargs=many)
    return parser


def _settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """Settings given as flags, by dotted name, still as text."""
    settings = {name[4:]: value for name, value in vars(args).items() if name.startswith("set:") and value is not None}
    if settings.get("start_from"):
        settings["start_from"] = str(Path(settings["start_from"]).expanduser().resolve())
    if settings.get("scene.downscale") in ("-1", "0"):  # what Inria's trainer calls automatic
        settings["scene.downscale"] = "auto"
    if args.white_background:
        settings["optim.background"] = "white"
    if args.scene is not None and args.scene_flag is not None:
        raise UsageError(f"two captures named: '{args.scene}' and '{args.scene_flag}'")
    capture = args.scene if args.scene is not None else args.scene_flag
    if capture is not None:
        settings["capture"] = str(Path(capture).expanduser().resolve())
    return settings


def layers_of(args: argparse.Namespace, settings: dict[str, Any]) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
    """The preset's name and the layers of a fresh run: preset, file, flags."""
    from splat.config.build import nested
    from splat.config.presets import read_preset
    from splat.config.toml_io import read_toml

    layers: list[tuple[str, dict[str, Any]]] = []
    preset = args.preset or "default"
    if args.config is not None:
        if args.preset is not None:
            raise UsageError("--config holds every value; it cannot be mixed with --preset")
        tables = read_toml(Path(args.config))
        preset = tables.get("preset", "default")
        layers.append((str(args.config), tables))
    else:
        layers.append((f"preset {preset}", read_preset(preset)))
    if "steps" in settings:  # whoever asks for steps means them
        settings = {"steps_per_view": None, **settings}
    layers.append(("command line", {**nested(settings), "preset": preset}))
    source = next((tables["start_from"] for _, tables in reversed(layers) if tables.get("start_from")), None)
    if source is not None:
        from splat.config.starting import start_layer

        layers.insert(0, (str(source), start_layer(source)))
    return preset, layers


def resumed_config(stored: Any, settings: dict[str, Any]) -> Any:
    """The configuration of a run with what may change on resume; UserError for the rest."""
    from splat.config.build import build_config, config_tables, flattened, nested

    changed = build_config([("the run's configuration", config_tables(stored)), ("command line", nested(settings))])
    before, after = flattened(stored), flattened(changed)
    for key in before | after:
        free = any(key == name or (name.endswith(".") and key.startswith(name)) for name in FREE_ON_RESUME)
        if before.get(key) != after.get(key) and not free:
            raise UserError(
                f"{key} cannot change on resume (the run has {before.get(key)!r}, you gave {after.get(key)!r}); "
                "start a new run for that"
            )
    return replace(changed, preset=stored.preset)


def _print_all_settings(args: argparse.Namespace, settings: dict[str, Any]) -> None:
    from splat.config.build import build_config
    from splat.config.docs import setting_docs
    from splat.config.presets import preset_names, preset_purpose

    print(help_page().strip("\n"))
    print("\npresets")
    for name in preset_names():
        print(f"  {name:<15} {preset_purpose(name)}")
    _, layers = layers_of(args, settings)
    section = None
    for doc in setting_docs(build_config(layers)):
        head = doc.key.rpartition(".")[0]
        if head != section:
            print(f"\n[{head}]" if head else "\nrun")
            section = head
        value = "" if doc.value is None or doc.value == "" else f" = {doc.value}"
        print(f"  --{doc.key.replace('_', '-')}{value}  ({doc.choices})")
        if doc.text:
            print(f"      {doc.text}")
