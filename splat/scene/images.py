"""Pixels: decoding, straightening, downscaling, and the bounded cache that training reads from."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from splat.geometry.camera import Camera
from splat.geometry.lens import Lens, fold_angle, pinhole_of, project
from splat.scene.image_header import ImageHeader
from splat.scene.types import Frame, SceneError

DEFAULT_CACHE_SHARE = 0.25  # of the machine's memory: the rest belongs to the model and its optimizer
DEFAULT_CACHE_LIMIT = 6 << 30
_SEAM_PX = 2  # what cubic resampling reaches beyond an edge
_MAPS_KEPT = 8  # undistortion maps in memory: one per lens and size, 9 bytes a pixel


def default_budget_bytes() -> int:
    """A quarter of the machine's memory, at most 6 GiB."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        total = 8 << 30
    return min(DEFAULT_CACHE_LIMIT, int(total * DEFAULT_CACHE_SHARE))


def decoded_header(path: Path) -> ImageHeader | None:
    """Size and alpha of a format whose header we do not read ourselves, by decoding it."""
    pixels = _imread(path, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim not in (2, 3):
        return None
    has_alpha = pixels.ndim == 3 and pixels.shape[2] == 4
    return ImageHeader(pixels.shape[1], pixels.shape[0], has_alpha, is_cut_short=False)


class ImageStore:
    """Frames of a list of cameras, decoded when asked for and kept while they fit.

    ``frame`` and ``prefetch`` may be called from any thread. What a frame holds depends only on its
    camera, never on the cache.
    """

    def __init__(self, cameras: Sequence[Camera], *, budget_bytes: int | None = None, workers: int = 2) -> None:
        self._cameras = tuple(cameras)
        self._budget_bytes = default_budget_bytes() if budget_bytes is None else budget_bytes
        self._lock = threading.Lock()
        self._frames: OrderedDict[int, Frame] = OrderedDict()
        self._held_bytes = 0
        self._pending: dict[int, Future[Frame]] = {}
        self._maps = _UndistortionMaps()
        self._pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="splat-images")

    def __len__(self) -> int:
        return len(self._cameras)

    @property
    def held_bytes(self) -> int:
        """Bytes of decoded frames in the cache."""
        return self._held_bytes

    def frame(self, index: int) -> Frame:
        """Pixels of one camera, at the camera's size. Raises SceneError when the file cannot be decoded."""
        with self._lock:
            held = self._frames.get(index)
            if held is not None:
                self._frames.move_to_end(index)
                return held
            pending = self._pending.get(index)
            mine = pending is None
            if pending is None:
                pending = self._pending[index] = Future()
        if mine:
            self._fulfil(index, pending)
        return pending.result()

    def prefetch(self, indices: Iterable[int]) -> None:
        """Decode these soon, in the background; as many of them as half of the budget holds."""
        room = self._budget_bytes // 2
        for index in indices:
            camera = self._cameras[index]
            room -= camera.width * camera.height * 4
            if room < 0:
                return
            with self._lock:
                if index in self._frames:
                    self._frames.move_to_end(index)
                    continue
                if index in self._pending:
                    continue
                future: Future[Frame] = Future()
                self._pending[index] = future
            try:
                self._pool.submit(self._fulfil, index, future)
            except RuntimeError:  # closed meanwhile
                with self._lock:
                    self._pending.pop(index, None)
                future.cancel()
                return

    def close(self) -> None:
        """Stop the background threads. Frames already waited for still arrive."""
        self._pool.shutdown(wait=True, cancel_futures=False)

    def __enter__(self) -> ImageStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fulfil(self, index: int, future: Future[Frame]) -> None:
        try:
            frame = read_frame(self._cameras[index], self._maps)
        except BaseException as error:
            with self._lock:
                self._pending.pop(index, None)
            future.set_exception(error)
            return
        with self._lock:
            self._pending.pop(index, None)
            self._keep(index, frame)
        future.set_result(frame)

    def _keep(self, index: int, frame: Frame) -> None:
        size = _frame_bytes(frame)
        if size > self._budget_bytes:
            return
        self._frames[index] = frame
        self._held_bytes += size
        while self._held_bytes > self._budget_bytes:
            _, oldest = self._frames.popitem(last=False)
            self._held_bytes -= _frame_bytes(oldest)


def _frame_bytes(frame: Frame) -> int:
    return frame.pixels.nbytes + (0 if frame.mask is None else frame.mask.nbytes)


