"""Tools on a model that is being trained: edits arrive between steps, and training goes on."""

from __future__ import annotations

from typing import Any

import serving

from splat.edit.ops import Delete
from splat.model.labels import SELECTED


def test_deleting_and_undo_while_training_goes_on(browser: Any, trained_live: serving.Served) -> None:
    desk = trained_live.desk
    with serving.opened(browser, trained_live) as (page, ours):
        page.add_style_tag(content=".mantine-Notifications-root { display: none }")
        box, session = ours.toolbox, desk.session
        page.keyboard.press("r")
        serving.wait_for(lambda: box.tool is not None, why="the tool")
        assert box.runner.idle(serving.PATIENCE_SECS)
        serving.heard(ours, page)
        page.mouse.move(60, 180)
        page.mouse.down()
        page.mouse.move(200, 300)
        page.mouse.move(420, 420)
        page.mouse.up()
        serving.wait_for(lambda: session.status.selected > 0, why="a selection")
        step = desk.status.step
        serving.wait_for(lambda: bool(desk.snapshot.labels.having(SELECTED).any()), why="a snapshot with it")
        page.keyboard.press("Delete")
        serving.wait_for(lambda: session.ops and session.ops[-1] == Delete(), why="the deletion")
        serving.wait_for(lambda: session.status.selected == 0, why="nothing to be selected any more")
        serving.wait_for(lambda: not bool(desk.snapshot.labels.having(SELECTED).any()), why="a snapshot without it")
        page.keyboard.press("Control+z")
        serving.wait_for(lambda: session.status.selected > 0, why="undo")
        serving.wait_for(lambda: bool((desk.snapshot.labels.having(SELECTED)).any()), why="a snapshot with it")
        serving.wait_for(lambda: desk.status.step > step + 2, why="further steps")
        assert desk.status.ended is None
