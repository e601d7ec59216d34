"""From a posed image file to the pinhole cameras that training sees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from splat.geometry.camera import Camera
from splat.geometry.lens import Lens, Pinhole, panorama_sides, pinhole_matrix, pinhole_of
from splat.scene.capture import Capture, View
from splat.scene.image_files import ImageFile, target_size
from splat.scene.options import SceneOptions
from splat.scene.types import SceneError

# A pinhole that shows less than this share of the lens's angle is worth a sentence.
_CROP_WORTH_SAYING = 0.95


@dataclass(frozen=True, eq=False)
class PinholeMaker:
    """Straightens and sizes the cameras of one capture; ``notes`` collects what is worth saying."""

    capture: Capture
    options: SceneOptions
    notes: list[str]

    def cameras_of(self, view: View, image: ImageFile, mask: Path | None) -> list[Camera]:
        """One camera, or the six sides of a panorama."""
        lens = view.lens
        if view.lens_of_size is not None:
            lens = view.lens_of_size(image.header.width, image.header.height)
        assert lens is not None, "a loader gives one of the two"
        if not lens.is_panorama:
            return [self._camera(view, lens, image, mask)]
        sides = panorama_sides(lens)
        self.notes.append(f"{lens.model} images are cut into {', '.join(sides)}.")
        return [self._camera(_turned(view, name, side), side, image, mask) for name, side in sides.items()]

    def _camera(self, view: View, lens: Lens, image: ImageFile, mask: Path | None) -> Camera:
        """The camera at the size asked for; its intrinsics follow the file's true size, not the nominal one."""
        header = image.header
        pinhole = self._pinhole(lens)
        at_file = (pinhole.width * header.width / lens.width, pinhole.height * header.height / lens.height)
        size = target_size(round(at_file[0]), round(at_file[1]), image.folder.downscale, self.options.max_size)
        background = self.options.background or self.capture.background
        nominal = Camera(
            name=view.name,
            camera_from_world=view.camera_from_world,
            K=pinhole.K,
            width=pinhole.width,
            height=pinhole.height,
            image_path=image.path,
            mask_path=mask,
            mask_inverted=self.options.invert_masks,
            lens=None if lens.is_pinhole else lens,
            time=view.time,
            background=background if header.has_alpha else None,
        )
        return nominal.resized(*size)

    def _pinhole(self, lens: Lens) -> Pinhole:
        if lens.is_pinhole:
            return Pinhole(pinhole_matrix(lens), lens.width, lens.height, (0.0, 0.0), (0.0, 0.0))
        try:
            pinhole = pinhole_of(lens)
        except ValueError as error:
            raise SceneError(f"{self.capture.source}: {error}") from None
        for axis, have, seen in zip(("wide", "high"), pinhole.fov_deg, pinhole.lens_fov_deg, strict=True):
            if have < _CROP_WORTH_SAYING * seen:
                self.notes.append(
                    f"{lens.model} images are cropped to a pinhole {have:.0f} of {seen:.0f} degrees {axis}."
                )
        return pinhole


def _turned(view: View, side: str, lens: Lens) -> View:
    """The view seen through one side of its panorama: ``a/b.jpg`` becomes ``a/b@left.jpg``."""
    pinhole_from_lens = np.eye(4)
    pinhole_from_lens[:3, :3] = np.reshape(lens.turn or (), (3, 3)).T
    path = PurePosixPath(view.name)
    name = str(path.with_name(f"{path.stem}@{side}{path.suffix}"))
    return replace(view, name=name, camera_from_world=pinhole_from_lens @ view.camera_from_world)
