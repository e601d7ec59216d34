"""Triangle meshes from formulas. Lengths are metres, z is up, texture coordinates count texture repeats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles with one texture coordinate per vertex."""

    vertices: np.ndarray  # [V,3] metres
    faces: np.ndarray  # [F,3]
    uv: np.ndarray  # [V,2] texture repeats
    smooth: bool = True

    def moved(self, x: float = 0, y: float = 0, z: float = 0, *, turn_deg: float = 0) -> Mesh:
        """The mesh turned about the z axis, then shifted."""
        return self.placed(rotation_z(turn_deg), (x, y, z))

    def placed(self, rotation: np.ndarray, offset: tuple[float, float, float]) -> Mesh:
        """The mesh rotated by ``rotation`` [3,3], then shifted."""
        return Mesh(self.vertices @ rotation.T + np.asarray(offset), self.faces, self.uv, self.smooth)

    def tiled(self, repeats_u: float, repeats_v: float) -> Mesh:
        """The mesh with its texture repeated more often."""
        return Mesh(self.vertices, self.faces, self.uv * (repeats_u, repeats_v), self.smooth)

    def normals(self) -> np.ndarray:  # [V,3]
        """Area-weighted vertex normals; vertices at one place share theirs, so texture seams do not show."""
        a, b, c = (self.vertices[self.faces[:, i]] for i in range(3))
        face_normals = np.cross(b - a, c - a)
        _, place = np.unique(np.round(self.vertices, 6), axis=0, return_inverse=True)
        place = place.reshape(-1)
        total = np.zeros((place.max() + 1, 3))
        for corner in range(3):
            np.add.at(total, place[self.faces[:, corner]], face_normals)
        normals = total[place]
        return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)

    def write_ply(self, path: Path) -> None:
        """A binary PLY as mitsuba reads it."""
        columns = [self.vertices, self.normals(), self.uv] if self.smooth else [self.vertices, self.uv]
        names = ["x", "y", "z"] + (["nx", "ny", "nz"] if self.smooth else []) + ["u", "v"]
        header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(self.vertices)}"]
        header += [f"property float {name}" for name in names]
        header += [f"element face {len(self.faces)}", "property list uchar int vertex_indices", "end_header"]
        rows = np.zeros(len(self.faces), dtype=[("n", "u1"), ("v", "<i4", 3)])
        rows["n"], rows["v"] = 3, self.faces
        vertex_bytes = np.concatenate(columns, axis=1).astype("<f4").tobytes()
        path.write_bytes("\n".join(header).encode() + b"\n" + vertex_bytes + rows.tobytes())


def merged(meshes: list[Mesh]) -> Mesh:
    """One mesh of several."""
    starts = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.faces + start for m, start in zip(meshes, starts, strict=True)]),
        np.concatenate([m.uv for m in meshes]),
        meshes[0].smooth,
    )


def rotation_z(degrees: float) -> np.ndarray:  # [3,3]
    """Turn about the vertical axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def rotation_x(degrees: float) -> np.ndarray:  # [3,3]
    """Turn about the x axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1.0, 0, 0], [0, c, -s], [0, s, c]])


