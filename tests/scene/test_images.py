"""The image store: what frames hold, the bounded cache, and undistortion."""

from __future__ import annotations

import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scene_writer import HEIGHT, WIDTH, picture, write_capture, write_image, write_mask

from splat.geometry.lens import LENS_MODELS, Lens, pinhole_of, project
from splat.scene import images
from splat.scene.image_header import read_header
from splat.scene.images import ImageStore, default_budget_bytes, read_frame
from splat.scene.open import open_scene
from splat.scene.options import SceneOptions
from splat.scene.types import SceneError

NAMES = [f"{index:02d}.png" for index in range(12)]
FRAME_BYTES = WIDTH * HEIGHT * 3


@pytest.fixture
def scene(tmp_path):
    return open_scene(write_capture(tmp_path, NAMES))


@pytest.fixture
def decodes(monkeypatch):
    """Counts how often each view is decoded."""
    counts: dict[str, int] = {}
    lock = threading.Lock()
    original = images.read_frame

    def counting(camera, maps=None):
        with lock:
            counts[camera.name] = counts.get(camera.name, 0) + 1
        return original(camera, maps)

    monkeypatch.setattr(images, "read_frame", counting)
    return counts


def test_frames_are_uint8_of_the_cameras_size(scene):
    with ImageStore(scene.cameras) as store:
        assert len(store) == 12
        for index, camera in enumerate(scene.cameras):
            frame = store.frame(index)
            assert frame.pixels.dtype == np.uint8 and frame.pixels.shape == (camera.height, camera.width, 3)
            np.testing.assert_array_equal(frame.pixels, picture(seed=index))
            assert frame.mask is None


def test_what_fits_is_decoded_once(scene, decodes):
    with ImageStore(scene.cameras, budget_bytes=12 * FRAME_BYTES) as store:
        for index in [*range(12), *range(12)]:
            store.frame(index)
        assert set(decodes.values()) == {1} and store.held_bytes == 12 * FRAME_BYTES


def test_a_capture_larger_than_the_budget_still_gives_every_frame(scene, decodes):
    with ImageStore(scene.cameras, budget_bytes=3 * FRAME_BYTES) as store:
        for index in [*range(12), *range(12)]:
            np.testing.assert_array_equal(store.frame(index).pixels, picture(seed=index))
            assert store.held_bytes <= 3 * FRAME_BYTES
        assert set(decodes.values()) == {2}
        store.frame(11)
        assert decodes["11.png"] == 2, "the most recent ones are kept"


def test_a_frame_larger_than_the_budget_is_not_kept(scene):
    with ImageStore(scene.cameras, budget_bytes=10) as store:
        np.testing.assert_array_equal(store.frame(3).pixels, picture(seed=3))
        assert store.held_bytes == 0


def test_prefetched_frames_are_decoded_once_and_within_the_budget(scene, decodes):
    with ImageStore(scene.cameras, budget_bytes=100 * FRAME_BYTES, workers=3) as store:
        store.prefetch(range(12))
        store.prefetch(range(12))
        for index in range(12):
            np.testing.assert_array_equal(store.frame(index).pixels, picture(seed=index))
    assert set(decodes.values()) == {1} and len(decodes) == 12
    decodes.clear()
    with ImageStore(scene.cameras, budget_bytes=6 * FRAME_BYTES) as store:
        store.prefetch(range(12))
    assert 1 <= len(decodes) <= 3, "half of the budget at most"


