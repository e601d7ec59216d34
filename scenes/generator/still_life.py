"""The table and what stands on it."""

from __future__ import annotations

import numpy as np

from . import textures as paint
from .meshes import Mesh, blob, grid, lathe, merged, rod, rounded_box, spline, strip, tube
from .stage import Stage
from .trinkets import TOP, add_bicycle, add_books, add_small_things


def add_still_life(stage: Stage, rng: np.random.Generator) -> None:
    """All of it."""
    _add_table(stage, rng)
    _add_teapot(stage, rng)
    _add_plant(stage, rng)
    _add_basket(stage, rng)
    add_books(stage, rng)
    add_bicycle(stage)
    add_small_things(stage, rng)


def _add_table(stage: Stage, rng: np.random.Generator) -> None:
    stage.paint("table", paint.wood(rng, 5, "c0905a", "70431f"), gloss=0.18)
    stage.paint("table_leg", paint.wood(rng, 1, "a87848", "6a4020", size=512), gloss=0.25)
    stage.add("table", rounded_box((1.56, 0.94, 0.04), 0.012, metres_per_repeat=0.8).moved(0, 0, TOP - 0.02))
    stage.add("table_leg", rounded_box((1.36, 0.74, 0.09), 0.005, metres_per_repeat=0.6).moved(0, 0, TOP - 0.085))
    profile = [(0.022, 0.0), (0.03, 0.06), (0.024, 0.12), (0.038, 0.30), (0.026, 0.46), (0.034, 0.52), (0.03, 0.62)]
    leg = lathe(profile, sides=28)
    stage.add("table_leg", *(leg.moved(x, y, 0.02) for x in (-0.64, 0.64) for y in (-0.34, 0.34)))
    stage.paint("runner", paint.runner(rng))
    u, v = np.meshgrid(np.linspace(-1.02, 1.02, 260), np.linspace(-0.21, 0.21, 40))
    over = np.maximum(np.abs(u) - 0.775, 0)
    ripple = 0.0022 * np.sin(u * 23 + v * 9) + 0.0016 * np.sin(v * 37 - u * 11)
    swing = 0.010 * np.sin(v * 26 + np.sign(u)) * np.clip(over * 8, 0, 1)
    x = np.sign(u) * np.minimum(np.abs(u), 0.778 + 0.014 * np.tanh(over * 60)) + np.sign(u) * swing
    z = TOP + 0.0055 + ripple - np.maximum(over - 0.008, 0)
    shear = 0.035 * np.sin(u * 1.7)
    stage.add("runner", grid(np.stack([x, v + shear, z], -1)))
    stage.paint("thread", "e4d8be")
    fringe = []
    for end in (-1, 1):
        for y in np.linspace(-0.205, 0.205, 56):
            start = np.array([end * 0.795, y + 0.035 * np.sin(end * 1.73), TOP + 0.012 - 0.24])
            drift = rng.normal(0, 0.004, size=2)
            fall = np.array([[0, 0, 0], [drift[0], drift[1], -0.03], [drift[0] * 2, drift[1] * 1.5, -0.055]])
            fringe.append(tube(spline(start + fall, 6), 0.0016, sides=5))
    stage.add("thread", merged(fringe))


def _add_teapot(stage: Stage, rng: np.random.Generator) -> None:
    stage.paint("glaze", paint.glaze(rng), gloss=0.045)
    body = lathe(
        [
            (0.0, 0.0),
            (0.062, 0.0),
            (0.066, 0.008),
            (0.098, 0.045),
            (0.108, 0.085),
            (0.092, 0.128),
            (0.058, 0.150),
            (0.050, 0.154),
        ],
        sides=96,
        steps=80,
    )
    lid = lathe(
        [
            (0.054, 0.152),
            (0.052, 0.158),
            (0.030, 0.172),
            (0.010, 0.177),
            (0.008, 0.183),
            (0.018, 0.194),
            (0.012, 0.206),
            (0.0, 0.209),
        ],
        sides=64,
    )
    spout_path = spline(np.array([[0.080, 0, 0.055], [0.125, 0, 0.070], [0.150, 0, 0.115], [0.182, 0, 0.150]]), 30)
    spout = tube(spout_path, np.linspace(0.026, 0.011, 30), sides=24).tiled(1, 4)
    knots = [[-0.090, 0, 0.120], [-0.140, 0, 0.145], [-0.168, 0, 0.105], [-0.140, 0, 0.055], [-0.095, 0, 0.045]]
    handle = tube(spline(np.array(knots), 40), 0.0095, sides=16).tiled(1, 3)
    place = dict(x=-0.03, y=-0.01, z=TOP + 0.008, turn_deg=-35)
    stage.add("glaze", *(part.moved(**place) for part in (body, lid, spout, handle)))
    stage.paint("cup", paint.striped_cup(rng), gloss=0.06)
    stage.paint("tea", "6b2f0c", gloss=0.03)
    profile = [
        (0.0, 0.004),
        (0.024, 0.0),
        (0.027, 0.004),
        (0.040, 0.035),
        (0.042, 0.068),
        (0.040, 0.069),
        (0.037, 0.035),
        (0.020, 0.010),
        (0.0, 0.009),
    ]
    cup = lathe(profile, sides=56)
    saucer = lathe([(0.0, 0.0), (0.035, 0.0), (0.072, 0.012), (0.073, 0.014), (0.035, 0.004), (0.0, 0.004)], sides=56)
    tea = lathe([(0.0, 0.052), (0.038, 0.052)], sides=40, steps=4)
    for x, y, turn in ((-0.16, -0.19, 40), (0.17, -0.17, 200)):
        z = TOP + (0.008 if abs(y) < 0.18 else 0.001)
        stage.add("cup", saucer.moved(x, y, z), cup.moved(x, y, z + 0.004, turn_deg=turn))
        stage.add("tea", tea.moved(x, y, z + 0.004))


