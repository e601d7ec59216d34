"""The room around the table: walls, floor, window, shelf, chair and the light."""

from __future__ import annotations

import numpy as np

from . import textures as paint
from .meshes import Mesh, blob, grid, lathe, merged, ring, rod, rotation_x, rotation_y, rotation_z, rounded_box, tube
from .stage import Stage

HALF_X, HALF_Y, HEIGHT = 2.6, 2.3, 2.6
"""Half extents of the room and its height, metres."""
WINDOW_Y, WINDOW_LOW, WINDOW_HIGH = 0.95, 0.85, 2.15


def _quad(corner: tuple, along_u: tuple, along_v: tuple, metres_per_repeat: float) -> Mesh:
    corner, u, v = (np.asarray(a, float) for a in (corner, along_u, along_v))
    points = np.array([[corner, corner + u], [corner + v, corner + u + v]])
    length_u, length_v = np.linalg.norm(u) / metres_per_repeat, np.linalg.norm(v) / metres_per_repeat
    uv = np.array([[[0, 0], [length_u, 0]], [[0, length_v], [length_u, length_v]]])
    return grid(points, uv, smooth=False)


def _box(size: tuple, centre: tuple, bevel: float = 0.004, metres_per_repeat: float = 1.0) -> Mesh:
    return rounded_box(size, bevel, metres_per_repeat=metres_per_repeat).moved(*centre)


def add_room(stage: Stage, rng: np.random.Generator) -> None:
    """Everything but the things on the table."""
    _add_shell(stage, rng)
    _add_window(stage, rng)
    _add_pictures(stage, rng)
    _add_shelf(stage, rng)
    _add_chair(stage)
    _add_sideboard(stage, rng)


def _add_shell(stage: Stage, rng: np.random.Generator) -> None:
    x, y, h = HALF_X, HALF_Y, HEIGHT
    stage.paint("floor", paint.floorboards(rng), gloss=0.25)
    stage.paint("ceiling", paint.plaster(rng, "f2eee6", "ddd6c8", size=512))
    stage.paint("plaster", paint.plaster(rng, "efe2ca", "c9ae88"))
    stage.paint("blue_plaster", paint.plaster(rng, "bccacd", "829aa3"))
    stage.paint("bricks", paint.bricks(rng))
    stage.paint("wallpaper", paint.wallpaper(rng))
    stage.paint("rug", paint.rug(rng))
    stage.paint("trim", "ece6d8", gloss=0.2)
    stage.paint("beam", paint.wood(rng, 1, "7b5636", "3c2615", size=512))
    stage.add("floor", _quad((-x, -y, 0), (2 * x, 0, 0), (0, 2 * y, 0), 1.3))
    stage.add("ceiling", _quad((-x, -y, h), (2 * x, 0, 0), (0, 2 * y, 0), 2.0))
    stage.add("wallpaper", _quad((-x, -y, 0), (2 * x, 0, 0), (0, 0, h), 1.3))
    stage.add("bricks", _quad((-x, y, 0), (2 * x, 0, 0), (0, 0, h), 1.0))
    stage.add("blue_plaster", _quad((-x, -y, 0), (0, 2 * y, 0), (0, 0, h), 1.8))
    for low, high, left, right in (
        (0, WINDOW_LOW, -y, y),
        (WINDOW_HIGH, h, -y, y),
        (WINDOW_LOW, WINDOW_HIGH, -y, -WINDOW_Y),
        (WINDOW_LOW, WINDOW_HIGH, WINDOW_Y, y),
    ):
        stage.add("plaster", _quad((x, left, low), (0, right - left, 0), (0, 0, high - low), 1.8))
    for wall_y in (-y + 0.012, y - 0.012):
        stage.add("trim", _box((2 * x, 0.024, 0.12), (0, wall_y, 0.06)))
    for wall_x in (-x + 0.012, x - 0.012):
        stage.add("trim", _box((0.024, 2 * y, 0.12), (wall_x, 0, 0.06)))
    for beam_x in (-1.9, 1.9):
        stage.add("beam", _box((0.14, 2 * y, 0.16), (beam_x, 0, h - 0.08), 0.01))
    angle, radius = np.meshgrid(np.linspace(0, 2 * np.pi, 97), [0.0, 1.25])
    disc = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full_like(angle, 0.008)], -1)
    stage.add("rug", grid(disc, disc[..., :2] / 2.5 + 0.5))


