"""The export panel: every format with what it is for, into the run folder and to the browser."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from splat.errors import UserError
from splat.io.placement import placed_header
from splat.io.selection import UP_AXES, Selection
from splat.live.snapshot import Snapshot
from splat.viewer.output.exports import (
    FOLDER,
    WHICH,
    Exported,
    download_of,
    export_path,
    exported_model,
    formats,
    size_text,
    write_export,
)
from splat.viewer.output.placement import header_of, placement_of
from splat.viewer.serving.jobs import Job, Jobs
from splat.viewer.serving.page import BEAT_SECS, Page

PUBLISH = "html"
AS_CAPTURED = "as captured"
FRESH_SECS = 5.0
"""How long to wait for a model newer than the page's before that is written."""
LOG = "edits.json"


def build(page: Page) -> ExportPanel:
    with page.tabs.add_tab("Export"):
        return ExportPanel(page)


class ExportPanel:
    """Writes snapshots; the training goes on meanwhile."""

    def __init__(self, page: Page) -> None:
        self._page, self._jobs = page, Jobs(page)
        self._written: list[Exported] = []
        self._purposes = formats()
        gui = page.client.gui
        self._format = gui.add_dropdown("Format", tuple(self._purposes), initial_value="ply")
        self._purpose = gui.add_markdown("")
        self._which = gui.add_dropdown("Splats", tuple(WHICH.values()), initial_value=WHICH["all"])
        self._marked = gui.add_markdown("", visible=False)
        self._name = gui.add_text("Name", initial_value="", hint="Without ending; empty: scene and step")
        with gui.add_folder("More", expand_by_default=False):
            self._up = gui.add_dropdown("Up in the file", (AS_CAPTURED, *UP_AXES), initial_value=AS_CAPTURED)
            self._degree = gui.add_dropdown("SH degree", ("all", "0", "1", "2"), initial_value="all")
            self._faint = gui.add_slider("Least opacity", min=0.0, max=0.5, step=0.005, initial_value=0.0,
                                         hint="Fainter splats are left out")  # fmt: skip
        self._write = gui.add_button("Write the file", icon="file-export")
        self._publish = gui.add_button("Publish as a web page", icon="world", hint=self._purposes.get(PUBLISH))
        self._log = gui.add_button("Save the list of edits", icon="list-details",
                                   hint="'splat edit MODEL --log' repeats them")  # fmt: skip
        self._bar = gui.add_progress_bar(0.0, animated=True, visible=False)
        self._told = gui.add_markdown("")
        self._get = gui.add_button("Download the last file", icon="download", visible=False)
        self._table = gui.add_markdown("")
        self._format.on_update(page.guarded(lambda _: self._describe()))
        self._write.on_click(page.guarded(lambda _: self.write(self._format.value)))
        self._publish.on_click(page.guarded(lambda _: self.write(PUBLISH)))
        self._log.on_click(page.guarded(lambda _: self.save_log()))
        self._get.on_click(page.guarded(lambda _: self._send()))
        self._describe()
        page.every(BEAT_SECS, self._follow)

    def _follow(self) -> None:
        """What hidden and selected splats mean for the file."""
        which = next(name for name, words in WHICH.items() if words == self._which.value)
        text = marked_text(which, self._page.desk.session.status)
        if text != self._marked.content:
            self._marked.content, self._marked.visible = text, bool(text)

    def write(self, format_name: str) -> None:
        """Write the newest model in a format, in a thread of its own."""
        if self._page.snapshot is None:
            raise UserError("there is no model yet")
        which = next(name for name, words in WHICH.items() if words == self._which.value)
        degree = None if self._degree.value == "all" else int(self._degree.value)
        selection = Selection(min_opacity=float(self._faint.value), sh_degree=degree)
        up = None if self._up.value == AS_CAPTURED else self._up.value
        name = self._name.value.strip()

        def work(job: Job) -> None:
            snapshot = fresh_snapshot(self._page)
            path = export_path(self._folder(), name or self._default_name(snapshot), format_name)
            model, told = exported_model(snapshot, which, selection)
            header = placed_header(header_of(self._page.desk, step=snapshot.step), placement_of(self._page.desk), up)
            job.progress(0.3)
            self._note(write_export(model, path, format_name, header), told)

        if not self._jobs.is_running:  # before it starts: a refusal may be there at once
            self._bar.visible, self._told.content = True, f"writing {format_name} ..."
        self._jobs.start(f"writing {format_name}", work, lambda share, text: setattr(self._bar, "value", 100 * share),
                         self._ended)  # fmt: skip

    def save_log(self) -> None:
        """The edits of this session as JSON: into the run folder, and to the browser."""
        from splat.edit.json_ops import write_log

        session = self._page.desk.session
        kept = getattr(session, "log", None)
        if kept is not None and kept.exists():  # with what earlier sessions of this run did
            file = kept
        else:
            file = write_log(self._folder() / LOG, [] if session is None else session.ops)
        self._page.client.send_file_download(LOG, file.read_bytes(), save_immediately=True)
        self._told.content = f"list of edits: `{file}`"

    def _folder(self) -> Path:
        """Of the run; without one, of this page, to be downloaded from."""
        if self._page.desk.run_dir is not None:
            return self._page.desk.run_dir / FOLDER
        if not hasattr(self, "_scratch"):
            self._scratch = tempfile.TemporaryDirectory(prefix="splat-exports-")
            self._page.add_close(self._scratch.cleanup)
        return Path(self._scratch.name)

    def _default_name(self, snapshot: Snapshot) -> str:
        scene, run_dir = self._page.desk.scene, self._page.desk.run_dir
        name = scene.name if scene is not None else run_dir.name if run_dir is not None else "splats"
        plain = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name).strip("-")
        return f"{plain[:60] or 'splats'}_{snapshot.step}"

    def _note(self, exported: Exported, told: list[str]) -> None:
        self._written = [one for one in self._written if one.path != exported.path] + [exported]
        heads = ["| file | splats | size |", "|---|---|---|"]
        rows = [f"| {one.path.parent.name + '/' if one.path.name == 'meta.json' else ''}{one.path.name} | "
                f"{one.splats:,} | {size_text(one.size_bytes)} |" for one in reversed(self._written)]  # fmt: skip
        self._table.content = "\n".join(heads + rows)
        place = "ready to download" if self._page.desk.run_dir is None else f"`{exported.path}`"
        self._told.content = "  \n".join([f"{exported.format}, {size_text(exported.size_bytes)}: {place}", *told])

    def _ended(self) -> None:
        self._bar.visible = False
        self._get.visible = bool(self._written)
        if self._told.content.startswith("writing "):
            self._told.content = "nothing was written"

    def _send(self) -> None:
        if self._written:
            name, content = download_of(self._written[-1])
            self._page.client.send_file_download(name, content, save_immediately=True)

    def _describe(self) -> None:
        self._purpose.content = self._purposes[self._format.value]


def marked_text(which: str, status: Any) -> str:
    """In words, where hiding or selecting matters for what is written. ``status``: of the session."""
    if which == "selection":
        return f"{status.selected:,} splats are selected."
    if not status.hidden:
        return ""
    if which == "shown":
        return f"{status.hidden:,} hidden splats are left out."
    return f"**{status.hidden:,} hidden splats are written, too.** Choose '{WHICH['shown']}' to leave them out."


def fresh_snapshot(page: Page) -> Any:
    """The model as it is now, or the page's when none comes in time (a training may be in a long evaluation)."""
    arrived = threading.Event()
    end: Callable[[], None] = page.desk.on_snapshot(lambda _: arrived.set())
    try:
        page.desk.refresh()
        arrived.wait(FRESH_SECS)
    finally:
        end()
    return page.snapshot