def _add_plant(stage: Stage, rng: np.random.Generator) -> None:
    x, y = -0.44, 0.21
    stage.paint("terracotta", paint.terracotta(rng))
    stage.paint("soil", paint.skin(rng, "4a3527", "24180f", freckle=1.0))
    stage.paint("leaf", paint.leaf(rng, "d6dfa2", "3f7a34"), gloss=0.3)
    stage.paint("round_leaf", paint.leaf(rng, "7fae62", "2c5f3a"), gloss=0.25)
    stage.paint("stem", "6d8a45")
    pot = lathe(
        [
            (0.0, 0.0),
            (0.062, 0.0),
            (0.078, 0.06),
            (0.090, 0.115),
            (0.101, 0.118),
            (0.103, 0.145),
            (0.094, 0.146),
            (0.088, 0.12),
        ]
    )
    stage.add("terracotta", pot.moved(x, y, TOP + 0.001))
    stage.add("soil", lathe([(0.0, 0.133), (0.04, 0.131), (0.090, 0.126)], steps=10).tiled(3, 1).moved(x, y, TOP))
    for index in range(46):
        turn = index * 2.399963 + rng.normal(0, 0.15)  # the golden angle
        reach, rise = rng.uniform(0.14, 0.30), rng.uniform(0.12, 0.30)
        t = np.linspace(0, 1, 22)
        out, up = reach * t, rise * np.sin(t * rng.uniform(2.0, 2.8))
        heading, side = np.array([np.cos(turn), np.sin(turn), 0]), np.array([-np.sin(turn), np.cos(turn), 0])
        path = (0.012 + out)[:, None] * heading + up[:, None] * [0, 0, 1] + (0.03 * rng.normal() * t**2)[:, None] * side
        width = 0.0085 * np.sin(np.pi * np.clip(t * 0.92 + 0.08, 0, 1)) ** 0.6
        stage.add("leaf", strip(path, width, side).moved(x, y, TOP + 0.125))
    for index in range(7):
        turn = index * 0.9 + 0.3
        t = np.linspace(0, 1, 24)
        heading = np.array([np.cos(turn), np.sin(turn), 0])
        height = rng.uniform(0.30, 0.46)
        path = (0.02 + rng.uniform(0.05, 0.12) * t**2)[:, None] * heading + (height * t)[:, None] * [0, 0, 1]
        stage.add("stem", tube(path, 0.0022 * (1.3 - 0.6 * t), sides=6).moved(x, y, TOP + 0.125))
        for step in range(6, 24, 2):
            for way in (-1, 1):
                stage.add(
                    "round_leaf", _round_leaf(path[step], turn + way * 1.4 + 0.3 * step, rng).moved(x, y, TOP + 0.125)
                )


def _round_leaf(root: np.ndarray, turn: float, rng: np.random.Generator) -> Mesh:
    t = np.linspace(0, 1, 10)
    heading, side = np.array([np.cos(turn), np.sin(turn), 0]), np.array([-np.sin(turn), np.cos(turn), 0])
    length = rng.uniform(0.028, 0.042)
    path = root + (length * t)[:, None] * heading + (length * (0.5 * t - 0.6 * t**2))[:, None] * [0, 0, 1]
    return strip(path, length * 0.36 * np.sin(np.pi * t) ** 0.7 + 0.0004, side, 0.15)


