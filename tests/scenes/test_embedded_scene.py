"""The embedded capture is whole, small and true: its points project onto the pixels that show them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

SCENE = Path(__file__).resolve().parents[2] / "scenes" / "nook"
WIDTH, HEIGHT = 480, 360


@pytest.fixture(scope="module")
def model() -> dict:
    """The COLMAP model, unpacked here so that the app's own reader is not its own judge."""
    folder = SCENE / "sparse" / "0"
    camera = struct.unpack("<QiiQQ4d", (folder / "cameras.bin").read_bytes())
    data, at, views = (folder / "images.bin").read_bytes(), 8, {}
    for _ in range(struct.unpack_from("<Q", data)[0]):
        number, *pose, _ = struct.unpack_from("<i7di", data, at)
        end = data.index(b"\0", at + 64)
        count = struct.unpack_from("<Q", data, end + 1)[0]
        rows = np.frombuffer(data, [("xy", "<f8", 2), ("id", "<i8")], count, end + 9)
        views[number] = (data[at + 64 : end].decode(), np.array(pose), rows)
        at = end + 9 + 24 * count
    assert at == len(data)
    data, at, points = (folder / "points3D.bin").read_bytes(), 8, {}
    for _ in range(struct.unpack_from("<Q", data)[0]):
        number, x, y, z, r, g, b, error, length = struct.unpack_from("<Q3d3BdQ", data, at)
        track = np.frombuffer(data, "<i4", 2 * length, at + 51).reshape(-1, 2)
        points[number] = (np.array([x, y, z]), np.array([r, g, b]), error, track)
        at += 51 + 8 * length
    assert at == len(data)
    return {"camera": camera, "views": views, "points": points}


def _rotation(wxyz: np.ndarray) -> np.ndarray:
    w, x, y, z = wxyz
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _project(model: dict, xyz: np.ndarray, pose: np.ndarray) -> np.ndarray:
    fx, fy, cx, cy = model["camera"][5:]
    local = xyz @ _rotation(pose[:4]).T + pose[4:]
    assert (local[:, 2] > 0.1).all()
    return local[:, :2] / local[:, 2:] * (fx, fy) + (cx, cy)


def _jpeg_size(path: Path) -> tuple[int, int]:
    data, at = path.read_bytes(), 2
    assert data[:2] == b"\xff\xd8" and data[-2:] == b"\xff\xd9", f"{path.name} is not a whole JPEG"
    while not 0xC0 <= data[at + 1] <= 0xC3:
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    height, width = struct.unpack_from(">HH", data, at + 5)
    return width, height


def test_the_folder_is_small_and_complete(model):
    files = [path for path in SCENE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 6_000_000
    images = sorted(path.name for path in (SCENE / "images").iterdir())
    assert 40 <= len(images) <= 80
    assert images == sorted(name for name, _, _ in model["views"].values())
    assert {path.name for path in files} == {*images, "cameras.bin", "images.bin", "points3D.bin", "SOURCE.txt"}
    assert all(_jpeg_size(SCENE / "images" / name) == (WIDTH, HEIGHT) for name in images)
    assert model["camera"][:5] == (1, 1, 1, WIDTH, HEIGHT)  # one camera, PINHOLE
    assert "Apache-2.0" in (SCENE / "SOURCE.txt").read_text()


def test_every_observation_lies_where_its_point_projects(model):
    assert len(model["points"]) >= 5000
    for number, (_, pose, rows) in model["views"].items():
        assert len(rows) >= 100
        found = [model["points"][int(i)] for i in rows["id"]]
        assert ((rows["xy"] > 0) & (rows["xy"] < (WIDTH, HEIGHT))).all()
        for place, (_, _, _, track) in enumerate(found):
            assert (number, place) in {tuple(pair) for pair in track}
        away = np.linalg.norm(_project(model, np.stack([p[0] for p in found]), pose) - rows["xy"], axis=1)
        assert np.median(away) < 1.2 and away.max() < 12


def test_every_point_is_seen_at_least_twice_and_its_error_is_the_one_written(model):
    views = model["views"]
    for xyz, _, error, track in list(model["points"].values())[::37]:
        assert len({number for number, _ in track}) == len(track) >= 2
        away = [
            np.sum((_project(model, xyz[None], views[number][1])[0] - views[number][2]["xy"][place]) ** 2)
            for number, place in track
        ]
        assert np.sqrt(np.mean(away)) == pytest.approx(error, rel=1e-6)


def test_points_have_the_colour_of_the_pixels_they_project_to(model):
    cv2 = pytest.importorskip("cv2")
    right, wrong = [], []
    for number, (name, pose, rows) in model["views"].items():
        pixels = cv2.imread(str(SCENE / "images" / name))[..., ::-1].astype(float)
        found = [model["points"][int(i)] for i in rows["id"]]
        found = [point for point in found if point[3][0, 0] != number]  # the first view of a track gave the colour
        at = np.round(_project(model, np.stack([p[0] for p in found]), pose) - 0.5).astype(int)
        rgb = np.stack([p[1] for p in found])
        inside = ((at >= 0) & (at < (WIDTH - 20, HEIGHT))).all(1)
        at, rgb = at[inside], rgb[inside]
        right.append(np.abs(pixels[at[:, 1], at[:, 0]] - rgb).mean(1))
        wrong.append(np.abs(pixels[at[:, 1], at[:, 0] + 20] - rgb).mean(1))
    right, wrong = np.concatenate(right), np.concatenate(wrong)
    assert np.median(right) < 12
    assert np.median(right) < 0.5 * np.median(wrong)


def test_the_app_opens_it_without_a_warning():
    opener = pytest.importorskip("splat.scene.open")
    scene = opener.open_scene(SCENE, opener.SceneOptions())
    assert scene.warnings == ()
    assert len(scene.cameras) == len(list((SCENE / "images").iterdir()))
    assert len(scene.test_indices) == -(-len(scene.cameras) // 8)
    assert {(camera.width, camera.height) for camera in scene.cameras} == {(WIDTH, HEIGHT)}
    assert len(scene.points) >= 5000