def _add_window(stage: Stage, rng: np.random.Generator) -> None:
    x, middle = HALF_X, (WINDOW_LOW + WINDOW_HIGH) / 2
    tall, deep = WINDOW_HIGH - WINDOW_LOW, 0.16
    pane = _quad((x + deep, WINDOW_Y, WINDOW_HIGH), (0, -2 * WINDOW_Y, 0), (0, 0, -tall), 1.0)
    pane = Mesh(pane.vertices, pane.faces[:, ::-1], np.array([[0, 1], [1, 1], [0, 0], [1, 0]], float), False)
    view = np.ascontiguousarray((paint.garden(rng) * 3.6).astype(np.float32))
    stage.add_light(pane, {"type": "bitmap", "bitmap": stage.mitsuba.Bitmap(view), "raw": True})
    for side in (-1, 1):
        stage.add("trim", _box((deep, 0.03, tall), (x + deep / 2, side * (WINDOW_Y - 0.004), middle)))
        stage.add("trim", _box((0.02, 0.09, tall + 0.18), (x - 0.008, side * (WINDOW_Y + 0.045), middle)))
    stage.add("trim", _box((deep, 2 * WINDOW_Y, 0.03), (x + deep / 2, 0, WINDOW_HIGH - 0.004)))
    stage.add("trim", _box((0.02, 2 * WINDOW_Y + 0.18, 0.09), (x - 0.008, 0, WINDOW_HIGH + 0.045)))
    stage.add("trim", _box((0.34, 2 * WINDOW_Y + 0.24, 0.035), (x + 0.02, 0, WINDOW_LOW - 0.01), 0.01))
    for y in (-0.475, 0.0, 0.475):
        stage.add("trim", _box((0.045, 0.05 if y == 0 else 0.028, tall), (x + deep - 0.04, y, middle)))
    for share in (0.36, 0.70):
        stage.add("trim", _box((0.04, 2 * WINDOW_Y, 0.028), (x + deep - 0.04, 0, WINDOW_LOW + share * tall)))
    stage.paint("curtain", paint.curtain(rng))
    stage.metal("iron", (0.30, 0.28, 0.26), 0.3)
    stage.add("iron", rod((x - 0.1, -1.6, 2.36), (x - 0.1, 1.6, 2.36), 0.014))
    for side in (-1, 1):
        u, v = np.meshgrid(np.linspace(0, 1, 120), np.linspace(0, 1, 30))
        gather = 1 - 0.35 * np.exp(-(((v - 0.55) / 0.22) ** 2))
        fold = 0.045 * np.sin(u * 2 * np.pi * 8 + 0.6 * np.sin(v * 4)) * (0.6 + 0.4 * v)
        points = np.stack([x - 0.1 + fold, side * (1.5 - 0.50 * u * gather), 2.36 - 2.28 * v], -1)
        stage.add("curtain", grid(points))
    stage.add_light(_ceiling_lamp(), {"type": "rgb", "value": [2.4, 2.15, 1.8]})


def _ceiling_lamp() -> Mesh:
    """A broad soft panel over the table, seen only as a reflection."""
    return _quad((-1.1, -0.8, HEIGHT - 0.02), (0, 1.6, 0), (2.2, 0, 0), 1.0)


