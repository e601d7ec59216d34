"""The C interface on numpy arrays, for the CPU library and for the CUDA library built for the host alike.

Needs numpy and cffi only, so that it also runs below AddressSanitizer (``helpers_cuda_exercise.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from helpers_cuda_scene import Scene, garbage, off_alignment

from splat.native.library import NativeLibrary, open_library

CAMERA_GRAD, TILE = 12, 16
FORWARD_STATS = {"fragments": 1, "blend_sum": 2, "blend_max": 4, "max_contrib": 8, "center_dist": 16, "weighted": 32}
BACKWARD_STATS = {"abs_grad": 1, "abs_grad_l2": 2, "opacity_grad_sq": 4, "texgrad": 8, "sensitivity": 16}
ROWS = ("means", "quats", "log_scales", "logit_opacities", "sh0", "sh_rest")
SHAPES = {"gef": ("shapes",), "convex": ("vertices", "log_deltas", "log_sigmas")}
"""Tables of the footprints that have some of their own, in the order of splat_rows.shape."""
FILTERS = {"classic": (0.3, 0), "aa": (0.3, 1), "mip": (0.1, 1), "analytic": (0.0, 0)}


@dataclass(eq=False)
class Drawn:
    """Everything one view left, by name; ``bins`` and ``images`` may hold garbage where nothing is defined."""

    projected: dict[str, np.ndarray] = field(default_factory=dict)
    bins: dict[str, np.ndarray] = field(default_factory=dict)
    images: dict[str, np.ndarray] = field(default_factory=dict)
    forward: dict[str, np.ndarray] = field(default_factory=dict)
    backward: dict[str, np.ndarray] = field(default_factory=dict)
    grads: dict[str, np.ndarray] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


class Twin:
    """One library behind the C interface. ``cuda``: its functions take streams, scratch and counters."""

    def __init__(self, native: NativeLibrary, *, cuda: bool) -> None:
        self.ffi, self.lib, self.cuda = native.ffi, native.lib, cuda
        self.keep: list = []
        self.off_alignment = False
        """Whether gradients are written to memory that is not aligned to 16 bytes."""

    def seed(self, seed: int) -> None:
        import ctypes

        ctypes.CDLL(self.path).splat_host_cuda_seed(ctypes.c_uint64(seed))

    @classmethod
    def open(cls, path: Path, *, cuda: bool) -> Twin:
        twin = cls(open_library(path), cuda=cuda)
        twin.path = str(path)
        return twin

    def at(self, array: np.ndarray | None, kind: str = "void *"):
        if array is None:
            return self.ffi.NULL
        assert array.flags.c_contiguous
        self.keep.append(array)
        return self.ffi.cast(kind, array.ctypes.data)

    def call(self, name: str, *arguments) -> int:
        """``splat_cpu_<name>`` or ``splat_cuda_<name>`` with a stream behind; asserts success."""
        if self.cuda:
            status = getattr(self.lib, f"splat_cuda_{name}")(*arguments, self.ffi.NULL)
        else:
            status = getattr(self.lib, f"splat_cpu_{name}")(*arguments)
        if status < 0 or (status > 0 and (self.cuda or name != "bin")):
            text = self.ffi.string(self.lib.splat_cuda_error()).decode() if self.cuda else ""
            raise RuntimeError(f"{name}: status {status} {text}")
        return status

    def scratch(self, size: int):
        memory = garbage(max(int(size), 1), np.uint8)
        return self.ffi.new("splat_scratch *", {"memory": self.at(memory), "bytes": int(size)})[0]

    # --- structs ------------------------------------------------------------------------------------------------------

    def rows(self, scene: Scene):
        rows, footprint = scene.rows, scene.case.footprint
        given = {name: self.at(rows.get(name)) for name in (*ROWS, "features", "filter3d")}
        features = rows["features"].shape[1] if "features" in rows else 0
        counts = {"count": len(rows["means"]), "sh_rest_count": rows["sh_rest"].shape[1], "feature_count": features}
        tables = [rows[name] for name in SHAPES.get(footprint, ())]
        given |= {"shape": [self.at(table) for table in tables], "constants": list(scene.constants)}
        given |= {"shape_columns": [int(np.prod(table.shape[1:])) for table in tables]}
        return self.ffi.new("splat_rows *", {**counts, "dtype": 0, "footprint": self.footprint(footprint), **given})

    def footprint(self, name: str) -> int:
        index = self.lib.splat_footprint(name.encode())
        assert index >= 0, f"the library has no footprint {name!r}"
        return index

    def view(self, scene: Scene):
        case, (width, height) = scene.case, scene.case.size
        dilation, compensate = FILTERS[case.filter2d]
        focal = 0.9 * max(width, height)
        cx, cy = (0.31 * width, 0.62 * height) if case.off_center else (width / 2, height / 2)
        return self.ffi.new("splat_view *", {
            "camera_from_world": scene.pose.reshape(-1).tolist(), "fx": focal, "fy": 1.1 * focal, "cx": cx, "cy": cy,
            "near_z": 0.2, "far_z": 1e10, "dilation": dilation, "compensate": compensate, "sh_degree": case.degree,
            "width": width, "height": height,
        })  # fmt: skip


class View:
    """One view through a library, step by step."""

    def __init__(self, twin: Twin, scene: Scene) -> None:
        self.twin, self.scene, self.case = twin, scene, scene.case
        self.rows, self.view = twin.rows(scene), twin.view(scene)
        self.footprint = twin.footprint(scene.case.footprint)
        self.slot = twin.lib.splat_footprint_sums(self.footprint) + 3
        self.width, self.height = scene.case.size
        self.tiles = -(-self.width // TILE) * -(-self.height // TILE)
        self.out = Drawn()
        self.counters_array = np.zeros(8, np.uint32)
        self.counters = twin.at(self.counters_array, "splat_counters *")

    def project(self) -> View:
        n = self.case.count
        reals = self.twin.lib.splat_record_reals(self.footprint)
        self.take_projected(garbage((n, reals)), garbage(n, np.uint32), garbage(n, np.uint32))
        self.twin.call("project", self.rows, self.view, self.projected)
        return self

    def take_projected(self, records: np.ndarray, depth_keys: np.ndarray, rect_tiles: np.ndarray) -> View:
        """Go on from a projection that is there, another library's for example."""
        p, at = self.out.projected, self.twin.at
        p["records"], p["depth_keys"], p["rect_tiles"] = records, depth_keys, rect_tiles
        self.projected = self.twin.ffi.new("splat_projected *", {
            "records": at(p["records"]), "depth_keys": at(p["depth_keys"], "uint32_t *"),
            "rect_tiles": at(p["rect_tiles"], "uint32_t *"),
        })  # fmt: skip
        return self

    def bin(self, capacity: int) -> View:
        n, b, twin = self.case.count, self.out.bins, self.twin
        sizes = {"order": n, "slot_begin": n + 1, "slot_count": n, "tile_begin": self.tiles + 1}
        sizes |= {"instance_splat": capacity, "instance_slot": capacity}
        for name, size in sizes.items():
            b[name] = garbage(size, np.uint32)
        arrays = {name: twin.at(b[name], "uint32_t *") for name in sizes}
        self.bins = twin.ffi.new("splat_bins *", {**arrays, "capacity": capacity})
        self.capacity, counts = capacity, self.out.counts
        if twin.cuda:
            self.counters_array[:] = 0xA5A5A5A5
            size = twin.lib.splat_cuda_bin_scratch(n, capacity, self.width, self.height)
            arguments = self.rows, self.view, self.projected, self.bins, self.counters, twin.scratch(size)
            twin.call("bin", *arguments)
            names = ("visible", "slots", "instances", "overflow", "chunks")
            counts |= dict(zip(names, map(int, self.counters_array), strict=False))
        else:
            visible = twin.ffi.new("int64_t *")
            counts["slots"] = twin.call("bin", self.rows, self.view, self.projected, self.bins, visible)
            counts["visible"], counts["overflow"] = visible[0], int(counts["slots"] > capacity)
            counts["instances"] = int(b["tile_begin"][-1]) if not counts["overflow"] else 0
        return self

    def blend(self) -> View:
        case, twin, images = self.case, self.twin, self.out.images
        shape = (self.height, self.width)
        images["color"], images["final_T"] = garbage((3, *shape)), garbage(shape)
        for kind in case.depth:
            images[f"depth_{kind}"] = garbage(shape)
        if case.features:
            images["features"] = garbage((case.features, *shape))
        if case.top_id:
            images["top_id"] = garbage(shape, np.int32)
        self.stride = twin.lib.splat_forward_stat_stride(case.stats, case.maps)
        self.slot_stats = garbage((self.capacity, self.stride)) if self.stride else None
        scene = self.scene
        given = {name: twin.at(array) for name, array in images.items() if name != "top_id"}
        given["top_id"] = twin.at(images.get("top_id"), "int32_t *")
        given |= {"background": twin.at(scene.background), "slot_stats": twin.at(self.slot_stats), "stats": case.stats}
        given |= {"weight_maps": twin.at(scene.weight_maps), "weight_map_count": case.maps}
        self.images = twin.ffi.new("splat_images *", given)
        arguments = [self.rows, self.view, self.projected, self.bins]
        if twin.cuda:
            size = twin.lib.splat_cuda_checkpoint_bytes(self.capacity, self.width, self.height)
            self.checkpoints = twin.at(garbage(max(size, 1), np.uint8))
            twin.call("blend", *arguments, self.counters, self.images, self.checkpoints)
        else:
            twin.call("blend", *arguments, self.images)
        return self

    def gather(self, table: np.ndarray, first: int, columns: int, *, maximum: bool = False) -> np.ndarray:
        out, at = garbage((self.case.count, columns)), self.twin.at
        arguments = self.rows, self.bins, at(table), table.shape[1], first, columns, 0 if maximum else -1, at(out)
        self.twin.call("gather_stats", *arguments)
        return out

    def forward_stats(self) -> View:
        column = 0
        for name, bit in FORWARD_STATS.items():
            if self.case.stats & bit:
                columns = 2 * self.case.maps if name == "weighted" else 1
                found = self.gather(self.slot_stats, column, columns, maximum=name == "blend_max")
                self.out.forward[name], column = found, column + columns
        return self

    def blend_backward(self) -> View:
        case, twin, scene = self.case, self.twin, self.scene
        extra = int(bool(case.depth)) + case.features
        stride = twin.lib.splat_backward_slot_stride(self.footprint, case.backward_stats, extra)
        self.slots = garbage((self.capacity, stride))
        background = garbage(3, np.float64)
        given = {name: twin.at(array) for name, array in scene.cotangents.items()}
        given |= {"stats": case.backward_stats, "slot_stride": stride, "slots": twin.at(self.slots)}
        self.image_grads = twin.ffi.new("splat_image_grads *", {**given, "background": twin.at(background, "double *")})
        arguments = [self.rows, self.view, self.projected, self.bins]
        if twin.cuda:
            arguments += [self.counters, self.images, self.image_grads, self.checkpoints]
        else:
            arguments += [self.images, self.image_grads]
        twin.call("blend_backward", *arguments)
        self.out.grads["background"] = background
        return self

    def backward_stats(self) -> View:
        case = self.case
        column = self.slot + int(bool(case.depth)) + case.features
        self.out.backward["sums"] = self.gather(self.slots, 0, self.slot)
        if column > self.slot:
            self.out.backward["extra"] = self.gather(self.slots, self.slot, column - self.slot)
        for name, bit in BACKWARD_STATS.items():
            if case.backward_stats & bit:
                columns = 2 if name == "abs_grad" else 1
                self.out.backward[name], column = self.gather(self.slots, column, columns), column + columns
        return self

    def row_grads(self, names: tuple[str, ...]):
        """A splat_row_grads with arrays for the names, and those arrays."""
        case, twin, n = self.case, self.twin, self.case.count
        shapes = {name: array.shape for name, array in self.scene.rows.items()}
        shapes |= {"mean2d": (n, 2), "color": (n, 3), "opacity": (n,)}
        arrays = {}
        for name in names:
            if name in shapes:
                start = np.random.default_rng(9).normal(size=shapes[name]).astype(np.float32)
                arrays[name] = start if case.accumulate else garbage(shapes[name])
                arrays[name] = off_alignment(arrays[name]) if twin.off_alignment else arrays[name]
        own = SHAPES.get(case.footprint, ())
        given = {name: twin.at(array) for name, array in arrays.items() if name not in own}
        given["shape"] = [twin.at(arrays.get(name)) for name in own]
        if case.camera and "camera" in names:
            arrays["camera"] = garbage(CAMERA_GRAD, np.float64)
            partial = garbage((-(-n // 1024), CAMERA_GRAD), np.float64)
            given |= {"camera": twin.at(arrays["camera"], "double *"), "camera_scratch": twin.at(partial, "double *")}
        return twin.ffi.new("splat_row_grads *", {**given, "accumulate": int(case.accumulate)}), arrays

    def project_backward(self) -> View:
        names = (*ROWS, *SHAPES.get(self.case.footprint, ()), "features", "mean2d", "color", "opacity", "camera")
        out, arrays = self.row_grads(names)
        arguments = [self.rows, self.view, self.projected, self.bins]
        arguments += [self.counters, self.image_grads, out] if self.twin.cuda else [self.image_grads, out]
        self.twin.call("project_backward", *arguments)
        self.out.grads |= arrays
        return self

    def project_backward_adam(self, state: AdamRows) -> View:
        """The projection's gradient with Adam in place: ``state.param`` are the scene's own rows. CUDA only."""
        twin = self.twin
        out, arrays = self.row_grads(("features", "mean2d", "color", "opacity", "camera"))
        arguments = self.rows, self.view, self.projected, self.bins, self.counters, self.image_grads, out
        twin.call("project_backward_adam", *arguments, state.struct(twin))
        self.out.grads |= arrays
        return self


@dataclass(eq=False)
class AdamRows:
    """Adam's settings and moments for the six row arrays."""

    param: dict[str, np.ndarray]
    m: dict[str, np.ndarray]
    v: dict[str, np.ndarray]
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-15

    @classmethod
    def start(cls, rows: dict[str, np.ndarray]) -> AdamRows:
        random = np.random.default_rng(5)
        m = {name: random.normal(size=rows[name].shape).astype(np.float32) * np.float32(1e-2) for name in ROWS}
        return cls({name: rows[name] for name in ROWS}, m, {name: values**2 for name, values in m.items()})

    def lr(self, name: str) -> float:
        return 1e-3 * (1 + ROWS.index(name))

    def step(self, name: str) -> int:
        return 7 + ROWS.index(name)

    def struct(self, twin: Twin):
        all_tables = (("param", self.param), ("m", self.m), ("v", self.v))
        tables = {key: [twin.at(table[name]) for name in ROWS] for key, table in all_tables}
        each = {"lr": [self.lr(name) for name in ROWS], "step": [self.step(name) for name in ROWS]}
        return twin.ffi.new("splat_adam_rows *", {
            **tables, **each, "beta1": self.betas[0], "beta2": self.betas[1], "eps": self.eps,
        })  # fmt: skip

    def apply(self, twin: Twin, grads: dict[str, np.ndarray], gate=None) -> None:
        """The unfused way: one call per array."""
        for name in ROWS:
            arrays = [twin.at(table) for table in (self.param[name], grads[name], self.m[name], self.v[name])]
            settings = self.lr(name), *self.betas, self.eps, self.step(name)
            adam(twin, self.param[name].size, *arrays, *settings, gate=gate)


def adam(twin: Twin, count: int, *arguments, gate=None) -> None:
    if twin.cuda:
        twin.call("adam", count, *arguments, twin.ffi.NULL if gate is None else gate)
    else:
        twin.call("adam", 0, count, *arguments)


def photometric(
    twin: Twin, color: np.ndarray, target: np.ndarray, mask: np.ndarray | None, *, ssim_weight: float,
    l1_weights: np.ndarray | None = None, grad: bool = True,
) -> tuple[np.ndarray, np.ndarray | None]:  # fmt: skip
    """(total, l1, ssim) and the gradient."""
    _, height, width = color.shape
    sums, out, scratch = garbage(3, np.float64), garbage(color.shape) if grad else None, garbage(9 * height * width)
    images = twin.at(color), twin.at(target, "uint8_t *"), twin.at(mask, "uint8_t *"), twin.at(l1_weights)
    size = (width, height) if twin.cuda else (0, width, height)
    twin.call("photometric", *size, *images, ssim_weight, twin.at(out), twin.at(scratch), twin.at(sums, "double *"))
    return sums, out


def knn(twin: Twin, points: np.ndarray, k: int) -> np.ndarray:
    out = garbage(len(points))
    arguments = [len(points), twin.at(points, "float *"), k, twin.at(out, "float *")]
    twin.call("knn", *arguments, *([twin.scratch(twin.lib.splat_cuda_knn_scratch(len(points)))] if twin.cuda else []))
    return out


def morton(twin: Twin, means: np.ndarray) -> np.ndarray:
    order = garbage(len(means), np.int64)
    scratch = twin.scratch(twin.lib.splat_cuda_sort_scratch(len(means)))
    twin.call("morton", len(means), twin.at(means, "float *"), twin.at(order, "int64_t *"), scratch)
    return order


def draw(twin: Twin, scene: Scene, capacity: int, *, backward: bool = True) -> Drawn:
    """Forward, statistics, backward with everything the case asks for."""
    view = View(twin, scene).project().bin(capacity).blend().forward_stats()
    if backward:
        view.blend_backward().backward_stats().project_backward()
    twin.keep.clear()
    return view.out


def capacity_for(scene: Scene, twin: Twin) -> int:
    """Slots the scene takes, and a few more."""
    rect = View(twin, scene).project().out.projected["rect_tiles"]
    return int(rect.sum()) + 7
