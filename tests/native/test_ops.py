"""Adam, nearest neighbours, thread and instruction-set control, and what is said when no library loads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from splat.errors import UserError
from splat.native import library, ops

ROOT = Path(__file__).resolve().parents[2]

ISAS = tuple(str(ops.info()["isas"]).split())
LENGTHS = (0, 1, 15, 16, 17, 100_003)
ADAM = {"lr": 3e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-15}


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    isa, threads = ops.info()["isa"], ops.info()["threads"]
    yield
    ops.set_isa(isa)
    ops.set_threads(threads)


# --- Adam ----------------------------------------------------------------------------------------------------


def _gradients(count: int, steps: int) -> list[Tensor]:
    """Of sizes from 1e-9 to 1e2, with exact zeros: what splats get."""
    random = torch.Generator().manual_seed(count)
    sizes = 10.0 ** (torch.rand(count, generator=random, dtype=torch.float64) * 11 - 9)
    sizes[::7] = 0
    return [sizes * torch.randn(count, generator=random, dtype=torch.float64) for _ in range(steps)]


def _native_adam(dtype: torch.dtype, start: Tensor, gradients: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    param = start.to(dtype).clone()
    m, v = torch.zeros_like(param), torch.zeros_like(param)
    for step, grad in enumerate(gradients, start=1):
        ops.adam_step(param, grad.to(dtype), m, v, step=step, **ADAM)
    return param, m, v


def _torch_adam(start: Tensor, gradients: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    param = start.clone().requires_grad_()
    adam = torch.optim.Adam([param], lr=ADAM["lr"], betas=(ADAM["beta1"], ADAM["beta2"]), eps=ADAM["eps"])
    for grad in gradients:
        param.grad = grad
        adam.step()
    state = adam.state[param]
    return param.detach(), state["exp_avg"], state["exp_avg_sq"]


@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize(("dtype", "isa"), [(torch.float64, ISAS[0]), *((torch.float32, isa) for isa in ISAS)])
def test_adam_equals_torch(dtype: torch.dtype, isa: str, count: int) -> None:
    ops.set_isa(isa)
    gradients = _gradients(count, steps=5)
    start = torch.linspace(-2, 2, count, dtype=torch.float64)
    rtol = {torch.float64: 1e-12, torch.float32: 1e-5}[dtype]
    param, m, v = _native_adam(dtype, start, gradients)
    expected, expected_m, expected_v = _torch_adam(start.to(dtype).double(), [g.to(dtype).double() for g in gradients])
    # Five steps move a parameter by up to 5 lr; a moment of mixed signs cancels to a fraction of its terms.
    largest = torch.stack(gradients).abs().amax(0)
    atol_step = (2e-6 if dtype == torch.float32 else 0) + rtol * 5 * ADAM["lr"]
    torch.testing.assert_close(param.double(), expected, rtol=0, atol=atol_step)
    assert ((m.double() - expected_m).abs() <= rtol * largest).all()
    assert ((v.double() - expected_v).abs() <= rtol * largest**2 + 1e-40).all()


@pytest.mark.parametrize("isa", ISAS)
def test_adam_leaves_the_neighbours_of_a_slice_alone(isa: str) -> None:
    ops.set_isa(isa)
    memory = {name: torch.full((40,), 7.0) for name in ("param", "m", "v")} | {"grad": torch.full((40,), 3.0)}
    ops.adam_step(*(memory[name][8:27] for name in ("param", "grad", "m", "v")), step=1, **ADAM)
    for name in ("param", "m", "v"):
        untouched = torch.cat([memory[name][:8], memory[name][27:]])
        assert torch.equal(untouched, torch.full((21,), 7.0)) and (memory[name][8:27] != 7.0).all()
    assert torch.equal(memory["grad"], torch.full((40,), 3.0))


def test_adam_gives_the_same_bits_on_any_number_of_threads() -> None:
    gradients, start = _gradients(100_003, steps=2), torch.linspace(-2, 2, 100_003, dtype=torch.float64)
    runs = []
    for threads in (1, 2, 4):
        ops.set_threads(threads)
        runs.append(_native_adam(torch.float32, start, gradients))
    for run in runs[1:]:
        assert all(torch.equal(mine, first) for mine, first in zip(run, runs[0], strict=True))


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("grad", torch.zeros(5)),
        ("m", torch.zeros(4, dtype=torch.float64)),
        ("v", torch.zeros(8)[::2]),
        ("param", torch.zeros(8)[::2]),
        ("grad", torch.zeros(4, dtype=torch.int32)),
    ],
)
def test_adam_refuses_what_does_not_fit(name: str, tensor: Tensor) -> None:
    tensors = {each: torch.zeros(4) for each in ("param", "grad", "m", "v")} | {name: tensor}
    with pytest.raises(ValueError, match=r"param|grad|m is|contiguous"):
        ops.adam_step(**tensors, step=1, **ADAM)


def test_adam_counts_steps_from_one() -> None:
    with pytest.raises(RuntimeError, match="adam"):
        ops.adam_step(*(torch.zeros(4) for _ in range(4)), step=0, **ADAM)


# --- the loss --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["target", "mask", "l1_weights", "grad"])
def test_pictures_of_the_loss_must_be_where_the_rendered_one_is(name: str) -> None:
    shapes = {"color": (3, 4, 5), "target": (4, 5, 3), "mask": (4, 5), "l1_weights": (4, 5), "grad": (3, 4, 5)}
    tensors = {key: torch.zeros(shape, device="meta" if key == name else "cpu") for key, shape in shapes.items()}
    with pytest.raises(ValueError, match=f"{name} is on meta"):
        ops.photometric(**tensors, ssim_weight=0.2, scratch=torch.empty(180))


# --- nearest neighbours ----------------------------------------------------------------------------------------


def _brute_force(points: Tensor, k: int) -> np.ndarray:
    x = points.double().numpy()
    squares = ((x[:, None] - x[None]) ** 2).sum(-1)
    np.fill_diagonal(squares, np.inf)
    nearest = np.sort(squares, axis=1)[:, :k]
    return np.array([row[np.isfinite(row)].mean() if np.isfinite(row).any() else 0.0 for row in nearest])


def _clouds() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(3)
    normal = torch.randn(500, 3, generator=random)
    line = torch.arange(200.0)[:, None] * torch.tensor([[0.5, -1.0, 0.25]])
    outliers = normal.clone()
    outliers[::50] *= 1e6
    return {
        "blob": normal,
        "duplicates": normal[torch.randint(0, 120, (500,), generator=random)],
        "all-equal": torch.ones(50, 3),
        "collinear": line[torch.randperm(200, generator=random)],
        "planar": normal * torch.tensor([1.0, 1.0, 0.0]),
        "outliers": outliers,
        "grid": torch.cartesian_prod(*[torch.arange(7.0)] * 3),
        "far-from-the-origin": normal + 1000,
    }


CLOUDS = _clouds()


@pytest.mark.parametrize("k", [1, 3, ops.MAX_NEIGHBOURS])
@pytest.mark.parametrize("name", CLOUDS)
def test_neighbours_equal_brute_force(name: str, k: int) -> None:
    found = ops.knn_mean_sq_dist(CLOUDS[name], k)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), _brute_force(CLOUDS[name], k), rtol=2e-6)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_fewer_points_than_neighbours_average_those_there_are(count: int) -> None:
    points = torch.tensor([[0.0, 0, 0], [3, 4, 0], [0, 0, 2]])[:count]
    expected = {0: [], 1: [0.0], 2: [25.0, 25.0], 3: [14.5, 27.0, 16.5]}[count]
    assert ops.knn_mean_sq_dist(points, 3).tolist() == expected


def test_neighbours_do_not_depend_on_threads() -> None:
    points = torch.randn(5000, 3, generator=torch.Generator().manual_seed(1))
    runs = []
    for threads in (1, 2, 4):
        ops.set_threads(threads)
        runs.append(ops.knn_mean_sq_dist(points))
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])


def test_neighbours_follow_their_points() -> None:
    """No result depends on the order in which the points stand."""
    points = CLOUDS["blob"]
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(2))
    assert torch.equal(ops.knn_mean_sq_dist(points[order]), ops.knn_mean_sq_dist(points)[order])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_points_are_refused(value: float) -> None:
    points = torch.zeros(20, 3)
    points[13, 1] = value
    with pytest.raises(ValueError, match="finite"):
        ops.knn_mean_sq_dist(points)


@pytest.mark.parametrize("shape", [(5,), (5, 2), (5, 4), (1, 5, 3)])
def test_points_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[N,3\]"):
        ops.knn_mean_sq_dist(torch.zeros(shape))


@pytest.mark.parametrize("k", [0, -1, ops.MAX_NEIGHBOURS + 1])
def test_a_number_of_neighbours_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=r"k must be 1 to 16"):
        ops.knn_mean_sq_dist(torch.zeros(30, 3), k)


# --- the library -------------------------------------------------------------------------------------------------


def test_info_names_what_is_in_use() -> None:
    info = ops.info()
    assert Path(info["path"]).is_file() and info["isa"] in ISAS and info["abi"] == library.ABI_VERSION
    for isa in ISAS:
        ops.set_isa(isa)
        assert ops.info()["isa"] == isa
    for threads in (1, 3):
        ops.set_threads(threads)
        assert ops.info()["threads"] == threads


def test_an_unknown_instruction_set_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match=f"'mmx' is not available; use one of: {ISAS[0]}"):
        ops.set_isa("mmx")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """Loads afresh from given folders, past the cache."""

    def from_folders(*folders: Path) -> library.NativeLibrary:
        monkeypatch.setattr(library, "_folders", lambda: list(folders))
        return library.cpu_library.__wrapped__()

    return from_folders


def test_no_library_says_what_was_tried_and_how_to_mend_it(load, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    with pytest.raises(library.NativeLibraryError) as caught:
        load(*folders)
    message = str(caught.value)
    assert isinstance(caught.value, UserError) and caught.value.exit_code == 3
    assert "\n" not in message and "pip install ." in message and "C++ compiler" in message
    for folder in folders:
        assert f"{folder / library._file_name('splat_cpu')}: not there" in message


def test_a_broken_library_is_named_and_the_next_one_loads(load, tmp_path: Path) -> None:
    broken = tmp_path / library._file_name("splat_cpu")
    broken.write_bytes(b"not a library")
    (tmp_path / "splat.h").write_bytes((ROOT / "cuda" / "include" / "splat.h").read_bytes())
    with pytest.raises(library.NativeLibraryError, match=r"not a library|invalid|too short|header"):
        load(tmp_path)
    good = Path(str(ops.info()["path"])).parent
    assert load(tmp_path, good).path.parent == good


def test_a_library_of_another_version_is_named(load, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(str(ops.info()["path"]))
    monkeypatch.setattr(library, "ABI_VERSION", 99)
    with pytest.raises(library.NativeLibraryError, match=r"version \d+, this package needs 99") as caught:
        load(path.parent)
    assert str(path) in str(caught.value)


def test_a_library_without_its_header_is_named(load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_header_for", lambda path: None)
    with pytest.raises(library.NativeLibraryError, match=r"no splat\.h beside it"):
        load(Path(str(ops.info()["path"])).parent)


def test_the_header_and_the_package_agree_on_the_version() -> None:
    header = Path(__file__).resolve().parents[2] / "cuda" / "include" / "splat.h"
    assert f"SPLAT_ABI_VERSION = {library.ABI_VERSION}," in header.read_text(encoding="utf8")
