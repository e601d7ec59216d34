"""Builds the embedded capture ``scenes/nook``: ``python scenes/make_nook.py`` (needs mitsuba, opencv and LLVM)."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import mitsuba
import numpy as np

SEED = 20260


def main() -> None:
    """Parse the options, render, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).parent / "nook")
    parser.add_argument("--samples", type=int, default=32, help="paths per pixel")
    parser.add_argument("--variant", default="llvm_ad_rgb", help="mitsuba variant (scalar_rgb needs no LLVM)")
    parser.add_argument("--quality", type=int, default=90, help="JPEG quality")
    parser.add_argument("--preview", type=Path, help="write small pictures of some views here instead")
    parser.add_argument("--depth", type=Path, help="write the true depth of every view here (view_000.npy ...) instead")
    parser.add_argument("--size", type=int, nargs=2, default=(240, 180), help="with --preview: width and height")
    parser.add_argument("--views", default="", help="with --preview: view numbers, comma separated")
    options = parser.parse_args()
    mitsuba.set_variant(options.variant)
    scene = build_scene()
    if options.preview:
        preview(scene, options)
        return
    if options.depth:
        write_depths(scene, options.depth)
        return
    from generator.capture import write_capture

    views = render_views(scene, options)
    write_capture(mitsuba, scene, views, options.out, seed=SEED)


def build_scene():
    """The room and the table as a mitsuba scene."""
    from generator.room import add_room
    from generator.stage import Stage
    from generator.still_life import add_still_life

    stage = Stage(mitsuba)
    add_room(stage, np.random.default_rng(SEED))
    add_still_life(stage, np.random.default_rng(SEED + 1))
    return stage.build()


def poses() -> list[np.ndarray]:
    """``camera_from_world`` of all views."""
    from generator.path import camera_path

    return camera_path(np.random.default_rng(SEED + 2))


def preview(scene, options) -> None:
    """Render chosen views, small by default."""
    from generator.camera_render import picture, sensor

    every = poses()
    options.preview.mkdir(parents=True, exist_ok=True)
    for index in [int(i) for i in options.views.split(",")] if options.views else range(0, len(every), 6):
        camera = sensor(mitsuba, every[index], *options.size, 480)
        pixels = picture(mitsuba, scene, camera, samples=options.samples, seed=index)
        cv2.imwrite(str(options.preview / f"view_{index:03d}.png"), pixels[..., ::-1])


def write_depths(scene, folder: Path) -> None:
    """``view_000.npy`` and so on: depth along the optical axis [H,W], metres, 0 where there is nothing."""
    from generator.capture import depth_map

    folder.mkdir(parents=True, exist_ok=True)
    for index, pose in enumerate(poses()):
        np.save(folder / f"view_{index:03d}.npy", depth_map(mitsuba, scene, pose))


def render_views(scene, options) -> list[tuple[str, np.ndarray]]:
    """(name, camera_from_world) of every view; the JPEGs are on disk when this returns."""
    from generator.camera_render import picture, sensor
    from generator.path import HEIGHT, WIDTH

    folder = options.out / "images"
    folder.mkdir(parents=True, exist_ok=True)
    views = []
    for index, pose in enumerate(poses()):
        camera = sensor(mitsuba, pose, WIDTH, HEIGHT, WIDTH)
        pixels = picture(mitsuba, scene, camera, samples=options.samples, seed=index)
        name = f"view_{index:03d}.jpg"
        cv2.imwrite(str(folder / name), pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, options.quality])
        print(f"{name} ({index + 1} of {len(poses())})", flush=True)
        views.append((name, pose))
    return views


if __name__ == "__main__":
    main()