class _UndistortionMaps:
    """Where each pinhole pixel lies in the working picture, and which of them the lens shows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._maps: OrderedDict[tuple, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def of(self, lens: Lens, camera: Camera, work: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        key = (lens, camera.K.tobytes(), camera.width, camera.height, work)
        with self._lock:
            if key in self._maps:
                self._maps.move_to_end(key)
                return self._maps[key]
        made = undistortion_map(lens, camera.K, camera.width, camera.height, work)
        with self._lock:
            self._maps[key] = made
            while len(self._maps) > _MAPS_KEPT:
                self._maps.popitem(last=False)
        return made


def undistortion_map(
    lens: Lens, K: np.ndarray, width: int, height: int, work: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:  # [H,W,2] float32, [H,W] uint8
    """Sampling positions, in array indices of a picture of size ``work``, and 255 where they are valid."""
    positions = np.empty((height, width, 2), dtype=np.float32)
    valid = np.empty((height, width), dtype=np.uint8)
    x = (np.arange(width) + 0.5 - K[0, 2]) / K[0, 0]
    furthest = np.inf if lens.is_panorama else np.tan(fold_angle(lens))
    ratio = np.array([work[0] / lens.width, work[1] / lens.height])
    for row in range(height):  # by rows: a whole 24 Mpx grid of doubles would not be small
        y = (row + 0.5 - K[1, 2]) / K[1, 1]
        rays = np.column_stack([x, np.full(width, y), np.ones(width)])
        pixels = project(lens, rays) * ratio
        inside = (np.hypot(x, y) <= furthest) & np.isfinite(pixels).all(axis=1)
        pixels[~inside] = -1e4  # far outside, and harmless to the resampler
        inside &= (pixels >= 0).all(axis=1) & (pixels <= work).all(axis=1)
        positions[row] = pixels - 0.5  # COLMAP's first pixel centre is 0.5, an array's is 0
        valid[row] = 255 * inside
    return positions, valid


def read_frame(camera: Camera, maps: _UndistortionMaps | None = None) -> Frame:
    """Decode one camera's image and mask and bring both to the camera's pinhole and size."""
    if camera.image_path is None:
        raise SceneError(f"view {camera.name} has no image file")
    color, alpha = _decode(camera.image_path, camera.background)
    mask = alpha
    if camera.mask_path is not None:
        height, width = color.shape[:2]
        drawn = _resized(_decode_mask(camera.mask_path, camera.mask_inverted), width, height)
        mask = drawn if mask is None else (mask.astype(np.uint16) * drawn // 255).astype(np.uint8)
    if camera.lens is None:
        mask = None if mask is None else _resized(mask, camera.width, camera.height)
        return Frame(_resized(color, camera.width, camera.height), mask)
    return _straightened(color, mask, camera, camera.lens, maps or _UndistortionMaps())


def _straightened(
    color: np.ndarray, mask: np.ndarray | None, camera: Camera, lens: Lens, maps: _UndistortionMaps
) -> Frame:
    """Shrink first, so that resampling does not alias; then sample the pinhole out of the smaller picture."""
    canvas = pinhole_of(lens)
    scale = (camera.width / canvas.width, camera.height / canvas.height)
    work = (max(1, round(lens.width * scale[0])), max(1, round(lens.height * scale[1])))
    positions, valid = maps.of(lens, camera, work)
    pixels = _sampled(_resized(color, *work), positions, cv2.INTER_CUBIC, closed=lens.is_panorama)
    if mask is None:
        return Frame(pixels, None if valid.all() else valid.copy())
    seen = _sampled(_resized(mask, *work), positions, cv2.INTER_LINEAR, closed=lens.is_panorama)
    return Frame(pixels, np.minimum(seen, valid))


def _sampled(picture: np.ndarray, positions: np.ndarray, kind: int, *, closed: bool) -> np.ndarray:
    """The picture at the positions; a closed one goes on at its left edge where its right edge ends."""
    if closed:
        around = [(0, 0), (_SEAM_PX, _SEAM_PX), (0, 0)][: picture.ndim]
        picture, positions = np.pad(picture, around, mode="wrap"), positions + np.float32([_SEAM_PX, 0])
    return cv2.remap(picture, positions, None, kind, borderMode=cv2.BORDER_REPLICATE)


def _resized(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Area-averaged when it shrinks; cubic when it grows."""
    if picture.shape[:2] == (height, width):
        return picture
    grows = width > picture.shape[1] or height > picture.shape[0]
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC if grows else cv2.INTER_AREA)


def _decode(path: Path, background: tuple[float, float, float] | None) -> tuple[np.ndarray, np.ndarray | None]:
    """[H,W,3] RGB and, when the file is transparent and no background is given, [H,W] alpha."""
    pixels = _imread(path, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise SceneError(f"{path}: cannot be decoded as an image; the file is damaged or of an unknown format")
    pixels = _as_uint8(pixels, path)
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), None
    if pixels.shape[2] == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), None
    if pixels.shape[2] != 4:
        raise SceneError(f"{path}: has {pixels.shape[2]} channels; expected grey, RGB or RGBA")
    color, alpha = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB), np.ascontiguousarray(pixels[..., 3])
    if background is None:
        return color, None if (alpha == 255).all() else alpha
    weight = alpha[..., None].astype(np.float32) / 255.0
    behind = 255.0 * np.asarray(background, dtype=np.float32)
    return np.rint(color * weight + behind * (1.0 - weight)).astype(np.uint8), None


def _decode_mask(path: Path, inverted: bool) -> np.ndarray:  # [H,W] uint8
    pixels = _imread(path, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise SceneError(f"{path}: the mask cannot be decoded as an image")
    return 255 - pixels if inverted else pixels


def _imread(path: Path, flags: int) -> np.ndarray | None:
    """Read through memory: cv2's own file access neither takes every path nor tells why it failed."""
    try:
        data = np.fromfile(path, dtype=np.uint8)
        return cv2.imdecode(data, flags) if len(data) else None
    except (OSError, cv2.error):
        return None


def _as_uint8(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    raise SceneError(f"{path}: holds {pixels.dtype} values; expected 8 or 16 bits per channel")
