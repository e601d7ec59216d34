"""The tab "Inspect": one splat, and how numbers are spread."""

from __future__ import annotations

import re
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import serving
import torch
from controls import check, choose, drag_thumb, press, tab
from pageless import visited

from splat.edit.attributes import ATTRIBUTES
from splat.model.labels import SELECTED
from splat.viewer.figures.histogram import BINS, HEIGHT_PX, count_in_range, histogram, picture
from splat.viewer.figures.picked import rings, table
from splat.viewer.panels import spread
from splat.viewer.panels.inspect import PickPanel
from splat.viewer.panels.spread import SpreadPanel
from splat.viewer.panels.suspects import SUSPECTS, counted, limits_of


def selected(served) -> int:
    return served.desk.session.status.selected


def test_a_click_reads_the_splat_that_shows_most_there(page, shown, served) -> None:
    tab(page, "Inspect")
    press(page, "Pick a splat")
    serving.wait_for(lambda: shown.tool == "inspect", why="the tool")
    serving.heard(shown, page)
    frame = serving.sharp(shown)
    x, y = 330, 250
    page.mouse.click(x, y)
    read = page.get_by_text(re.compile(r"^\d+ \(row [\d,]+\)$"))
    read.wait_for()
    number = int(read.inner_text().split()[0])
    snapshot = served.desk.snapshot
    row = int((snapshot.labels.ids == number).nonzero()[0, 0])
    assert row == expected_row(served, frame, x, y)
    opacity = float(snapshot.model.opacities[row])
    page.get_by_text(f"{opacity:.4f}", exact=True).wait_for()
    node = serving.node(shown, "/splat/inspect/rings")
    assert np.allclose(node.points, served.desk.space.page(rings(snapshot.model, row)), atol=1e-4)
    press(page, "Select it")
    serving.wait_for(lambda: selected(served) == 1, why="the selection")
    serving.wait_for(lambda: bool(served.desk.snapshot.labels.having(SELECTED)[row]), why="this very one")
    press(page, "Look at it")
    mean = snapshot.model.rows["means"][row].numpy()
    serving.wait_for(lambda: np.linalg.norm(in_view(shown.camera(), mean)[:2]) < 1e-3, why="it in the middle")
    press(page, "Forget it")
    page.get_by_text("Click a splat to read its values.", exact=True).wait_for()
    serving.wait_for(lambda: "/splat/inspect/rings" not in serving.nodes(shown), why="the rings to go")


def expected_row(served, frame, x: int, y: int) -> int:
    from splat.render.types import CameraBatch, RenderOptions

    model = served.desk.snapshot.model
    options = RenderOptions(sh_degree=1, top_id=True)
    output = served.desk.rasterizer.render(model.render_inputs(), CameraBatch.of(frame.camera), options)
    return int(output.top_id[0, y, x])


def in_view(camera, point) -> np.ndarray:
    return camera.camera_from_world[:3, :3] @ point + camera.camera_from_world[:3, 3]


def test_a_click_does_nothing_while_another_tool_has_the_mouse(page, shown) -> None:
    tab(page, "Inspect")
    page.mouse.click(330, 250)
    serving.heard(shown, page)
    page.wait_for_timeout(400)
    assert page.get_by_text("Click a splat to read its values.", exact=True).is_visible()


def test_dragging_a_range_selects_what_lies_in_it(page, shown, served) -> None:
    tab(page, "Inspect")
    choose(page, "Attribute", "scale_max")
    page.get_by_text(ATTRIBUTES["scale_max"].purpose).wait_for()
    drag_thumb(page, "Range", 0, 0.5)
    snapshot = served.desk.snapshot
    values = ATTRIBUTES["scale_max"].values(snapshot.model, snapshot.labels)
    found = histogram(values, torch.zeros(len(values), dtype=torch.bool))

    def matching() -> list[int]:
        """Bins near the middle, by how many splats lie above their lower edge."""
        return [count_in_range(values, *found.range_of(first, BINS)) for first in range(120, 137)]

    serving.wait_for(lambda: selected(served) in matching() and selected(served) < len(values), why="a selection")
    serving.wait_for(lambda: told(page) == selected(served), why="the count")
    before = len(served.desk.session.status.undo)
    check(page, "Dragging selects")
    drag_thumb(page, "Range", 1, 0.75)
    serving.wait_for(lambda: told(page) != selected(served), why="the count of another range")
    page.wait_for_timeout(700)
    assert len(served.desk.session.status.undo) == before  # one step of undo for a drag, none without
    press(page, "Select the range")
    serving.wait_for(lambda: len(served.desk.session.status.undo) == before + 1, why="the button")
    serving.wait_for(lambda: selected(served) == told(page), why="the selection of what was counted")


