"""Collects meshes with their materials and makes a mitsuba scene of them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from .meshes import Mesh, merged

MAX_BOUNCES = 6
"""Path vertices per sample; the room is closed and pale, so the last bounces still carry light."""


class Stage:
    """A scene being built. Materials are plain mitsuba dictionaries, shared by name."""

    def __init__(self, mitsuba):
        self.mitsuba = mitsuba
        self.materials: dict[str, dict] = {}
        self.parts: list[tuple[Mesh, str, dict | None]] = []

    def texture(self, image: np.ndarray) -> dict:
        """A repeating texture of an sRGB picture [H,W,3] in 0..1."""
        pixels = np.ascontiguousarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8))
        return {"type": "bitmap", "bitmap": self.mitsuba.Bitmap(pixels), "wrap_mode": "repeat"}

    def paint(self, name: str, surface: np.ndarray | str, *, gloss: float | None = None) -> None:
        """A matt paint, or, with ``gloss`` (the roughness of its clear coat, 0..1), a glossy one."""
        if isinstance(surface, str):
            rgb = [int(surface[i : i + 2], 16) / 255 for i in (0, 2, 4)]
            reflectance = {"type": "rgb", "value": [float(c**2.2) for c in rgb]}
        else:
            reflectance = self.texture(surface)
        if gloss is None:
            inner = {"type": "diffuse", "reflectance": reflectance}
        else:
            inner = {"type": "roughplastic", "diffuse_reflectance": reflectance, "alpha": gloss, "int_ior": 1.5}
        self.materials[name] = {"type": "twosided", "inner": inner}

    def metal(self, name: str, rgb: tuple[float, float, float], roughness: float) -> None:
        """A coloured metal; ``rgb`` is its linear reflectance."""
        reflectance = {"type": "rgb", "value": list(rgb)}
        inner = {"type": "roughconductor", "material": "none", "specular_reflectance": reflectance, "alpha": roughness}
        self.materials[name] = {"type": "twosided", "inner": inner}

    def add(self, material: str, *meshes: Mesh) -> None:
        """Put meshes on the stage."""
        for mesh in meshes:
            self.parts.append((mesh, material, None))

    def add_light(self, mesh: Mesh, radiance: dict) -> None:
        """Put a glowing mesh on the stage."""
        self.parts.append((mesh, "", {"type": "area", "radiance": radiance}))

    def build(self):
        """The mitsuba scene, with a path tracer inside."""
        scene = {"type": "scene", "integrator": {"type": "path", "max_depth": MAX_BOUNCES, "rr_depth": 3}}
        scene["black"] = {"type": "diffuse", "reflectance": {"type": "rgb", "value": 0.0}}
        for name, material in self.materials.items():
            scene[f"material_{name}"] = {**material, "id": f"material_{name}"}
        with tempfile.TemporaryDirectory() as folder:
            for number, (mesh, material, light) in enumerate(self._joined()):
                path = Path(folder) / f"{number}.ply"
                mesh.write_ply(path)
                shape = {"type": "ply", "filename": str(path), "face_normals": not mesh.smooth}
                if light is None:
                    shape["bsdf"] = {"type": "ref", "id": f"material_{material}"}
                else:
                    shape |= {"emitter": light, "bsdf": {"type": "diffuse"}}
                scene[f"shape_{number}"] = shape
            return self.mitsuba.load_dict(scene)

    def _joined(self) -> list[tuple[Mesh, str, dict | None]]:
        """One mesh per material and shading: fewer shapes trace faster."""
        groups: dict[tuple[str, bool], list[Mesh]] = {}
        for mesh, material, light in self.parts:
            if light is None:
                groups.setdefault((material, mesh.smooth), []).append(mesh)
        joined = [(merged(meshes), material, None) for (material, _), meshes in groups.items()]
        return joined + [part for part in self.parts if part[2] is not None]