def test_many_threads_see_the_same_pixels(scene):
    truth = [picture(seed=index) for index in range(12)]
    wrong: list[int] = []
    with ImageStore(scene.cameras, budget_bytes=4 * FRAME_BYTES, workers=2) as store:

        def walk(seed: int) -> None:
            for index in np.random.default_rng(seed).integers(0, 12, 60).tolist():
                store.prefetch([(index + 1) % 12])
                if not (store.frame(index).pixels == truth[index]).all():
                    wrong.append(index)

        threads = [threading.Thread(target=walk, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_file_that_breaks_later_names_itself_and_does_not_hang(scene):
    path = scene.cameras[4].image_path
    path.write_bytes(path.read_bytes()[:40])
    with ImageStore(scene.cameras) as store:
        store.prefetch([4])
        for _ in range(2):
            with pytest.raises(SceneError, match=r"04.png: cannot be decoded"):
                store.frame(4)
        np.testing.assert_array_equal(store.frame(5).pixels, picture(seed=5))


def test_after_closing_frames_still_come(scene):
    store = ImageStore(scene.cameras)
    store.close()
    store.prefetch([1])
    np.testing.assert_array_equal(store.frame(1).pixels, picture(seed=1))


def test_the_default_budget_is_bounded():
    assert 0 < default_budget_bytes() <= 6 << 30
    assert SceneOptions(cache_gib=0.5).cache_bytes == 1 << 29 and SceneOptions().cache_bytes is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_16_bit_files(tmp_path, scene, dtype, channels):
    value = np.full((HEIGHT, WIDTH, channels), 1000 if dtype == np.uint16 else 4, dtype)
    ok, data = cv2.imencode(".png", value)
    path = tmp_path / "x.png"
    path.write_bytes(data.tobytes())
    assert ok and read_header(path).width == WIDTH
    pixels = read_frame(replace(scene.cameras[0], image_path=path)).pixels
    assert pixels.shape == (HEIGHT, WIDTH, 3) and (pixels == 4).all()


BENT = [
    Lens("SIMPLE_RADIAL", (130.0, 75.0, 50.0, -0.12), 150, 100),
    Lens("OPENCV", (130.0, 128.0, 70.0, 52.0, 0.06, -0.02, 0.004, -0.003), 150, 100),
    Lens("OPENCV_FISHEYE", (70.0, 70.0, 75.0, 50.0, 0.02, -0.01, 0.0, 0.0), 150, 100),
    Lens("EUCM", (90.0, 90.0, 75.0, 50.0, 0.6, 1.1), 150, 100),
]


def seen_by(lens: Lens, K: np.ndarray | None, width: int, height: int) -> np.ndarray:
    """A wall at z = 1 with a smooth colour pattern, photographed exactly; by a pinhole when ``K`` is given."""
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    if K is not None:
        x, y = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
    else:
        # Invert the projection by fixed point: the bend is mild, and every pixel has its own ray.
        fx, fy, cx, cy = lens.focal_and_center
        x, y = (u - cx) / fx, (v - cy) / fy
        for _ in range(60):
            pixel = project(lens, np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3)).reshape(height, width, 2)
            x, y = x + 0.7 * (u - pixel[..., 0]) / fx, y + 0.7 * (v - pixel[..., 1]) / fy
    rgb = np.stack([np.sin(5 * x + 1), np.cos(4 * y), np.sin(3 * (x + y))], axis=-1)
    return np.rint(127.5 + 120 * rgb).astype(np.uint8)


@pytest.mark.parametrize("lens", BENT, ids=lambda lens: lens.model)
@pytest.mark.parametrize("downscale", [1, 2])
def test_straightened_pictures_equal_those_of_a_real_pinhole(tmp_path, lens, downscale):
    root = write_capture(tmp_path, ["a.png", "b.png"], lens)
    write_image(root / "images" / "a.png", seen_by(lens, None, lens.width, lens.height))
    camera = open_scene(root, SceneOptions(downscale=downscale)).cameras[0]
    frame = read_frame(camera)
    truth = seen_by(lens, camera.K, camera.width, camera.height)
    valid = np.ones(truth.shape[:2], bool) if frame.mask is None else frame.mask == 255
    inner = cv2.erode(np.pad(valid.astype(np.uint8), 2), np.ones((5, 5), np.uint8))[2:-2, 2:-2] > 0
    inner[:2] = inner[-2:] = inner[:, :2] = inner[:, -2:] = False
    assert inner.mean() > 0.6
    error = np.abs(frame.pixels.astype(int) - truth)[inner]
    assert error.mean() < 1.0 and error.max() < 12


def test_the_border_that_the_lens_does_not_show_is_masked(tmp_path):
    lens = Lens("SIMPLE_RADIAL", (60.0, 75.0, 50.0, 0.3), 150, 100)  # pincushion: the pinhole needs more than there is
    camera = open_scene(write_capture(tmp_path, ["a.png", "b.png"], lens)).cameras[0]
    mask = read_frame(camera).mask
    assert set(np.unique(mask)) == {0, 255} and mask[50, 75] == 255 and mask[0, 0] == 0
    corner = project(lens, np.array([[(0.5 - 75) / 60, (0.5 - 50) / 60, 1.0]]))[0]
    assert (corner < 0).any(), "the corner's ray falls outside of the file"
    write_mask(
        tmp_path / "masks" / "a.png", np.pad(np.zeros((20, 20), np.uint8), ((40, 40), (65, 65)), constant_values=255)
    )
    both = read_frame(open_scene(tmp_path).cameras[0]).mask
    assert both[50, 75] == 0 and both[0, 0] == 0 and both[50, 120] == 255


def test_what_lies_behind_a_fold_is_masked(tmp_path):
    lens = Lens("SIMPLE_RADIAL", (50.0, 75.0, 50.0, -0.3), 150, 100)
    camera = open_scene(write_capture(tmp_path, ["a.png", "b.png"], lens)).cameras[0]
    mask = read_frame(camera).mask
    rows, columns = np.nonzero(mask)
    radius = np.hypot((columns + 0.5 - camera.K[0, 2]) / camera.K[0, 0], (rows + 0.5 - camera.K[1, 2]) / camera.K[1, 1])
    assert radius.max() <= 1 / np.sqrt(0.9) + 0.01 and mask[0, 0] == 0


@pytest.mark.parametrize("name", [name for name in LENS_MODELS if name != "EQUIRECTANGULAR"])
def test_every_camera_model_gives_a_frame(tmp_path, name):
    names = LENS_MODELS[name].params
    head = (60.0, 24.0, 18.0) if names[0] == "f" else (60.0, 60.0, 24.0, 18.0)
    extra = {"FOV": (0.5,), "EUCM": (0.5, 1.0)}.get(name, tuple(0.002 for _ in names[len(head) :]))
    lens = Lens(name, (*head, *extra), WIDTH, HEIGHT)
    camera = open_scene(write_capture(tmp_path, ["a.png", "b.png"], lens)).cameras[1]
    frame = read_frame(camera)
    assert (camera.width, camera.height) == (pinhole_of(lens).width, pinhole_of(lens).height) == (WIDTH, HEIGHT)
    assert (camera.lens is None) == ("PINHOLE" in name)
    np.testing.assert_allclose(frame.pixels[6:-6, 6:-6].astype(int), picture(seed=1)[6:-6, 6:-6], atol=10)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
def test_headers_state_the_size(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    write_image(path, picture(61, 37))
    header = read_header(path)
    assert (header.width, header.height, header.has_alpha, header.is_cut_short) == (61, 37, False, False)


def test_headers_of_jpeg_and_png_are_read_without_decoding(tmp_path, monkeypatch):
    for suffix in (".jpg", ".png"):
        write_image(tmp_path / f"x{suffix}", picture(61, 37))
    monkeypatch.setattr(images, "decoded_header", lambda path: pytest.fail(f"{path} was decoded"))
    for suffix in (".jpg", ".png"):
        assert read_header(tmp_path / f"x{suffix}").width == 61


def test_cut_files_and_trailing_bytes(tmp_path):
    for suffix in (".jpg", ".png"):
        path = tmp_path / f"x{suffix}"
        write_image(path, picture(200, 150))
        whole = path.read_bytes()
        path.write_bytes(whole + b"\0" * 9000)
        assert not read_header(path).is_cut_short, "some phones append a video"
        path.write_bytes(whole[: len(whole) // 2])
        header = read_header(path)
        assert header is None or header.is_cut_short
        path.write_bytes(whole[:12])
        assert read_header(path) is None
    assert read_header(tmp_path) is None


def test_alpha_is_seen_in_the_header(tmp_path):
    write_image(tmp_path / "x.png", picture(), np.full((HEIGHT, WIDTH), 9, np.uint8))
    assert read_header(tmp_path / "x.png").has_alpha