def told(page) -> int:
    """How many splats the panel says are in the range."""
    text = page.get_by_text(re.compile(r"^[\d,]+ of 600 from")).inner_text()
    return int(text.split()[0].replace(",", ""))


def test_suspects_are_counted_and_selected(page, shown, served) -> None:
    tab(page, "Inspect")
    page.get_by_text("Floaters and other suspects").click()
    press(page, "Count")
    expected = counted(served.desk.snapshot, None)
    for name in SUSPECTS:
        page.get_by_role("row", name=re.compile(f"^{name} {expected[name]:,} ")).wait_for()
    serving.heard(shown, page)  # the table has pushed the buttons down

    def chosen() -> bool:
        press(page, "Very large")
        serving.heard(shown, page)
        return selected(served) == expected["Very large"]

    serving.wait_for(chosen, why="the selection")


# without a browser --------------------------------------------------------------------------------------


def test_readings_at_once_leave_one_set_of_rings(served, monkeypatch) -> None:
    """Of a click and of the page's own thread."""
    panel, made = PickPanel.__new__(PickPanel), []
    monkeypatch.setattr(PickPanel, "_radii_px", lambda *_: torch.ones(2))
    with visited(served) as (_, ours):
        snapshot = serving.wait_for(lambda: ours.snapshot, why="a model")
        add = ours.overlay.add_line_segments

        def slowly(*args, **options):
            made.append(1)
            time.sleep(0.02)
            return add(*args, **options)

        ours.overlay.add_line_segments = slowly
        panel.page, panel.id, panel._shown, panel._node = ours, int(snapshot.labels.ids[3]), None, None
        panel.values, panel.actions = SimpleNamespace(content=""), SimpleNamespace(visible=False)
        panel._lock = threading.RLock()

        def read() -> None:
            panel._shown = None  # as a click does
            panel.refresh()

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 1 and len(serving.nodes(ours, "/splat/inspect/")) == 1


