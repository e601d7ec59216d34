"""Depth priors: robust fits, maps from points, files, a network; on views of a room of two planes."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from splat.geometry.camera import Camera
from splat.geometry.lens import Lens
from splat.scene.depth_align import Alignment, align, aligned_depth, densified, normals_of, visible_points
from splat.scene.depth_prior import DepthMap, DepthOptions, DepthSource, map_camera, open_depth_source
from splat.scene.types import Frame, PointCloud, Scene, SceneError

WIDTH, HEIGHT, FOCAL = 96, 72, 80.0
FLOOR_Y, WALL_Z = 1.0, 6.0


def camera_at(x, name):
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(0.1 * x), 0, np.sin(0.1 * x)], [0, 1, 0], [-np.sin(0.1 * x), 0, np.cos(0.1 * x)]]
    pose[:3, 3] = -pose[:3, :3] @ [x, 0.0, 0.0]
    K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    return Camera(name, pose, K, WIDTH, HEIGHT)


CAMERAS = tuple(camera_at(x, f"sub/view_{i}.jpg") for i, x in enumerate((-0.5, 0.0, 0.5)))


def rays_of(camera):
    """World directions [h,w,3] of the pixels, with camera depth 1."""
    v, u = np.mgrid[: camera.height, : camera.width] + 0.5
    local = np.stack([(u - camera.K[0, 2]) / camera.K[0, 0], (v - camera.K[1, 2]) / camera.K[1, 1], np.ones_like(u)], 2)
    return local @ camera.camera_from_world[:3, :3]


def true_depth(camera):
    """A floor below and a wall ahead; [h,w]."""
    rays, eye = rays_of(camera), camera.center_world
    floor = np.where(rays[..., 1] > 1e-6, (FLOOR_Y - eye[1]) / np.maximum(rays[..., 1], 1e-6), np.inf)
    return np.minimum(floor, (WALL_Z - eye[2]) / rays[..., 2])


def surface_points(count, seed=0):
    random = np.random.default_rng(seed)
    found = []
    for camera in CAMERAS:
        rows, columns = random.integers(0, HEIGHT, count), random.integers(0, WIDTH, count)
        found.append(camera.center_world + rays_of(camera)[rows, columns] * true_depth(camera)[rows, columns, None])
    return np.concatenate(found).astype(np.float32)


def scene_in(root, *, points=700, source="sfm", cameras=CAMERAS):
    xyz = surface_points(points)
    cloud = PointCloud(xyz, np.zeros((len(xyz), 3), np.uint8), source)
    everyone = tuple(range(len(cameras)))
    return Scene("room", root, cameras, cloud, everyone, (), 1.0, np.eye(4))


def no_pixels(view):
    raise AssertionError("no source but a network looks at pixels")


def write_files(root, name, make, suffix=".npy"):
    for number, camera in enumerate(CAMERAS):
        path = root / name / Path(camera.name).with_suffix(suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        values = make(number, camera)
        np.save(path, values) if suffix == ".npy" else cv2.imwrite(str(path), values)


def relative_error(prior, camera):
    truth = true_depth(camera.resized(prior.depth.shape[1], prior.depth.shape[0]))
    return np.abs(prior.depth / truth - 1)[prior.valid]


# -- the fit -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["disparity", "depth"])
@pytest.mark.parametrize("wrong", [0.0, 0.25])
def test_the_fit_finds_scale_and_offset_among_outliers(kind, wrong):
    random = np.random.default_rng(1)
    depths = random.uniform(1, 10, 400)
    line = 1 / depths if kind == "disparity" else depths
    values = (line - 0.3) / 0.5
    outliers = random.random(400) < wrong
    values[outliers] = random.uniform(values.min(), values.max(), outliers.sum())
    fit = align(values, depths, kind)
    assert (fit.a, fit.b) == pytest.approx((0.5, 0.3), rel=0.02)
    assert fit.is_sound and fit.ratio >= 1 - wrong - 0.05 and fit.count == 400
    assert np.allclose(aligned_depth(values, kind, fit)[~outliers], depths[~outliers], rtol=0.02)


def test_a_least_squares_fit_would_fail_there():
    """The outliers above matter: without weights the line is off by far more than the 2 % asked for."""
    random = np.random.default_rng(1)
    depths = random.uniform(1, 10, 400)
    values = (depths - 0.3) / 0.5
    outliers = random.random(400) < 0.25
    values[outliers] = random.uniform(values.min(), values.max(), outliers.sum())
    assert abs(np.polyfit(values, depths, 1)[0] / 0.5 - 1) > 0.1


def test_nothing_to_fit():
    depths = np.linspace(1, 5, 30)
    assert align(1 / depths[:10], depths[:10], "disparity") is None, "too few"
    assert align(np.ones(30), depths, "depth") is None, "no spread"
    assert align(np.full(30, np.nan), depths, "depth") is None
    assert align(depths, np.full(30, 2.0), "depth") is None


def test_soundness_gates():
    assert Alignment(1.0, 0.0, 60, 100).is_sound
    assert not Alignment(1.0, 0.0, 59, 100).is_sound, "inlier ratio"
    assert not Alignment(1.0, 0.0, 49, 49).is_sound, "inlier count"
    assert not Alignment(-1.0, 0.0, 90, 100).is_sound, "upside down"


def test_unusable_disparity_has_no_depth():
    depth = aligned_depth(np.array([[1.0, 0.5, -0.5, np.nan, 1e-9]]), "disparity", Alignment(1.0, 0.0, 99, 99))
    assert depth.tolist() == [[1.0, 2.0, 0.0, 0.0, 0.0]]


# -- from points -------------------------------------------------------------------------------------------------


def test_hidden_points_are_left_out():
    behind = surface_points(300) * np.float32(1.0)
    behind[:, 2] += 5.0
    _, depths = visible_points(np.concatenate([surface_points(1500), behind]), CAMERAS[1])
    assert len(depths) > 1000
    assert (depths > WALL_Z + 1).mean() < 0.02 < 300 / 4800


def test_points_become_a_map():
    source = open_depth_source(scene_in(Path(), points=1500), DepthOptions("points"), no_pixels)
    for view, camera in enumerate(CAMERAS):
        prior = source.prior(view)
        errors = relative_error(prior, camera)
        assert prior.valid.mean() > 0.6 and prior.reliability > 0.9
        assert np.median(errors) < 0.005 and (errors < 0.05).mean() > 0.97
        normals = prior.normals[prior.valid]
        assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-4)
        best = np.maximum(-normals[:, 1], -normals[:, 2])  # of floor and wall, both towards the camera
        assert (best > 0.95).mean() > 0.85


def test_planes_are_exact_and_edges_stay_unknown():
    random = np.random.default_rng(2)
    pixels = random.uniform(0, 64, (1200, 2))
    slanted = 1 / (0.2 + 0.002 * pixels[:, 0] + 0.003 * pixels[:, 1])
    depth = densified(pixels, slanted, 64, 64)
    v, u = np.mgrid[:64, :64] + 0.5
    assert (depth > 0).mean() > 0.95
    assert np.allclose(depth[depth > 0], (1 / (0.2 + 0.002 * u + 0.003 * v))[depth > 0], rtol=3e-3)
    step = densified(pixels, np.where(pixels[:, 0] < 32, 2.0, 4.0), 64, 64)
    assert (step[:, 31:33] == 0).mean() > 0.9, "no surface between the two"
    known = step > 0
    assert known[:, :24].mean() > 0.9 and np.allclose(step[:, :24][known[:, :24]], 2.0, rtol=0.01)


def test_few_points_make_no_prior():
    assert open_depth_source(scene_in(Path(), points=12), DepthOptions("points"), no_pixels).prior(0) is None
    assert not densified(np.zeros((0, 2)), np.zeros(0), 8, 6).any()


# -- normals -----------------------------------------------------------------------------------------------------


def test_normals_from_depth():
    camera = CAMERAS[0]
    normals, valid = normals_of(true_depth(camera).astype(np.float32), camera)
    assert valid.mean() > 0.8
    floor = true_depth(camera) < (WALL_Z / rays_of(camera)[..., 2]) * 0.99
    deep = cv2.erode((floor & valid).astype(np.uint8), np.ones((3, 3))) > 0
    assert deep.sum() > 500 and np.allclose(normals[deep], [0, -1, 0], atol=2e-2)


def test_no_normals_across_edges():
    depth = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    depth[:, 40:] = 2.2
    _, valid = normals_of(depth, CAMERAS[1])
    assert not valid[:, 39:41].any() and valid[1:-1, 5:38].all() and valid[1:-1, 42:-1].all()
    depth[:, 40:] = 2.05
    assert normals_of(depth, CAMERAS[1])[1][1:-1, 1:-1].all(), "2.5 % is a slope"
    assert not normals_of(np.ones((2, 2), np.float32), camera_at(0, "a").resized(2, 2))[1].any()


# -- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "suffix", "make"),
    [
        ("disparity", ".npy", lambda n, c: 3 / true_depth(c) + 0.4),
        ("depth", ".npy", lambda n, c: 0.1 * true_depth(c) + 0.2),
        ("depths", ".png", lambda n, c: (true_depth(c) * 5000).astype(np.uint16)),
        ("disparity", ".png", lambda n, c: (30000 / true_depth(c) + 500).astype(np.uint16)),
    ],
)
def test_files_are_fitted_to_the_points(tmp_path, folder, suffix, make):
    write_files(tmp_path, folder, make, suffix)
    source = open_depth_source(scene_in(tmp_path), DepthOptions("auto"), no_pixels)
    for view, camera in enumerate(CAMERAS):
        prior = source.prior(view)
        assert prior.reliability > 0.95 and prior.valid.mean() > 0.8
        assert np.quantile(relative_error(prior, camera), 0.99) < 0.02
    assert source.prior(1) is source.prior(1)


def test_large_files_shrink_and_must_have_the_pictures_shape(tmp_path):
    big = tuple(replace(camera.resized(960, 720), name=camera.name) for camera in CAMERAS)
    write_files(tmp_path, "depth", lambda n, c: true_depth(big[n]))
    prior = open_depth_source(scene_in(tmp_path, cameras=big), DepthOptions("files"), no_pixels).prior(0)
    assert prior.depth.shape == (384, 512) == (map_camera(big[0]).height, map_camera(big[0]).width)
    assert np.quantile(relative_error(prior, big[0]), 0.99) < 0.02
    write_files(tmp_path, "depth", lambda n, c: np.ones((72, 72)))
    with pytest.raises(SceneError, match=r"view_0.npy: is 72x72; the picture of its view is 96x72"):
        open_depth_source(scene_in(tmp_path), DepthOptions("files"), no_pixels).prior(0)


def test_a_view_that_does_not_fit_has_no_prior(tmp_path):
    """View 1 is noise, view 2 has no file; the others are as good as ever, in whatever order they are asked for."""
    random = np.random.default_rng(0)
    write_files(tmp_path, "depth", lambda n, c: random.uniform(1, 9, (HEIGHT, WIDTH)) if n == 1 else true_depth(c))
    (tmp_path / "depth/sub/view_2.npy").unlink()
    source = open_depth_source(scene_in(tmp_path), DepthOptions("files"), no_pixels)
    assert source.prior(2) is None and source.prior(1) is None and source.prior(0).reliability > 0.95


def test_a_scale_unlike_the_others_is_not_believed():
    maps = [DepthMap(true_depth(camera) * (1 if n else 20), "depth") for n, camera in enumerate(CAMERAS)]
    source = DepthSource(CAMERAS, surface_points(700), lambda view: maps[view])
    assert [source.prior(view) is None for view in range(3)] == [True, False, False]


@pytest.mark.parametrize("axes", [(1, 1, 1), (1, -1, -1)])
@pytest.mark.parametrize("suffix", [".npy", ".png"])
def test_normals_of_files_in_either_convention(tmp_path, axes, suffix):
    def camera_normals(_, camera):
        wall = (WALL_Z - camera.center_world[2]) / rays_of(camera)[..., 2] <= true_depth(camera)
        world = np.where(wall[..., None], [0.0, 0, -1], [0.0, -1, 0])
        local = (world @ camera.camera_from_world[:3, :3].T) * axes
        return local.astype(np.float32) if suffix == ".npy" else ((local[..., ::-1] + 1) / 2 * 65535).astype(np.uint16)

    write_files(tmp_path, "depth", lambda n, c: true_depth(c))
    write_files(tmp_path, "normals", camera_normals, suffix)
    prior = open_depth_source(scene_in(tmp_path), DepthOptions("files"), no_pixels).prior(0)
    normals = prior.normals[prior.valid]
    assert prior.valid.mean() > 0.99, "files know normals at edges too"
    assert (np.maximum(-normals[:, 1], -normals[:, 2]) > 0.999).all()


def test_files_are_straightened_with_the_photographs(tmp_path):
    """A file in the frame of a lens with distortion: the same depth, at the pixels of the pinhole picture."""
    lens = Lens("SIMPLE_RADIAL", (FOCAL, WIDTH / 2, HEIGHT / 2, -0.25), WIDTH, HEIGHT)
    bent = tuple(replace(camera, lens=lens) for camera in CAMERAS)
    v, u = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    x, y = (u - WIDTH / 2) / FOCAL, (v - HEIGHT / 2) / FOCAL
    write_files(tmp_path, "depth", lambda n, c: _bent_depth(c, x, y))
    straight = open_depth_source(scene_in(tmp_path, cameras=bent), DepthOptions("files"), no_pixels).prior(1)
    as_it_lies = open_depth_source(scene_in(tmp_path), DepthOptions("files"), no_pixels).prior(1)
    assert np.quantile(relative_error(straight, CAMERAS[1]), 0.98) < 0.03
    assert np.quantile(relative_error(as_it_lies, CAMERAS[1]), 0.98) > 0.05


def _bent_depth(camera, x, y):
    """Depth at distorted positions: undo x_d = x (1 - 0.25 r^2) by fixed-point steps."""
    ux, uy = x.copy(), y.copy()
    for _ in range(30):
        factor = 1 - 0.25 * (ux**2 + uy**2)
        ux, uy = x / factor, y / factor
    rays = np.stack([ux, uy, np.ones_like(ux)], 2) @ camera.camera_from_world[:3, :3]
    floor = np.where(rays[..., 1] > 1e-6, FLOOR_Y / np.maximum(rays[..., 1], 1e-6), np.inf)
    return np.minimum(floor, WALL_Z / rays[..., 2])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("depth/sub/view_0.png", b"no picture", "cannot be decoded"),
        ("depth/sub/view_0.npy", b"no array", "cannot be read as an array"),
    ],
)
def test_broken_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SceneError, match=f"view_0.*{message}"):
        open_depth_source(scene_in(tmp_path), DepthOptions("files"), no_pixels).prior(0)


def test_colours_are_no_depth(tmp_path):
    write_files(tmp_path, "depth", lambda n, c: np.full((HEIGHT, WIDTH, 3), 9, np.uint8), ".png")
    with pytest.raises(SceneError, match="one value per pixel"):
        open_depth_source(scene_in(tmp_path), DepthOptions("files"), no_pixels).prior(0)


# -- which source ------------------------------------------------------------------------------------------------


def test_which_source(tmp_path):
    scene, bare = scene_in(tmp_path), scene_in(tmp_path, source="random")
    assert open_depth_source(scene, DepthOptions("none"), no_pixels) is None
    assert open_depth_source(bare, DepthOptions("auto"), no_pixels) is None
    assert open_depth_source(scene, DepthOptions("auto"), no_pixels).prior(0) is not None, "falls back to points"
    for options, message in (
        (DepthOptions("files"), "none of the folders disparity, depth, depths"),
        (DepthOptions("files", folder="mine"), "mine does not exist"),
        (DepthOptions("network"), "needs the path"),
        (DepthOptions("network", network=tmp_path / "no.pt"), "no.pt does not exist"),
    ):
        with pytest.raises(SceneError, match=message):
            open_depth_source(scene, options, no_pixels)
    with pytest.raises(SceneError, match="no points of its own"):
        open_depth_source(bare, DepthOptions("points"), no_pixels)


# -- a network ---------------------------------------------------------------------------------------------------


class GreenIsNear(torch.nn.Module):
    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return picture[:, 1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_network_from_a_file(tmp_path):
    """A picture whose green channel is the disparity, and a network that says so."""
    torch.jit.script(GreenIsNear()).save(str(tmp_path / "net.pt"))

    def frame(view):
        pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        pixels[..., 1] = np.rint(200 / true_depth(CAMERAS[view]))
        return Frame(pixels, None)

    source = open_depth_source(scene_in(tmp_path), DepthOptions("network", network=tmp_path / "net.pt"), frame)
    prior = source.prior(1)
    assert prior.reliability > 0.9
    assert np.median(relative_error(prior, CAMERAS[1])) < 0.03
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    bad = open_depth_source(scene_in(tmp_path), DepthOptions("network", network=tmp_path / "bad.pt"), frame)
    with pytest.raises(SceneError, match=r"bad.pt: is no TorchScript file"):
        bad.prior(0)
