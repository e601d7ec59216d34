"""What a run writes about its pictures: first render, evaluation, exports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from splat.edit.marks import EDIT_LOG, mark_of_log
from splat.evaluate.views import Evaluation, evaluate_views, render_color, to_8bit, write_per_view
from splat.io.cameras_json import write_cameras_json
from splat.io.formats import write_model
from splat.io.header import background_text, scene_header
from splat.io.png import write_png
from splat.render.types import Rasterizer
from splat.scene.images import ImageStore
from splat.scene.types import Scene
from splat.train.errors import EvaluationAbandoned
from splat.train.state import TrainState


def run_header(run_dir: Path, scene: Scene, state: TrainState) -> dict[str, Any]:
    """The header of model files of a run: where it stands, what was edited, and a background set by hand."""
    facts: dict[str, Any] = {"step": state.step}
    if "background" in state.changes:
        facts["background"] = background_text(state.changes["background"])
    return mark_of_log(Path(run_dir) / EDIT_LOG, state.edits_done).in_header(scene_header(scene, **facts))


class Outputs:
    """Writers of one run folder; every method takes the state as it is between two steps."""

    def __init__(
        self, run_dir: Path, scene: Scene, store: ImageStore, rasterizer: Rasterizer, *,
        background: Callable[[], tuple[float, float, float]], abandon: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        """``background`` is the colour behind views that name none; ``abandon`` is asked before every view of an
        evaluation."""
        self._run_dir, self._scene, self._store = Path(run_dir), scene, store
        self._rasterizer, self._background, self._abandon = rasterizer, background, abandon

    def first_render(self, state: TrainState, path: Path | None = None) -> Path:
        """The first held-out view (or the first view) as the start draws it."""
        index = (self._scene.test_indices or self._scene.train_indices)[0]
        image = render_color(state.model, self._rasterizer, self._scene.cameras[index], self._background())
        return write_png(path or self._run_dir / "renders" / "first.png", to_8bit(image))

    def evaluate(self, state: TrainState) -> Evaluation:
        """Measure held-out views; pictures go to ``renders/step_N``, numbers to ``per_view.json``."""
        indices = self._scene.test_indices
        evaluation = evaluate_views(
            state.model, self._rasterizer, self._scene.test_cameras, lambda view: self._store.frame(indices[view]),
            background=self._background(), save_dir=self._run_dir / "renders" / f"step_{state.step}",
            protocol=dict(self._scene.protocol), progress=self._unless_abandoned,
        )  # fmt: skip
        write_per_view(self._run_dir / "per_view.json", evaluation, step=state.step)
        return evaluation

    def _unless_abandoned(self, views: Iterable[int]) -> Iterator[int]:
        for view in views:
            if self._abandon():
                raise EvaluationAbandoned
            yield view

    def export(self, state: TrainState) -> None:
        """``model.safetensors`` as trained, the PLY and the cameras in the capture's own frame."""
        header = run_header(self._run_dir, self._scene, state)
        write_model(state.model, self._run_dir / "model.safetensors", format="native", header=header)
        ply = self._run_dir / "point_cloud" / f"iteration_{state.step}" / "point_cloud.ply"
        write_model(state.model, ply, format="ply", header=header)
        write_cameras_json(self._run_dir / "cameras.json", self._scene)
