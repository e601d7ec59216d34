"""Painted surfaces as numpy images: sRGB, [H,W,3] in 0..1, row 0 at the top, repeating where they are tiled."""

from __future__ import annotations

import numpy as np


def colour(text: str) -> np.ndarray:  # [3]
    """An ``rrggbb`` colour as sRGB in 0..1."""
    return np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)]) / 255


def noise(size: tuple[int, int], beta: float, rng: np.random.Generator, stretch: tuple[float, float] = (1, 1)):
    """Repeating noise with a 1/f^beta spectrum in 0..1; ``stretch`` lengthens it along (rows, columns)."""
    fy, fx = np.fft.fftfreq(size[0])[:, None] * stretch[0], np.fft.rfftfreq(size[1])[None] * stretch[1]
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.normal(size=size)) * frequency ** (-beta / 2)
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=size)
    return np.clip(0.5 + field / (field.std() * 5), 0, 1)


def mix(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """From colour ``a`` to ``b`` by ``weight`` [H,W] in 0..1."""
    return a + (b - a) * np.clip(weight, 0, 1)[..., None]


def axes(height: int, width: int, repeats_v: float = 1, repeats_u: float = 1) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (v, u) of the pixel centres, 0..repeats."""
    v, u = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    return v * repeats_v, u * repeats_u


def _soft(distance: np.ndarray, edge: float) -> np.ndarray:
    """1 inside (negative distance), 0 outside, smooth over ``edge``."""
    return np.clip(0.5 - distance / edge, 0, 1)


def wood(rng: np.random.Generator, planks: int, light: str, dark: str, *, size: int = 1024, gap: float = 0.004):
    """Boards along u, with rings, pores and dark joints."""
    v, _ = axes(size, size)
    image = np.zeros((size, size, 3))
    board = np.minimum((v * planks).astype(int), planks - 1)
    for index in range(planks):
        warp = noise((size, size), 3.2, rng, (1, 5))
        fine = noise((size, size), 1.4, rng, (1, 40))
        rings = 0.5 + 0.5 * np.sin(2 * np.pi * (warp * 11 + v * planks * 1.5 + rng.uniform()))
        pores = np.clip(noise((size, size), 0.6, rng, (1.5, 14)) * 3 - 1.9, 0, 1)
        weight = 0.15 + 0.40 * rings**1.5 + 0.55 * (fine - 0.5) + 0.6 * pores + rng.uniform(-0.12, 0.12)
        image = np.where((board == index)[..., None], mix(colour(light), colour(dark), weight), image)
    to_joint = np.abs((v * planks + 0.5) % 1 - 0.5) / planks
    return mix(image, colour(dark) * 0.35, _soft(to_joint - gap / 2, 0.002))


def floorboards(rng: np.random.Generator, *, size: int = 1024) -> np.ndarray:
    """A strip floor: boards of unequal length and tone."""
    image = wood(rng, 8, "b98a58", "7a5330", size=size)
    v, u = axes(size, size)
    row = (v * 8).astype(int)
    shift = rng.uniform(size=8)[row]
    piece = ((u + shift) * 2).astype(int) % 2
    tone = rng.uniform(0.72, 1.12, size=(8, 2))[row, piece]
    joint = np.abs(((u + shift) * 2 + 0.5) % 1 - 0.5) / 2
    return np.clip(mix(image * tone[..., None], colour("2e1c10"), _soft(joint - 0.0012, 0.0015)), 0, 1)


def plaster(rng: np.random.Generator, base: str, shade: str, *, size: int = 1024) -> np.ndarray:
    """Trowelled lime plaster: clouds, strokes and specks."""
    clouds = noise((size, size), 2.4, rng)
    strokes = noise((size, size), 1.6, rng, (3, 1)) * 0.5 + noise((size, size), 1.6, rng, (1, 4)) * 0.5
    specks = np.clip(noise((size, size), 0.5, rng) * 4 - 2.9, 0, 1)
    return mix(colour(base), colour(shade), (clouds - 0.25) * 1.2 + (strokes - 0.5) * 1.1 + specks * 0.6)


def bricks(rng: np.random.Generator, *, size: int = 1024, rows: int = 12, columns: int = 4) -> np.ndarray:
    """Running bond in faded reds with pale mortar."""
    v, u = axes(size, size, rows, columns)
    wobble = (noise((size, size), 2.2, rng) - 0.5) * 0.10
    v, u = (v + wobble) % rows, u + wobble * 0.5
    row = v.astype(int) % rows
    u = (u + 0.5 * (row % 2)) % columns
    column = u.astype(int) % columns
    edge = np.minimum(np.minimum(u % 1, 1 - u % 1) * (rows / columns), np.minimum(v % 1, 1 - v % 1))
    shades = np.stack([colour(c) for c in ("a4644a", "b5765a", "8f5442", "c48e6c", "9a6a58", "ad7f66")])
    face = shades[rng.integers(0, len(shades), size=(rows, columns))[row, column]]
    grain = noise((size, size), 1.0, rng)
    face = np.clip(face * (0.6 + 0.8 * grain[..., None]), 0, 1)
    mortar = mix(colour("cfc4b4"), colour("a3978a"), noise((size, size), 0.9, rng))
    chalk = np.clip(noise((size, size), 2.0, rng) * 3 - 1.6, 0, 1) * 0.45
    return mix(mix(mortar, face, _soft(0.09 - edge, 0.05)), colour("ddd3c5"), chalk)


def wallpaper(rng: np.random.Generator, *, size: int = 1024, cells: int = 4) -> np.ndarray:
    """Leafy sprigs in half-drop repeat on a dusty green ground."""
    v, u = axes(size, size, cells, cells)
    v = v + 0.5 * (u.astype(int) % 2)
    y, x = v % 1 - 0.5, u % 1 - 0.5
    image = np.broadcast_to(colour("6f8f83"), (size, size, 3))
    stem = np.abs(x - 0.06 * np.sin(y * 6)) - 0.008
    image = mix(image, colour("d8c893"), _soft(stem, 0.01) * (np.abs(y) < 0.42))
    for step, height in enumerate(np.linspace(-0.36, 0.30, 6)):
        for side in (-1, 1):
            angle = side * (0.75 + 0.06 * step)
            px, py = x - 0.06 * np.sin(height * 6), y - height
            along, across = px * np.sin(angle) - py * np.cos(angle), px * np.cos(angle) + py * np.sin(angle)
            reach = 0.21 - 0.012 * step
            t = np.clip(along / reach, 0, 1)
            leaf = np.abs(across) - 0.16 * reach * 2 * np.sqrt(t) * (1 - t) * 1.6
            vein = np.abs(np.abs(across) - 0.03 * np.sin(t * 30) ** 2) - 0.002
            inside = _soft(leaf, 0.008) * (along > 0) * (along < reach)
            image = mix(image, colour("b9cfae" if side > 0 else "d3dcb9"), inside)
            image = mix(image, colour("7d9c86"), inside * _soft(vein, 0.006))
    for bx, by in ((0.26, 0.28), (-0.28, 0.02), (0.30, -0.22)):
        berry = np.hypot(x - bx, y - by)
        image = mix(image, colour("d9a05b"), _soft(berry - 0.022, 0.008))
        image = mix(image, colour("f0d9a8"), _soft(berry - 0.009, 0.006))
    return np.clip(image * (0.92 + 0.16 * noise((size, size), 0.7, rng))[..., None], 0, 1)


def rug(rng: np.random.Generator, *, size: int = 1024) -> np.ndarray:
    """A round rug: rings of zigzags, petals and dots around a rosette."""
    v, u = axes(size, size)
    y, x = v * 2 - 1, u * 2 - 1
    r, a = np.hypot(x, y), np.arctan2(y, x)
    palette = [colour(c) for c in ("7d2f2b", "d8b98a", "26394f", "c7793f", "e6d9bd", "4c6a60")]
    image = np.broadcast_to(palette[0], (size, size, 3))
    teeth = np.abs((a * 48 / (2 * np.pi)) % 1 - 0.5) * 2
    image = mix(image, palette[2], _soft(np.abs(r - 0.86) - 0.09, 0.004))
    image = mix(image, palette[1], _soft(np.abs(r - 0.86 + 0.05 * (teeth - 0.5)) - 0.022, 0.006))
    image = mix(image, palette[4], _soft(np.abs(r - 0.755) - 0.012, 0.004))
    dots = np.hypot((r - 0.69) * 22, ((a * 40 / (2 * np.pi)) % 1 - 0.5) * 2.0) - 0.55
    image = mix(image, palette[3], _soft(dots, 0.2))
    petals = r - 0.40 - 0.22 * np.abs(np.cos(a * 9)) ** 0.7
    image = mix(image, palette[1], _soft(petals, 0.006))
    image = mix(image, palette[5], _soft(petals + 0.035, 0.006))
    image = mix(image, palette[4], _soft(r - 0.27 - 0.09 * np.abs(np.cos(a * 6)), 0.006))
    image = mix(image, palette[0], _soft(r - 0.22 - 0.09 * np.abs(np.cos(a * 6)), 0.006))
    image = mix(image, palette[3], _soft(np.abs(np.sin(r * 70)) - 0.35, 0.2) * (r < 0.17))
    yarn = 0.80 + 0.4 * noise((size, size), 0.35, rng) * (0.7 + 0.3 * np.sin(r * 900))
    return np.clip(image * yarn[..., None], 0, 1)


def runner(rng: np.random.Generator, *, height: int = 512, width: int = 2048) -> np.ndarray:
    """A woven table runner: stripes along its length, rows of diamonds, visible threads."""
    v, u = axes(height, width, 1, 4)
    palette = [colour(c) for c in ("e8ddc6", "2f4a63", "b4482f", "d8a545")]
    image = np.broadcast_to(palette[0], (height, width, 3))
    edge = np.minimum(v, 1 - v)
    for low, high, which in ((0.03, 0.09, 1), (0.11, 0.125, 2), (0.14, 0.15, 1), (0.33, 0.345, 3), (0.36, 0.37, 1)):
        image = mix(image, palette[which], ((edge > low) & (edge < high)).astype(float))
    cell_u, cell_v = (u * 5) % 1 - 0.5, (edge - 0.24) / 0.16
    diamond = np.abs(cell_u) * 1.6 + np.abs(cell_v)
    for limit, which in ((0.52, 2), (0.38, 0), (0.26, 1), (0.12, 3)):
        image = mix(image, palette[which], (diamond < limit).astype(float) * (np.abs(cell_v) < 0.5))
    centre = np.abs((u * 10) % 1 - 0.5) * 1.1 + np.abs(v - 0.5) / 0.2
    for limit, which in ((0.55, 1), (0.42, 3), (0.30, 2), (0.14, 0)):
        image = mix(image, palette[which], (centre < limit).astype(float))
    threads = (
        0.86
        + 0.10 * np.sin(v * np.pi * 200) * np.sin(u * np.pi * 180)
        + 0.16 * (noise((height, width), 0.5, rng, (1, 6)) - 0.5)
    )
    return np.clip(image * threads[..., None] * 1.05, 0, 1)


def cover(rng: np.random.Generator, kind: str, ground: str, ink: str, *, size: int = 512) -> np.ndarray:
    """A book cover: ``scales``, ``maze``, ``rays``, ``chevron`` or ``dots`` within a border; no lettering."""
    v, u = axes(size, size)
    if kind == "scales":
        y, x = v * 14, u * 10
        x = x + 0.5 * (y.astype(int) % 2)
        mark = _soft(np.abs(((np.hypot(x % 1 - 0.5, y % 1)) * 3) % 1 - 0.5) - 0.2, 0.12)
    elif kind == "maze":
        y, x = v * 12, u * 9
        flip = rng.integers(0, 2, size=(12, 9))[y.astype(int), x.astype(int)]
        s, t = np.where(flip, x % 1, 1 - x % 1), y % 1
        arc = np.minimum(np.abs(np.hypot(s, t) - 0.5), np.abs(np.hypot(1 - s, 1 - t) - 0.5))
        mark = _soft(arc - 0.12, 0.06)
    elif kind == "rays":
        a, r = np.arctan2(v - 0.62, u - 0.5), np.hypot(v - 0.62, u - 0.5)
        mark = np.where(r < 0.17, _soft(np.abs((r * 40) % 1 - 0.5) - 0.25, 0.1), _soft(np.sin(a * 36) * 0.2, 0.08))
    elif kind == "chevron":
        mark = _soft(np.abs((v * 16 + np.abs((u * 8) % 1 - 0.5) * 2) % 1 - 0.5) - 0.22, 0.08)
    else:
        y, x = v * 18, u * 13
        mark = _soft(np.hypot((x + 0.5 * (y.astype(int) % 2)) % 1 - 0.5, y % 1 - 0.5) - 0.28, 0.1)
    border = np.minimum(np.minimum(v, 1 - v), np.minimum(u, 1 - u))
    mark = np.where(border < 0.05, 0, np.where(border < 0.065, 1, mark))
    return np.clip(
        mix(colour(ground), colour(ink), mark) * (0.88 + 0.24 * noise((size, size), 0.8, rng))[..., None], 0, 1
    )


def page_edges(rng: np.random.Generator, *, size: int = 256) -> np.ndarray:
    """The cut edge of a book: many thin lines along u."""
    lines = noise((size, 1), 0.2, rng)[:, :1] * np.ones((1, size))
    return mix(colour("efe6d2"), colour("b9a98a"), (lines - 0.35) * 1.6)


def written_page(rng: np.random.Generator, *, size: int = 512) -> np.ndarray:
    """A page whose lines are grey strokes (no letters), with a small drawing of hills."""
    v, u = axes(size, size)
    image = np.broadcast_to(colour("f1e9d8"), (size, size, 3))
    line = (v * 26).astype(int)
    words = noise((26, 64), 0.2, rng)[line, np.minimum((u * 64).astype(int), 63)] > 0.42
    body = (np.abs((v * 26) % 1 - 0.5) < 0.22) & words & (np.abs(u - 0.5) < 0.38) & (v > 0.45) & (v < 0.93)
    strokes = noise((size, size), 0.1, rng) > 0.40
    image = mix(image, colour("4a4540"), 0.85 * (body & strokes))
    inside = (np.abs(u - 0.5) < 0.36) & (v > 0.08) & (v < 0.40)
    for index, tone in enumerate(("c9dbe0", "9fb8a5", "6f9180", "c58a52")):
        top = 0.08 + 0.08 * index + 0.03 * np.sin(u * (7 + 4 * index) + index)
        image = mix(image, colour(tone), (inside & (v > top)).astype(float))
    return image


def painting(rng: np.random.Generator, kind: str, *, size: int = 512) -> np.ndarray:
    """A picture for the wall: ``hills``, ``circles`` or ``waves``."""
    v, u = axes(size, size)
    canvas = (noise((size, size), 0.6, rng) - 0.5)[..., None] * 0.16
    if kind == "hills":
        image = mix(colour("f2d7a8"), colour("86a9c0"), 1 - v * 1.4)
        image = mix(image, colour("f6ecc9"), _soft(np.hypot(u - 0.68, v - 0.27) - 0.08, 0.01))
        for index, tone in enumerate(("9db0b5", "6f8f8c", "47706a", "2f4f45", "6b5a34", "a8743a")):
            ridge = noise((size, size), 2.6, rng)[7]
            top = 0.30 + 0.11 * index + 0.20 * (ridge - 0.5)
            image = mix(image, colour(tone), _soft(top[None] - v, 0.006))
    elif kind == "circles":
        image = np.broadcast_to(colour("e9dfcb"), (size, size, 3))
        tones = ("c3452f", "27445c", "e0a53a", "5f8a78", "2a2a2e", "d98b6a")
        for index in range(22):
            cx, cy, radius = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0.04, 0.19)
            distance = np.hypot(u - cx, v - cy) - radius
            hollow = np.abs(distance) - 0.012 if index % 3 == 0 else distance
            image = mix(image, colour(tones[index % 6]), 0.9 * _soft(hollow, 0.006))
    else:
        image = np.broadcast_to(colour("1f3550"), (size, size, 3))
        for index in range(26):
            level = 0.03 + index * 0.038 + 0.03 * np.sin(u * 9 + index * 0.6) + 0.015 * np.sin(u * 23 - index)
            tone = colour(("e7e2d0", "5fa0a8", "d07a4c")[index % 3])
            image = mix(image, tone, _soft(np.abs(v - level) - 0.005 - 0.004 * (index % 3), 0.004))
    return np.clip(image + canvas, 0, 1)


def garden(rng: np.random.Generator, *, size: int = 512) -> np.ndarray:
    """What the window shows: sky, cloud, distant hills, foliage out of focus. Linear, about 0..1."""
    v, u = axes(size, size)
    cloud = np.clip(noise((size, size), 3.0, rng, (2, 1)) * 2.2 - 0.75, 0, 1)
    image = mix(mix(np.array([0.75, 0.88, 1.0]), np.array([0.40, 0.62, 0.98]), 1 - v * 1.3), np.ones(3), cloud)
    hill = 0.62 + 0.06 * np.sin(u * 5) + 0.03 * np.sin(u * 13)
    image = mix(image, np.array([0.30, 0.42, 0.40]), _soft(hill - v, 0.03))
    leaves = noise((size, size), 2.6, rng)
    tree = 0.74 + 0.5 * (0.5 - leaves) - 0.35 * np.exp(-(((u - 0.22) / 0.16) ** 2))
    foliage = mix(np.array([0.06, 0.14, 0.03]), np.array([0.26, 0.38, 0.10]), noise((size, size), 1.8, rng))
    return mix(image, foliage, _soft(tree - v, 0.04))


def glaze(rng: np.random.Generator, *, size: int = 512) -> np.ndarray:
    """Teal stoneware: speckles, a dripping pale band and brushed rings (v runs up the pot)."""
    v, u = axes(size, size)
    image = mix(colour("12606a"), colour("0b3d4f"), noise((size, size), 2.2, rng) * 1.4 - 0.2)
    drip = 0.34 + 0.10 * noise((size, size), 2.0, rng, (60, 1))[3][None] + 0.03 * np.sin(u * 6 * np.pi) ** 2
    image = mix(image, mix(colour("d9cfae"), colour("a9b59a"), noise((size, size), 1.6, rng)), _soft(drip - v, 0.02))
    petal = np.abs(((u * 14) % 1) - 0.5) * 2
    image = mix(image, colour("e3b95c"), _soft(np.abs(v - 0.50 - 0.05 * petal**2) - 0.008, 0.006))
    image = mix(image, colour("e3b95c"), _soft(np.hypot(((u * 14) % 1 - 0.5) * 0.5, (v - 0.60) * 5) - 0.09, 0.02))
    speck = np.clip(noise((size, size), 0.6, rng) * 6 - 4.3, 0, 1)
    return mix(image, colour("2a1c12"), speck * 0.8)[::-1].copy()


def striped_cup(rng: np.random.Generator, *, size: int = 256) -> np.ndarray:
    """Cream glaze with indigo brush rings and ticks."""
    v, u = axes(size, size)
    image = mix(colour("eee5d0"), colour("d8c8a6"), noise((size, size), 1.8, rng))
    ragged = (noise((size, size), 2.0, rng, (8, 1)) - 0.5) * 0.03
    for level in (0.12, 0.55, 0.60):
        image = mix(image, colour("24406e"), _soft(np.abs(v + ragged - level) - 0.010, 0.008))
    ticks = (np.abs((u * 24) % 1 - 0.5) < 0.14) & (np.abs(v + ragged - 0.35) < 0.13)
    return mix(image, colour("b7472e"), ticks.astype(float))


def terracotta(rng: np.random.Generator, *, size: int = 512) -> np.ndarray:
    """Unglazed clay with lime bloom and an incised zigzag."""
    v, u = axes(size, size)
    image = mix(colour("b8643c"), colour("8f4a2c"), noise((size, size), 1.3, rng, (1, 5)))
    bloom = np.clip(noise((size, size), 2.2, rng) * 3 - 1.6, 0, 1)
    image = mix(image, colour("ddc7ae"), bloom * 0.55)
    zigzag = np.abs(v - 0.5 - 0.06 * (np.abs((u * 16) % 1 - 0.5) * 4 - 1)) - 0.012
    return mix(image, colour("f0e2c8"), _soft(zigzag, 0.01))


def leaf(rng: np.random.Generator, pale: str, deep: str, *, size: int = 256) -> np.ndarray:
    """A long leaf with a pale stripe; u runs across, v along."""
    v, u = axes(size, size)
    across = np.abs(u - 0.5) * 2
    image = mix(colour(deep), colour(deep) * 1.5, noise((size, size), 1.2, rng, (20, 1)))
    image = mix(image, colour(pale), _soft(across - 0.30 - 0.1 * np.sin(v * 9), 0.15) * 0.85)
    return np.clip(mix(image, colour(deep) * 0.8, _soft(across - 0.04, 0.06)), 0, 1)


def skin(rng: np.random.Generator, base: str, shade: str, *, size: int = 256, freckle: float = 0.5) -> np.ndarray:
    """Fruit or stone: soft patches and freckles."""
    image = mix(colour(base), colour(shade), (noise((size, size), 2.0, rng) - 0.3) * 1.5)
    spots = np.clip(noise((size, size), 0.5, rng) * 5 - 3.2, 0, 1)
    return np.clip(mix(image, colour(shade) * 0.55, spots * freckle), 0, 1)


def straw(rng: np.random.Generator, *, size: int = 256) -> np.ndarray:
    """Dry willow for the basket."""
    return mix(colour("c69c5d"), colour("80552a"), noise((size, size), 1.2, rng, (12, 1)) * 1.5 - 0.35)


def curtain(rng: np.random.Generator, *, size: int = 512) -> np.ndarray:
    """Linen with thin rust stripes."""
    v, u = axes(size, size)
    image = mix(colour("dccfb6"), colour("bfae90"), noise((size, size), 0.7, rng, (6, 1)))
    stripe = np.minimum(np.abs((u * 8) % 1 - 0.5) - 0.09, np.abs((u * 8) % 1 - 0.2) - 0.02)
    return mix(image, colour("a8573a"), _soft(stripe, 0.02) * (0.85 + 0.15 * np.sin(v * 300)))