def rotation_y(degrees: float) -> np.ndarray:  # [3,3]
    """Turn about the y axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, 0, s], [0, 1.0, 0], [-s, 0, c]])


def grid(points: np.ndarray, uv: np.ndarray | None = None, *, smooth: bool = True) -> Mesh:
    """A surface through ``points`` [A,B,3]; ``uv`` [A,B,2] runs 0..1 along B and A when left out."""
    rows, columns = points.shape[:2]
    if uv is None:
        u, v = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
        uv = np.stack([u, v], axis=-1)
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], axis=2).reshape(-1, 3)
    return Mesh(points.reshape(-1, 3).astype(float), faces, uv.reshape(-1, 2).astype(float), smooth)


def lathe(profile: list[tuple[float, float]], *, sides: int = 72, steps: int = 60) -> Mesh:
    """A profile of (radius, height) points, smoothed by a Catmull-Rom curve and turned about z."""
    radius, height = spline(np.asarray(profile, float), steps).T
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    radius = np.maximum(radius, 0)
    points = np.stack(
        [np.outer(radius, np.cos(angle)), np.outer(radius, np.sin(angle)), np.repeat(height[:, None], sides + 1, 1)], -1
    )
    return grid(points)


def spline(knots: np.ndarray, count: int) -> np.ndarray:  # [K,D] -> [count,D]
    """A Catmull-Rom curve through the knots, even in the knot parameter."""
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    at = np.linspace(0, len(knots) - 1, count)
    segment = np.minimum(at.astype(int), len(knots) - 2)
    t = (at - segment)[:, None]
    p0, p1, p2, p3 = (padded[segment + i] for i in range(4))
    return 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)


def tube(path: np.ndarray, radius: float | np.ndarray, *, sides: int = 8, closed: bool = False) -> Mesh:
    """A round tube along ``path`` [N,3]; ``radius`` in metres, one value or [N]."""
    if closed:
        path = np.concatenate([path, path[:1]])
        tangents = np.roll(path[:-1], -1, 0) - np.roll(path[:-1], 1, 0)
        tangents = np.concatenate([tangents, tangents[:1]])
    else:
        tangents = np.gradient(path, axis=0)
    tangents = tangents / np.linalg.norm(tangents, axis=1, keepdims=True)
    start = np.cross(tangents[0], np.eye(3)[np.argmin(np.abs(tangents[0]))])
    side = np.empty_like(tangents)
    for i, tangent in enumerate(tangents):  # parallel transport: the frame never spins
        start = start - tangent * (start @ tangent)
        start = start / np.linalg.norm(start)
        side[i] = start
    other = np.cross(tangents, side)
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    circle = np.cos(angle)[None, :, None] * side[:, None] + np.sin(angle)[None, :, None] * other[:, None]
    reach = np.broadcast_to(np.asarray(radius, float), (len(path),))[:, None, None]
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    u, v = np.meshgrid(np.linspace(0, 1, sides + 1), length)
    return grid(path[:, None] + reach * circle, np.stack([u, v], -1))


def rod(start: tuple, end: tuple, radius: float, *, sides: int = 8) -> Mesh:
    """A straight tube between two points."""
    return tube(np.linspace(np.asarray(start, float), np.asarray(end, float), 2), radius, sides=sides)


def ring(radius: float, thickness: float, *, sides: int = 8, steps: int = 64) -> Mesh:
    """A torus in the x-z plane."""
    angle = np.arange(steps) / steps * 2 * np.pi
    return tube(radius * np.stack([np.cos(angle), 0 * angle, np.sin(angle)], -1), thickness, sides=sides, closed=True)


def rounded_box(size: tuple[float, float, float], bevel: float, *, metres_per_repeat: float = 1.0) -> Mesh:
    """A box centred at the origin with rounded edges; texture coordinates are planar and in proportion."""
    half = np.asarray(size, float) / 2
    bevel = min(bevel, *(half * 0.99))
    parts = []
    for axis in range(3):
        u_axis, v_axis = [(1, 2), (0, 2), (0, 1)][axis]
        for sign in (-1.0, 1.0):
            ticks = [_edge_ticks(half[a], bevel) for a in (u_axis, v_axis)]
            u, v = np.meshgrid(*ticks)
            points = np.zeros((*u.shape, 3))
            points[..., u_axis], points[..., v_axis], points[..., axis] = u, v, sign * half[axis]
            inner = np.clip(points, -(half - bevel), half - bevel)
            away = points - inner
            length = np.maximum(np.linalg.norm(away, axis=-1, keepdims=True), 1e-12)
            mesh = grid(inner + bevel * away / length, np.stack([u, v], -1) / metres_per_repeat)
            flip = (sign > 0) == (axis == 1)  # so that every face looks outwards
            parts.append(Mesh(mesh.vertices, mesh.faces[:, ::-1], mesh.uv) if flip else mesh)
    return merged(parts)


def _edge_ticks(half: float, bevel: float) -> np.ndarray:
    corner = half - bevel + bevel * np.tan(np.linspace(0, np.pi / 4, 4))
    return np.concatenate([-corner[::-1], corner])


def blob(radii: tuple[float, float, float], *, bumps: float = 0.0, seed: int = 0, steps: int = 48) -> Mesh:
    """An ellipsoid with a few gentle bumps (a fraction of the radius)."""
    rng = np.random.default_rng(seed)
    latitude, longitude = np.meshgrid(
        np.linspace(-np.pi / 2, np.pi / 2, steps), np.linspace(0, 2 * np.pi, 2 * steps), indexing="ij"
    )
    direction = np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], -1
    )
    swell = np.ones(latitude.shape)
    for _ in range(6):
        wave = rng.normal(size=3) * 2.2
        swell += bumps / 2 * np.sin(direction @ wave + rng.uniform(0, 6.3))
    return grid(direction * np.asarray(radii) * swell[..., None])


def strip(path: np.ndarray, width: np.ndarray, side: np.ndarray, fold: float = 0.25) -> Mesh:
    """A leaf: a band along ``path`` [N,3] of half-width ``width`` [N], folded upwards along its midrib."""
    across = np.linspace(-1, 1, 5)
    lift = np.cross(side, np.gradient(path, axis=0))
    lift = lift / np.maximum(np.linalg.norm(lift, axis=1, keepdims=True), 1e-12)
    lift = lift * np.where(lift[:, 2:] < 0, -1, 1)
    points = path[:, None] + width[:, None, None] * (
        across[None, :, None] * side[None, None] + fold * np.abs(across)[None, :, None] * lift[:, None]
    )
    return grid(points)
