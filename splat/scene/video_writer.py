"""Encoders that need OpenCV: MP4 frame by frame, and JPEG in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np

from splat.errors import UserError

_CODECS = ("avc1", "mp4v")
"""Tried in this order: browsers play H.264, every OpenCV build has MPEG-4 part 2."""


class VideoWriter:
    """A context manager that turns RGB frames [H,W,3] uint8 of one size into an MP4 file."""

    def __init__(self, path: str | Path, *, fps: float, width: int, height: int) -> None:
        self.path = Path(path)
        # Video codecs halve the colour resolution: sides must be even.
        self.width, self.height = width - width % 2, height - height % 2
        self._stream = _open_stream(self.path, fps, (self.width, self.height))

    def add(self, frame: np.ndarray) -> None:
        """Append one RGB frame."""
        if frame.shape[0] < self.height or frame.shape[1] < self.width:
            raise ValueError(f"frame is {frame.shape}, the video {self.width}x{self.height}")
        self._stream.write(np.ascontiguousarray(frame[: self.height, : self.width, ::-1]))

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.release()
        if kind is None and (not self.path.exists() or self.path.stat().st_size == 0):
            raise UserError(f"{self.path}: the video could not be written; is there space left? PNG frames always work")


def _open_stream(path: Path, fps: float, size: tuple[int, int]):
    import cv2

    with _quiet_codecs():
        for codec in _CODECS:
            stream = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, size)
            if stream.isOpened():
                return stream
            stream.release()
    raise UserError(f"{path}: this OpenCV build writes no MP4 here; give a folder as output to get PNG frames")


@contextmanager
def _quiet_codecs() -> Iterator[None]:
    """A codec that is not built in is expected while we try them; OpenCV and FFmpeg would print it as an error."""
    import cv2

    variable = "OPENCV_FFMPEG_LOGLEVEL"
    before_level, before_variable = cv2.utils.logging.getLogLevel(), os.environ.get(variable)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    os.environ[variable] = "-8"  # AV_LOG_QUIET
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before_level)
        os.environ.pop(variable) if before_variable is None else os.environ.update({variable: before_variable})


def encode_jpeg(pixels: np.ndarray, *, quality: int = 85) -> bytes:
    """The JPEG file of an RGB picture [H,W,3] uint8."""
    import cv2

    good, data = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not good:
        raise ValueError(f"a picture of shape {pixels.shape} cannot be encoded as JPEG")
    return data.tobytes()


def shrunk(pixels: np.ndarray, max_width: int) -> np.ndarray:
    """The picture at most ``max_width`` wide, by area averaging."""
    import cv2

    height, width = pixels.shape[:2]
    if width <= max_width:
        return pixels
    size = max_width, max(1, round(height * max_width / width))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