def _add_basket(stage: Stage, rng: np.random.Generator) -> None:
    """Wicker: canes that weave around upright stakes, with fruit inside."""
    x, y, stakes = 0.47, 0.10, 25
    stage.paint("straw", paint.straw(rng))
    angle = np.linspace(0, 2 * np.pi, 25 * 12, endpoint=False)
    canes = []
    for row in range(13):
        height = 0.008 + row * 0.0085
        radius = 0.112 + 0.042 * np.sin(row / 12 * 1.5)
        weave = 0.0042 * np.cos(angle * stakes / 2 + row * np.pi)
        path = np.stack([(radius + weave) * np.cos(angle), (radius + weave) * np.sin(angle), height + 0 * angle], -1)
        canes.append(tube(path, 0.0043, sides=7, closed=True).tiled(1, 20))
    for turn in np.arange(stakes) / stakes * 2 * np.pi:
        heights = np.linspace(0, 0.118, 10)
        radius = 0.112 + 0.042 * np.sin(np.clip(heights / 0.11, 0, 1) * 1.5)
        path = np.stack([radius * np.cos(turn), radius * np.sin(turn), heights], -1)
        canes.append(tube(path, 0.0032, sides=6).tiled(1, 20))
    for phase in (0.0, np.pi):
        twist = np.stack(
            [
                (0.155 + 0.005 * np.cos(angle * 18 + phase)) * np.cos(angle),
                (0.155 + 0.005 * np.cos(angle * 18 + phase)) * np.sin(angle),
                0.121 + 0.005 * np.sin(angle * 18 + phase),
            ],
            -1,
        )
        canes.append(tube(twist, 0.0045, sides=7, closed=True).tiled(1, 20))
        arch = np.linspace(0, np.pi, 120)
        handle = np.stack(
            [
                0.152 * np.cos(arch),
                0.005 * np.cos(arch * 24 + phase),
                0.115 + 0.20 * np.sin(arch) + 0.005 * np.sin(arch * 24 + phase),
            ],
            -1,
        )
        canes.append(tube(handle, 0.0045, sides=7).tiled(1, 20))
    canes.append(lathe([(0.0, 0.004), (0.112, 0.004)], steps=4).tiled(6, 6))
    stage.add("straw", merged(canes).moved(x, y, TOP + 0.007, turn_deg=62))
    _add_fruit(stage, rng, x, y)


def _add_fruit(stage: Stage, rng: np.random.Generator, x: float, y: float) -> None:
    stage.paint("orange", paint.skin(rng, "e88a1f", "d06a10", freckle=0.35), gloss=0.22)
    stage.paint("lemon", paint.skin(rng, "f0cf3a", "d9b01f", freckle=0.2), gloss=0.22)
    stage.paint("apple", paint.skin(rng, "b02a22", "d9a441", freckle=0.3), gloss=0.10)
    stage.paint("plum", paint.skin(rng, "4a2347", "6e4a72", freckle=0.2), gloss=0.2)
    stage.paint("stalk", "4c3520")
    orange, lemon = blob((0.042, 0.042, 0.040), bumps=0.02, seed=1), blob((0.045, 0.031, 0.031), bumps=0.05, seed=2)
    apple = lathe(
        [(0.0, 0.058), (0.010, 0.064), (0.028, 0.068), (0.042, 0.045), (0.034, 0.012), (0.014, 0.0), (0.0, 0.006)]
    )
    inside = (
        ("orange", orange, (0.055, 0.03, 0.062)),
        ("orange", orange, (-0.05, 0.055, 0.060)),
        ("apple", apple, (-0.06, -0.04, 0.03)),
        ("lemon", lemon, (0.035, -0.062, 0.058)),
        ("orange", orange, (0.0, -0.01, 0.104)),
        ("apple", apple, (0.02, 0.085, 0.045)),
        ("plum", blob((0.026, 0.026, 0.029), seed=3), (0.085, -0.03, 0.085)),
        ("lemon", lemon.moved(turn_deg=70), (-0.02, -0.085, 0.085)),
        ("plum", blob((0.025, 0.026, 0.027), seed=4), (-0.085, 0.01, 0.092)),
    )
    for material, mesh, (dx, dy, dz) in inside:
        stage.add(material, mesh.moved(x + dx, y + dy, TOP + dz, turn_deg=float(rng.uniform(0, 360))))
    for material, mesh, place in (
        ("lemon", lemon.moved(turn_deg=35), (0.30, -0.045, 0.037)),
        ("plum", blob((0.026, 0.027, 0.025), seed=5), (0.27, 0.03, 0.032)),
        ("apple", apple, (0.62, -0.13, 0.006)),
    ):
        stage.add(material, mesh.moved(place[0], place[1], TOP + place[2]))
    for px, py, pz in ((0.62, -0.13, 0.066), (x - 0.06, y - 0.04, 0.09), (x + 0.02, y + 0.085, 0.105)):
        stage.add("stalk", rod((px, py, TOP + pz - 0.006), (px + 0.006, py + 0.003, TOP + pz + 0.018), 0.0015))