def _add_pictures(stage: Stage, rng: np.random.Generator) -> None:
    stage.paint("frame", paint.wood(rng, 1, "5b3c22", "2c1a0e", size=256), gloss=0.15)
    stage.metal("gilt", (0.75, 0.55, 0.24), 0.25)
    y, x = -HALF_Y, -HALF_X
    hung = (
        ("hills", "gilt", (0.85, 0.62), (-0.55, y, 1.55), "y"),
        ("circles", "frame", (0.5, 0.66), (0.72, y, 1.5), "y"),
        ("waves", "frame", (0.42, 0.55), (1.65, y, 1.62), "y"),
        ("hills", "frame", (0.6, 0.8), (x, -1.1, 1.5), "x"),
        ("circles", "gilt", (1.0, 0.7), (x, 0.45, 1.62), "x"),
    )
    for number, (kind, frame, (wide, tall), place, wall) in enumerate(hung):
        stage.paint(f"picture{number}", paint.painting(rng, kind), gloss=0.3 if number % 2 else None)
        flat = grid(
            np.array(
                [
                    [[-wide / 2, 0, tall / 2], [wide / 2, 0, tall / 2]],
                    [[-wide / 2, 0, -tall / 2], [wide / 2, 0, -tall / 2]],
                ]
            ),
            np.array([[[1, 1], [0, 1]], [[1, 0], [0, 0]]], float),
            smooth=False,
        ).moved(0, 0.018, 0)
        bars = [
            rounded_box((wide + 0.09, 0.04, 0.05), 0.008).moved(0, 0.02, side * (tall / 2 + 0.02)) for side in (-1, 1)
        ] + [rounded_box((0.05, 0.04, tall + 0.09), 0.008).moved(side * (wide / 2 + 0.02), 0.02, 0) for side in (-1, 1)]
        turn = 0 if wall == "y" else -90
        stage.add(f"picture{number}", flat.moved(turn_deg=turn).moved(*place))
        stage.add(frame, *(bar.moved(turn_deg=turn).moved(*place) for bar in bars))


def _add_shelf(stage: Stage, rng: np.random.Generator) -> None:
    """A bookcase along the brick wall."""
    stage.paint("shelf", paint.wood(rng, 2, "a47a4c", "64432a", size=512), gloss=0.25)
    spines = ("7a2c2a", "2b4a5e", "c79a45", "3f5d48", "d9cdb4", "5a3f5f", "b5653a", "2e2e33", "8fa3a0", "a8402f")
    for number, tone in enumerate(spines):
        stage.paint(
            f"spine{number}", paint.cover(rng, ("dots", "chevron")[number % 2], tone, "d8c08a", size=128), gloss=0.3
        )
    y, deep, left, right, top = HALF_Y - 0.17, 0.30, -1.5, 0.9, 1.72
    for z in (0.14, 0.56, 0.98, 1.36, top):
        stage.add("shelf", _box((right - left, deep, 0.03), ((left + right) / 2, y, z)))
    for x in (left, (left + right) / 2, right):
        stage.add("shelf", _box((0.03, deep, top), (x, y, top / 2)))
    for z, space in ((0.155, 0.38), (0.575, 0.38), (0.995, 0.34), (1.375, 0.32)):
        x = left + 0.03
        while x < right - 0.08:
            thick, tall = rng.uniform(0.02, 0.05), rng.uniform(0.62, 0.9) * space
            if rng.uniform() < 0.10:
                x += rng.uniform(0.05, 0.16)
                continue
            if abs(x + thick / 2 - (left + right) / 2) > thick / 2 + 0.025:
                book = rounded_box((thick, rng.uniform(0.16, 0.22), tall), 0.004, metres_per_repeat=0.12)
                stage.add(f"spine{rng.integers(10)}", book.moved(x + thick / 2, y - 0.04, z + tall / 2))
            x += thick + 0.002
    stage.paint("jar", paint.striped_cup(rng), gloss=0.1)
    jar = lathe([(0.0, 0.0), (0.07, 0.0), (0.12, 0.10), (0.10, 0.22), (0.045, 0.28), (0.055, 0.31)], sides=48)
    stage.add("jar", jar.moved(-1.1, y, top + 0.015), jar.moved(0.45, y, top + 0.015))
    stage.paint("globe", paint.painting(rng, "circles"), gloss=0.15)
    stage.add("globe", blob((0.13, 0.13, 0.13)).placed(rotation_x(23), (-0.3, y, top + 0.21)))
    stage.add(
        "iron",
        ring(0.145, 0.006).moved(-0.3, y, top + 0.21, turn_deg=20),
        rod((-0.3, y, top), (-0.3, y, top + 0.08), 0.012),
    )