def test_a_model_in_training_is_counted_seldom_unless_somebody_uses_the_panel_or_edits(monkeypatch) -> None:
    now, counts = [100.0], []
    monkeypatch.setattr(spread, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(SpreadPanel, "_count", lambda self, snapshot: counts.append(now[0]))
    desk = SimpleNamespace(is_training=True, session=SimpleNamespace(status=object()))
    panel = SpreadPanel.__new__(SpreadPanel)
    panel.page = SimpleNamespace(desk=desk, snapshot=SimpleNamespace(version=0))
    panel.attribute, panel.log_values = SimpleNamespace(value="opacity"), SimpleNamespace(value=False)
    panel._counted, panel._counted_at, panel._used_at, panel._status = None, 0.0, 0.0, desk.session.status

    def counted_in(secs: int) -> int:
        before = len(counts)
        for _ in range(secs):
            now[0] += 1.0
            panel.page.snapshot.version += 1
            panel.tick()
        return len(counts) - before

    assert counted_in(60) == 4
    desk.session.status = object()  # somebody selects or edits
    assert counted_in(10) == 5
    now[0] += 100.0
    desk.is_training = False
    assert counted_in(5) == 5


def test_bins_count_everything_once_and_edges_select_what_they_show() -> None:
    values = torch.cat([torch.randn(5000, generator=torch.Generator().manual_seed(1)), torch.tensor([-1e6, 1e6])])
    chosen = values > 1
    found = histogram(values, chosen)
    assert found.counts.sum() == found.total == 5002 and found.selected.sum() == int(chosen.sum())
    assert (np.diff(found.edges) > 0).all()
    assert found.edges[0] == -1e6 and found.edges[-1] == 1e6 and found.edges[-2] < 4  # two floaters stretch nothing
    for first, last in ((0, BINS), (100, 150), (0, 7)):
        assert count_in_range(values, *found.range_of(first, last)) == found.counts[first:last].sum()


def test_bins_of_equal_factors() -> None:
    values = torch.logspace(-4, 0, 4001)
    found = histogram(values, torch.zeros(4001, dtype=torch.bool), log_values=True)
    inner = np.diff(np.log(found.edges[1:-1]))
    assert np.allclose(inner, inner[0]) and found.counts[1:-1].std() < 2
    below = histogram(torch.cat([values, -values[:10]]), torch.zeros(4011, dtype=torch.bool), log_values=True)
    assert below.counts.sum() == 4011 and below.counts[0] >= 10


@pytest.mark.parametrize("values", [[], [3.0], [3.0] * 9, [0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0, 2.0]])
def test_odd_values_have_a_histogram_too(values) -> None:
    table_of = torch.tensor(values)
    for log_values in (False, True):
        found = histogram(table_of, torch.zeros(len(values), dtype=torch.bool), log_values=log_values)
        assert found.total == int(torch.isfinite(table_of).sum()) == found.counts.sum()
        assert np.isfinite(found.edges).all() and (np.diff(found.edges) > 0).all()
        assert picture(found, 0, BINS).shape == (HEIGHT_PX, 2 * BINS, 3)


def test_the_picture_shows_counts_range_and_selection() -> None:
    values = torch.cat([torch.zeros(100), torch.ones(25)])
    found = histogram(values, values > 0.5)
    bars = picture(found, 0, 128)[:, ::2]
    heights = (bars != bars[0, 0]).any(-1).sum(0)
    assert heights[0] == HEIGHT_PX - 4 and heights[-1] == round((HEIGHT_PX - 4) / 4) and heights[1:-1].max() == 0
    assert tuple(bars[-1, 0]) == (150, 190, 255) and tuple(bars[-1, -1]) == (255, 214, 10)
    assert (picture(found, 0, 128, log_counts=True)[:, -1] != bars[0, 0]).any(-1).sum() > heights[-1]


def test_everything_of_a_splat_stands_in_its_table() -> None:
    from dataclasses import replace

    from viewer_scene import snapshot_of

    snapshot = snapshot_of([[0, 0, 2]], rgb=[[1, 0.5, 0]], opacities=0.5, scales=0.25, sh_degree=3, flags=[1 | 8],
                           ids=[77], born=[4], reasons=[1], names=("start", "split"), step=10)  # fmt: skip
    model = replace(snapshot.model, filter3d=torch.tensor([0.125]))
    text = table(replace(snapshot, model=model), 0, radii_px=torch.tensor([3.0, 4.5]), eye=np.array([0, 0, -1.0]))
    for part in ("77 (row 0)", "split, step 4 (6 ago)", "selected, edited by hand", "0, 0, 2", "| distance | 3 |",
                 "0.5000", "0.25, 0.25, 0.25", "4.5 x 3.0 px", "`#ff8000`", "0.125", "15 x 3 numbers"):  # fmt: skip
        assert part in text, part
    for name in model.rows:
        assert f"*{name}*" in text


def test_rings_are_at_two_standard_deviations() -> None:
    from viewer_scene import random_snapshot, snapshot_of

    snapshot = snapshot_of([[1, 2, 3]], scales=torch.tensor([[0.1, 0.2, 0.3]]))
    lines = rings(snapshot.model, 0)
    assert lines.shape == (144, 2, 3)
    local = (lines - [1, 2, 3]) / [0.2, 0.4, 0.6]
    assert np.allclose(np.linalg.norm(local, axis=-1), 1, atol=1e-5)
    assert np.isfinite(rings(random_snapshot(3, kind="convex").model, 1)).all()


def test_suspects_of_a_scene() -> None:
    from viewer_scene import snapshot_of

    rng = np.random.default_rng(0)
    means = np.concatenate([rng.normal(0, 1, (50, 3)), [[0, 0, 300.0]]])
    scales = torch.full((51, 3), 0.05)
    scales[3] = 4.0
    scales[5] = torch.tensor([0.5, 0.01, 0.01])
    opacities = torch.full((51,), 0.5)
    opacities[7:9] = 0.01
    snapshot = snapshot_of(means, scales=scales, opacities=opacities)
    assert counted(snapshot, 2.0) == {"Far away": 1, "Very large": 2, "Faint": 2, "Needles": 1}
    low, high = limits_of(SUSPECTS["Very large"], snapshot, None)
    assert 0.2 < low < 0.8 and high > 1e30
    assert counted(snapshot_of(np.zeros((0, 3))), None) == dict.fromkeys(SUSPECTS, 0)
