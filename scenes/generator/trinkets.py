"""The smaller things on the table: books, a wire bicycle, pebbles, a candle, spoons."""

from __future__ import annotations

import numpy as np

from . import textures as paint
from .meshes import Mesh, blob, grid, lathe, merged, ring, rod, rotation_x, rotation_z, rounded_box, spline, tube
from .stage import Stage

TOP = 0.74
"""Height of the table top, metres."""


def add_books(stage: Stage, rng: np.random.Generator) -> None:
    kinds = (
        ("scales", "23445c", "d9c48d"),
        ("maze", "a63d2c", "ecd9b0"),
        ("rays", "d9a83f", "5b2a22"),
        ("chevron", "2f5d50", "e6dfc4"),
    )
    stage.paint("pages", paint.page_edges(rng))
    z = TOP + 0.001
    for number, (kind, ground, ink) in enumerate(kinds):
        stage.paint(f"cover{number}", paint.cover(rng, kind, ground, ink), gloss=0.14 if number % 2 else 0.35)
        wide, tall, thick = 0.235 - 0.022 * number, 0.170 - 0.014 * number, (0.034, 0.026, 0.03, 0.02)[number]
        turn = (-12, 9, -24, 16)[number]
        boards = [rounded_box((wide, tall, 0.003), 0.001).moved(0, 0, side * (thick / 2 - 0.0015)) for side in (-1, 1)]
        boards.append(rounded_box((0.003, tall, thick), 0.0012).moved(-wide / 2 + 0.0015, 0, 0))
        boards = [Mesh(m.vertices, m.faces, m.vertices[:, :2] / (wide, tall) + 0.5, m.smooth) for m in boards]
        block = rounded_box((wide - 0.008, tall - 0.008, thick - 0.006), 0.001, metres_per_repeat=0.03)
        for material, meshes in ((f"cover{number}", boards), ("pages", [block])):
            stage.add(material, *(m.moved(-0.53, -0.20, z + thick / 2, turn_deg=turn) for m in meshes))
        z += thick + 0.0004
    stage.paint("written", paint.written_page(rng))
    u, v = np.meshgrid(np.linspace(0, 1, 40), np.linspace(0, 1, 12))
    swell = 0.020 * np.sqrt(np.sin(np.pi * np.clip(u * 0.93 + 0.03, 0, 1))) * (1 - 0.55 * u) + 0.004
    page = grid(np.stack([u * 0.125, (v - 0.5) * 0.18, swell], -1), np.stack([u, v], -1))
    mirror = grid(np.stack([-u * 0.125, (v - 0.5) * 0.18, swell], -1), np.stack([1 - u, v], -1))
    edges = [
        grid(np.stack([s * u[:2] * 0.125, np.full_like(u[:2], e * 0.09), np.stack([0 * u[0], swell[0]])], -1))
        for s in (-1, 1)
        for e in (-1, 1)
    ]
    edges += [rounded_box((0.001, 0.18, 0.004), 0.0004).moved(s * 0.1245, 0, 0.002) for s in (-1, 1)]
    place = dict(x=0.43, y=-0.305, z=TOP + 0.003, turn_deg=-14)
    stage.add("written", page.moved(**place), mirror.moved(**place))
    stage.add("pages", *(m.moved(**place) for m in edges))
    stage.add(
        "cover1",
        rounded_box((0.262, 0.19, 0.003), 0.001, metres_per_repeat=0.26).moved(
            0.43, -0.305, TOP + 0.0015, turn_deg=-14
        ),
    )


def add_bicycle(stage: Stage) -> None:
    """A high-wheel bicycle of brass wire: spokes thinner than a pixel from afar."""
    stage.metal("brass", (0.80, 0.58, 0.24), 0.16)
    stage.paint("tyre", "2b1a14", gloss=0.4)
    parts: list[Mesh] = []
    for centre, radius, spokes in ((0.0, 0.105, 20), (-0.158, 0.036, 10)):
        parts.append(ring(radius - 0.004, 0.0022, steps=96).moved(centre, 0, radius))
        stage.add(
            "tyre", ring(radius, 0.0030, steps=96).moved(centre, 0, radius).moved(0.08, 0.30, TOP + 0.003, turn_deg=28)
        )
        for index, turn in enumerate(np.arange(spokes) / spokes * 2 * np.pi):
            hub = (centre, 0.012 * (-1) ** index, radius)
            parts.append(
                rod(
                    hub,
                    (centre + (radius - 0.005) * np.cos(turn), 0, radius + (radius - 0.005) * np.sin(turn)),
                    0.0010,
                    sides=5,
                )
            )
        parts.append(rod((centre, -0.016, radius), (centre, 0.016, radius), 0.004))
    back = np.array([[0.004, 0, 0.232], [-0.05, 0, 0.222], [-0.115, 0, 0.155], [-0.150, 0, 0.075], [-0.158, 0, 0.040]])
    parts.append(tube(spline(back, 50), 0.0036))
    for side in (-1, 1):
        parts.append(
            tube(
                spline(np.array([[0.0, side * 0.012, 0.105], [0.002, side * 0.012, 0.19], [0.004, 0, 0.228]]), 16),
                0.0022,
            )
        )
        parts.append(rod((-0.158, side * 0.012, 0.036), (-0.153, 0, 0.075), 0.0018))
    bar = np.array(
        [
            [-0.012, -0.055, 0.222],
            [0.006, -0.040, 0.240],
            [0.008, 0, 0.243],
            [0.006, 0.040, 0.240],
            [-0.012, 0.055, 0.222],
        ]
    )
    parts += [tube(spline(bar, 40), 0.0026), rod((0.004, 0, 0.225), (0.008, 0, 0.245), 0.003)]
    saddle = blob((0.024, 0.012, 0.006), steps=20).moved(-0.035, 0, 0.236)
    stage.add("tyre", saddle.moved(0.08, 0.30, TOP + 0.003, turn_deg=28))
    stage.add("brass", merged(parts).moved(0.08, 0.30, TOP + 0.003, turn_deg=28))


