"""Operations of a command line: logs, single ones, with views by the names of photographs and masks as pictures."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from splat.cli.conversion import Say, frame_of, run_folder_of
from splat.cli.opening import OpenedModel, run_config, run_scene
from splat.cli.parsing import UsageError
from splat.config.assemble import open_capture
from splat.config.build import build_config
from splat.edit.flat import runs_of_mask
from splat.edit.json_ops import op_from_json, op_to_json, read_log
from splat.edit.ops import Op
from splat.edit.shapes import Click, ViewSpec
from splat.errors import UserError
from splat.geometry.camera import Camera
from splat.io.cameras_json import read_cameras_json
from splat.io.png import read_png
from splat.scene.types import Scene

_WHITE = 128
"""From this value on, a pixel of a mask is inside."""


class Cameras:
    """The photographs an opened model was made from, in the model's own frame; looked for when first asked for."""

    def __init__(self, opened: OpenedModel, scene: Path | None, say: Say) -> None:
        self._opened, self._scene_dir, self._say = opened, scene, say

    @cached_property
    def scene(self) -> Scene | None:
        """The capture; None where it is not known or gone."""
        settings = {} if self._scene_dir is None else {"capture": str(self._scene_dir.expanduser().resolve())}
        run_dir = run_folder_of(self._opened.source)
        if run_dir is not None:
            config = run_config(run_dir, settings)
            there = self._scene_dir is not None or Path(config.capture).exists()
            return run_scene(config, self._say) if there else None
        if self._scene_dir is None:
            return None
        return open_capture(build_config([("command line", settings)]), self._say, allow_sfm=True)

    @cached_property
    def all(self) -> Sequence[Camera]:
        """Every view; none where they are not known."""
        in_capture = frame_of(self._opened) == "capture"
        if in_capture:
            run_dir = run_folder_of(self._opened.source)
            file = None if run_dir is None else run_dir / "cameras.json"
            return read_cameras_json(file) if file is not None and file.is_file() else ()
        return () if self.scene is None else self.scene.cameras

    @property
    def training(self) -> Sequence[Camera]:
        """Those a model was trained from."""
        if frame_of(self._opened) == "capture" or self.scene is None:
            return self.all
        return self.scene.train_cameras

    def named(self, name: str, where: str) -> Camera:
        """The view of that name, with or without its folder and ending."""
        found = [camera for camera in self.all if name in (camera.name, Path(camera.name).name, Path(camera.name).stem)]
        if len(found) == 1:
            return found[0]
        if not self.all:
            raise UserError(f"{where}: view {name!r}: the photographs of this model are not known; name the capture "
                            "with --scene, or give camera_from_world, K, width and height")  # fmt: skip
        names = [camera.name for camera in self.all]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choices: {', '.join(names[:20])}"
        raise UserError(f"{where}: {'several views are' if found else 'no view is'} called {name!r}; {hint}")


def given_ops(log: str | None, texts: Sequence[str], cameras: Cameras) -> list[Op]:
    """The operations of a log, then the single ones; UserError for what is wrong with one."""
    ops = [] if log is None else read_log(log)
    return ops + [op_of_text(text, f"--op {number}", cameras) for number, text in enumerate(texts, start=1)]


def op_of_text(text: str, where: str, cameras: Cameras) -> Op:
    """An operation from JSON, or from the file that ``@FILE`` names. A view may be the name of a photograph, and a
    mask a PNG."""
    if text.startswith("@"):
        where, text = text[1:], _read_text(Path(text[1:]))
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: no JSON ({error}): {text[:60]}") from error
    return op_from_json(_filled(data, where, cameras), where)


def _filled(data: Any, where: str, cameras: Cameras) -> Any:
    """``data`` with views and masks in place of names."""
    shape = data.get("shape") if isinstance(data, Mapping) else None
    if not isinstance(shape, Mapping):
        return data
    shape = dict(shape)
    if isinstance(shape.get("view"), str):
        shape["view"] = _view_json(cameras.named(shape["view"], where))
    if isinstance(shape.get("views"), list):
        shape["views"] = [_view_json(cameras.named(view, where)) if isinstance(view, str) else view
                          for view in shape["views"]]  # fmt: skip
    if isinstance(masks := shape.get("masks"), list) and all(isinstance(mask, str) for mask in masks):
        shape["runs"] = [list(_mask_runs(Path(mask))) for mask in masks]
        del shape["masks"]
    return {**data, "shape": shape}


def _view_json(camera: Camera) -> dict[str, Any]:
    return op_to_json(Click(ViewSpec.of(camera), (0.0, 0.0)))["view"]


def _mask_runs(path: Path) -> tuple[int, ...]:
    import torch

    pixels = torch.as_tensor(read_png(path))
    grey = pixels if pixels.ndim == 2 else pixels[..., :3].amax(2)
    return runs_of_mask(grey >= _WHITE)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no text ({error.reason})") from error


def drag_solver(args: Any, cameras: Cameras, rasterizer: Any, say: Say) -> Callable[..., Any] | None:
    """What solves drags by ``--edit-prior``; None without one."""
    if args.edit_prior is None:
        if args.edit_prior_path is not None or args.prior_steps is not None:
            raise UsageError("--edit-prior-path and --prior-steps belong to --edit-prior NAME")
        return None
    from splat.edit.prior.refine import refined_values
    from splat.edit.prior.registry import prior_named

    prior_named(args.edit_prior)  # a wrong name is told before anything is done
    folder = None if args.edit_prior_path is None else Path(args.edit_prior_path)

    def solved(model: Any, mask: Any, drag: Any) -> Any:
        return refined_values(model, mask, drag, prior=args.edit_prior, path=folder, cameras=list(cameras.training),
                              rasterizer=rasterizer, say=say, steps=args.prior_steps)  # fmt: skip

    return solved