def _add_chair(stage: Stage) -> None:
    """A spindle-back chair beside the table: thin verticals that hide and show what is behind."""
    stage.paint("chair", "27313a", gloss=0.12)
    parts = [rounded_box((0.42, 0.40, 0.035), 0.016).moved(0, 0, 0.45)]
    for sx in (-1, 1):
        for sy in (-1, 1):
            parts.append(rod((sx * 0.16, sy * 0.15, 0.44), (sx * 0.20, sy * 0.19, 0), 0.016))
        parts.append(rod((sx * 0.19, -0.17, 0.15), (sx * 0.19, 0.17, 0.15), 0.010))
    parts.append(rod((-0.19, 0, 0.15), (0.19, 0, 0.15), 0.010))
    across = np.linspace(-0.21, 0.21, 30)
    rail = np.stack([across, -0.245 + 0.9 * across**2, 0.94 - 0.8 * across**2], -1)
    parts.append(tube(rail, 0.016, sides=10))
    for x in np.linspace(-0.17, 0.17, 8):
        parts.append(rod((x, -0.17, 0.46), (x * 1.1, -0.245 + x**2, 0.93 - 0.8 * x**2), 0.0065))
    for mesh in parts:
        stage.add("chair", mesh.moved(-0.30, -0.66, 0, turn_deg=12))
        stage.add("chair", mesh.moved(1.15, 0.62, 0, turn_deg=-215))


def _add_sideboard(stage: Stage, rng: np.random.Generator) -> None:
    """A low chest by the blue wall with a floor vase of dry twigs beside it."""
    stage.paint("chest", paint.wood(rng, 4, "8b5e3a", "4b2f1b", size=512), gloss=0.2)
    stage.add("chest", _box((0.42, 1.3, 0.62), (-HALF_X + 0.24, 0.45, 0.36), 0.01, 0.7))
    for row in (0.22, 0.50):
        for side in (-0.32, 0.32):
            front = (-HALF_X + 0.455, 0.45 + side, row)
            stage.add("chest", _box((0.02, 0.58, 0.24), front, 0.006, 0.5))
            stage.add("gilt", blob((0.016, 0.016, 0.016), steps=12).moved(front[0] + 0.02, front[1], row))
    vase = lathe([(0.0, 0.0), (0.11, 0.0), (0.17, 0.2), (0.13, 0.45), (0.06, 0.6), (0.08, 0.66)], sides=56)
    stage.add("jar", vase.moved(-2.15, 1.72, 0))
    twigs = []
    for _ in range(16):
        lean, turn = rng.uniform(0.05, 0.4), rng.uniform(0, 2 * np.pi)
        t = np.linspace(0, 1, 12)
        wiggle = np.cumsum(rng.normal(0, 0.006, size=(12, 2)), 0)
        path = np.stack(
            [lean * t**1.4 * np.cos(turn) + wiggle[:, 0], lean * t**1.4 * np.sin(turn) + wiggle[:, 1], 0.5 + 0.95 * t],
            -1,
        )
        twigs.append(tube(path, 0.005 * (1.15 - t), sides=6))
    stage.add("beam", merged(twigs).moved(-2.15, 1.72, 0))
    bowl = lathe([(0.0, 0.01), (0.06, 0.0), (0.15, 0.07), (0.16, 0.09), (0.14, 0.08), (0.05, 0.02), (0.0, 0.02)])
    stage.add("globe", bowl.moved(-HALF_X + 0.24, 0.2, 0.67))
    leaning = rounded_box((0.16, 0.03, 0.24), 0.003, metres_per_repeat=0.25)
    tilt = rotation_z(80) @ rotation_y(4)
    stage.add("spine3", leaning.placed(tilt, (-HALF_X + 0.22, 0.78, 0.79)))
    stage.add("spine6", leaning.placed(tilt, (-HALF_X + 0.23, 0.84, 0.79)))