def add_small_things(stage: Stage, rng: np.random.Generator) -> None:
    """A candlestick, pebbles, a pencil, a string of beads, a jar of spoons."""
    _add_candle(stage)
    _add_pebbles(stage, rng)
    _add_pencil_and_beads(stage)
    _add_spoons(stage)
    stage.add("trim", _napkin().moved(0.60, 0.34, TOP + 0.002, turn_deg=24))


def _add_candle(stage: Stage) -> None:
    foot = [(0.0, 0.0), (0.052, 0.0), (0.050, 0.010), (0.016, 0.022), (0.009, 0.05), (0.016, 0.075)]
    cup = [(0.008, 0.10), (0.010, 0.14), (0.024, 0.155), (0.024, 0.160), (0.0, 0.158)]
    stage.add("brass", lathe(foot + cup, sides=64, steps=90).moved(-0.20, 0.33, TOP + 0.001))
    stage.paint("wax", "efe4cc", gloss=0.25)
    profile = [(0.0115, 0.0), (0.0112, 0.07), (0.0110, 0.13), (0.008, 0.137), (0.003, 0.133), (0.0, 0.132)]
    stage.add("wax", lathe(profile, sides=32).moved(-0.20, 0.33, TOP + 0.158))
    wick = tube(np.array([[0, 0, 0], [0.001, 0, 0.006], [0.004, 0, 0.011]]), 0.0010, sides=5)
    stage.add("stalk", wick.moved(-0.20, 0.33, TOP + 0.290))


def _add_pebbles(stage: Stage, rng: np.random.Generator) -> None:
    """A stack of four and some loose ones."""
    colours = (("8d8f8c", "4f5352"), ("c9bba4", "8a7558"), ("6d5a52", "a08474"), ("b9c0bd", "66727a"))
    for number, (base, shade) in enumerate(colours):
        stage.paint(f"stone{number}", paint.skin(rng, base, shade, freckle=0.9), gloss=0.35)
    z = TOP + 0.007
    radii = ((0.046, 0.036, 0.016), (0.036, 0.031, 0.014), (0.027, 0.024, 0.011), (0.017, 0.015, 0.010))
    for number, size in enumerate(radii):
        stone = blob(size, bumps=0.10, seed=20 + number)
        stage.add(f"stone{number}", stone.moved(0.19 + 0.003 * number, 0.10, z + size[2], turn_deg=50.0 * number))
        z += 2 * size[2] - 0.001
    for number in range(11):
        size = rng.uniform(0.010, 0.020)
        x, y = rng.uniform(-0.02, 0.24), rng.uniform(-0.40, -0.27)
        stone = blob((size, size * 0.8, size * 0.55), bumps=0.14, seed=40 + number)
        stage.add(f"stone{number % 4}", stone.moved(x, y, TOP + size * 0.5, turn_deg=float(rng.uniform(0, 360))))


def _add_pencil_and_beads(stage: Stage) -> None:
    start, heading = np.array([0.26, -0.40, TOP + 0.0045]), rotation_z(-25) @ [1.0, 0, 0]
    stage.paint("pencil", "2f6f5e", gloss=0.1)
    along = np.array([0.0, 0.150, 0.168])[:, None]
    stage.add("pencil", tube(start + along[:2] * heading, 0.0036, sides=6))
    stage.add("wax", tube(start + along[1:] * heading, np.array([0.0036, 0.0003]), sides=12))
    stage.paint("bead", "a8322c", gloss=0.05)
    turn = np.linspace(0, 2 * np.pi, 34, endpoint=False)
    radius = 0.058 + 0.012 * np.sin(3 * turn)
    bead = blob((0.0062, 0.0062, 0.0062), steps=14)
    for a, r in zip(turn, radius, strict=True):
        stage.add("bead", bead.moved(-0.28 + r * np.cos(a), -0.34 + 0.8 * r * np.sin(a), TOP + 0.0065))
    stage.add("brass", blob((0.010, 0.010, 0.010), steps=20).moved(-0.28 + 0.074, -0.34, TOP + 0.010))


def _add_spoons(stage: Stage) -> None:
    place = np.array([0.30, 0.34, TOP + 0.001])
    outside = [(0.0, 0.0), (0.045, 0.0), (0.052, 0.04), (0.046, 0.10), (0.050, 0.115)]
    stage.add("jar", lathe([*outside, (0.047, 0.115), (0.043, 0.09), (0.0, 0.02)]).moved(*place))
    for number, length in enumerate((0.24, 0.20, 0.25, 0.18, 0.22)):
        lean = rotation_z(72.0 * number) @ rotation_x(14)
        foot = place + np.array([0, 0, 0.02])
        wood = ("shelf", "table_leg", "beam")[number % 3]
        stage.add(wood, rod((0, 0, 0), (0, 0, length), 0.004).placed(lean, tuple(foot)))
        bowl = blob((0.018, 0.008, 0.026), steps=16)
        stage.add(wood, bowl.placed(lean @ rotation_z(35.0 * number), tuple(foot + lean @ [0, 0, length + 0.01])))


def _napkin() -> Mesh:
    u, v = np.meshgrid(np.linspace(-0.08, 0.08, 40), np.linspace(-0.06, 0.06, 40))
    return grid(np.stack([u, v, 0.004 + 0.003 * np.sin(u * 60 + v * 20) * np.cos(v * 45)], -1))
