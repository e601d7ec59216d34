"""The viewer in a real browser, for ``bench_viewer.py --only browser``: headless Chromium, moved by a real mouse.

What is timed of one movement after a rest:

    mouse event ─ to_server ─► the server hears ─ server ─► picture handed out ─ way_back ─► in the page ─ page ─► shown

* The mouse event's time is the one that the browser itself gives it, before the page has heard of it. to_server: the
  page waits for its next animation frame, and viser for its own beat (20 ms between cameras, 50 ms between drags).
* server: from the message to the picture drawn, packed and given to viser; what of it is drawing and packing is told
  apart (drawing), and of a drag what moving, solving and deforming take (event).
* way_back: viser gathers messages for up to 17 ms, the page unpacks them.
* page: the image is decoded, uploaded and drawn; shown is the beginning of the page's next animation frame, when the
  compositor has the pixels.
* first: from the mouse event to the first picture that shows another view (or other rows) than before; sharp: to the
  sharp one. Medians of the parts need not add up to that of the whole.

Without rest the mouse moves as soon as the page has taken its last movement. Pictures per second count those that were
shown and differ from the one before; a page tells at most 20 movements of a drag per second, and 50 of a camera.

Browser, server and mouse share one machine, and headless Chromium draws WebGL on the processors. What it takes by that
alone is measured beside: a page that orbits while the stream is off, and the processors each of them takes.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import statistics
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from bench_viewer_drag import DRAGGED, model_to_drag, moved
from bench_viewer_hooks import SCRIPT, Frame, Job, answer, clock_offset, distinct, joined, lags, spread
from bench_viewer_load import Meter

from splat.edit.ops import Select
from splat.edit.session import EditSession
from splat.edit.shapes import Sphere
from splat.errors import UserError
from splat.model.labels import SELECTED
from splat.model.splat_model import SplatModel
from splat.render.registry import choose
from splat.viewer.serving.app import Viewer
from splat.viewer.serving.standing import StandingHost

FLAGS = ("--headless=new", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
         "--ignore-gpu-blocklist", "--force-color-profile=srgb", "--hide-scrollbars")  # fmt: skip
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LEAST_WIDTH = 600
"""A narrower page puts its controls over the picture."""
PATIENCE_SECS = 60.0
ANSWER_SECS = 10.0
SETTLE_SECS = 2.0
"""For panels, and the camera's first messages."""
POLL_SECS = 0.03
REST_SECS = 0.4
"""After a sharp picture; the page goes on drawing for a quarter of a second."""
STEPS = 4
"""Of the mouse between two corners of its way, without rest."""
ORBIT_AT, ORBIT_PX = (0.23, 0.62), 40.0
"""Where the mouse orbits: middle as shares of the page, left of the controls, and radius."""
HANDLES_AT = ((0.4, 0.62), (0.3, 0.5), (0.25, 0.65), (0.4, 0.8), (0.2, 0.4), (0.1, 0.6))
"""Where a handle may be put: the first place where something is seen."""
DRAG_PX = 16.0
MOVES = 12
"""Single movements in a round; the first is not counted."""
Spot = tuple[float, float]


def measured_in_browser(args: Namespace, without: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """All of it, in rounds that take turns; ``without(url)`` measures a page without a browser on the same viewer."""
    program = browser_program(args.size)
    from_files = [args.model] if args.model is not None else []
    orbited = model_to_drag(from_files, 1)
    dragged = {number: model_to_drag(args.dragged or from_files, number) for number in DRAGGED}
    rounds: list[dict[str, Any]] = []
    with chromium(program) as browser:
        for number in range(args.rounds):
            found: dict[str, Any] = {"drag": {}}
            with served(orbited) as (viewer, url):
                found["without_browser"] = without(url)
                with seated(browser, viewer, url, args.size) as seat:
                    found["orbit"] = orbits(seat, args.secs)
            for selected, model in dragged.items():
                with served(model) as (viewer, url), seated(browser, viewer, url, args.size) as seat:
                    found["drag"][str(selected)] = drags(seat, selected, args.secs)
            rounds.append(found)
            print(f"browser: round {number + 1} of {args.rounds}", file=sys.stderr, flush=True)
        version = browser.version
    return {"chromium": version, "splats": orbited.count, **pooled(rounds)}


def pooled(rounds: list[Any]) -> Any:
    """Rounds of the same shape as one: lists are joined and told as their spread, numbers by their median, what went
    unanswered by its sum."""
    first = rounds[0]
    if isinstance(first, dict):
        names = dict.fromkeys(name for found in rounds for name in found)
        return {name: (sum if name == "unanswered" else pooled)([found[name] for found in rounds if name in found])
                for name in names}  # fmt: skip
    if isinstance(first, list):
        return spread([value for found in rounds for value in found])
    known = [number for number in rounds if number is not None]
    return statistics.median(known) if known else None


# the browser --------------------------------------------------------------------------------------------------------


def browser_program(size: tuple[int, int]) -> str:
    """Where Chromium is. UserError where it or what drives it is missing, or the page would be too narrow."""
    if size[0] < LEAST_WIDTH:
        raise UserError(f"--size {size[0]}x{size[1]} is too narrow for a browser: use {LEAST_WIDTH} and more")
    if importlib.util.find_spec("playwright") is None:
        raise UserError("the part 'browser' needs playwright, which is not installed: pip install 'splat[test]'")
    found = os.environ.get("SPLAT_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        raise UserError(f"the part 'browser' needs one of {', '.join(CHROMIUM)}, or SPLAT_CHROMIUM to name one")
    return found


@contextmanager
def chromium(program: str) -> Iterator[Any]:
    """A browser. UserError where it does not start."""
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=program, headless=True, args=list(FLAGS))
        except Error as error:
            raise UserError(f"{program} does not start: {str(error).splitlines()[0]}") from error
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def served(model: SplatModel) -> Iterator[tuple[Viewer, str]]:
    """A viewer on a model that nothing trains, and its address. ``model`` stays as it is."""
    rasterizer = choose("cpu")
    model = SplatModel(model.primitive, dict(model.rows), model.sh_degree, model.filter2d, model.filter3d)
    with StandingHost(model) as host:
        viewer = Viewer(host.link, rasterizer=rasterizer, session=EditSession(rasterizer=rasterizer), port=0,
                        token="bench", model=model, standing=True)  # fmt: skip
        try:
            yield viewer, viewer.start()
        finally:
            viewer.close()
            host.close()
            for thread in threading.enumerate():  # at their last work; the next one is not to share the machine with it
                if thread.daemon and thread.name.startswith("splat-"):
                    thread.join(PATIENCE_SECS)


@contextmanager
def seated(browser: Any, viewer: Viewer, url: str, size: tuple[int, int]) -> Iterator[Seat]:
    """A page of the browser that has shown its first sharp picture."""
    known = set(viewer.pages)
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, device_scale_factor=1)
    try:
        page = context.new_page()
        page.add_init_script(SCRIPT)
        page.goto(f"{url}&fixedDpr=1", wait_until="commit")
        ours = wait_for(lambda: next((p for n, p in viewer.pages.items() if n not in known), None), "page")
        wait_for(lambda: ours.toolbox is not None and ours.last is not None, "picture")
        page.locator("canvas[data-engine]").wait_for(state="attached")
        page.add_style_tag(content=".mantine-Notifications-root { display: none }")  # they lie over the picture
        seat = Seat(page, ours, viewer, size)
        time.sleep(SETTLE_SECS)
        ours.redraw()
        seat.rest()
        yield seat
    finally:
        context.close()


def wait_for(what: Callable[[], Any], name: str, secs: float = PATIENCE_SECS) -> Any:
    """The first true value of ``what()``."""
    end = time.perf_counter() + secs
    while not (value := what()):
        if time.perf_counter() > end:
            raise UserError(f"browser: waited {secs:g} s in vain for: {name}")
        time.sleep(POLL_SECS)
    return value


class Seat:
    """Somebody before a page: the mouse, and what page and server tell of what it does."""

    def __init__(self, page: Any, ours: Any, viewer: Viewer, size: tuple[int, int]) -> None:
        self.page, self.ours, self.viewer, self.size = page, ours, viewer, size
        self.frames: list[Frame] = []
        self.cameras: list[float] = []
        self.drags: list[float] = []
        self.jobs: list[Job] = []
        self.previews: list[float] = []
        self._watch()
        self.offset, self.clock_error = clock_offset(lambda: page.evaluate("splatBench.now()"), time.perf_counter)

    def _watch(self) -> None:
        """Take the time of what the server does for this page, in the calls between its parts."""
        ours, scene, storage = self.ours, self.ours.client.scene, self.ours.client.local_storage
        runner = ours.toolbox.runner
        send, get_item, preview, newest = scene.set_background_image, storage.get_item, ours.preview, runner.newest
        handed = [0.0]

        def sent(*args: Any, **options: Any) -> None:
            send(*args, **options)
            handed[0] = time.perf_counter()

        def asked(key: str, *args: Any, **options: Any) -> Any:  # each picture ends with a question to the page
            frame = ours.last
            if key == "splat-frame" and handed[0] > 0:
                view = tuple(frame.camera.camera_from_world.ravel().tolist())
                self.frames.append(Frame(handed[0] - frame.secs, handed[0], view, frame.why, frame.width))
            return get_item(key, *args, **options)

        def previewed(*args: Any) -> None:
            self.previews.append(time.perf_counter())
            preview(*args)

        def queued(key: str, job: Callable[[], None]) -> None:
            if key != "drag":
                return newest(key, job)
            number, heard = len(self.drags), time.perf_counter()
            self.drags.append(heard)

            def timed() -> None:
                begun = time.perf_counter()
                job()
                self.jobs.append(Job(number, heard, begun, time.perf_counter()))

            newest(key, timed)

        async def moved(_: Any) -> None:
            self.cameras.append(time.perf_counter())

        scene.set_background_image, storage.get_item, ours.preview, runner.newest = sent, asked, previewed, queued
        ours.client.camera.on_update(moved)

    def at(self, share: Spot) -> Spot:
        """The pixel at these shares of the page."""
        return round(share[0] * self.size[0]), round(share[1] * self.size[1])

    def rest(self, after: int = 0) -> bool:
        """Until the server has made more than ``after`` frames of this record, the last of them is a sharp one that the
        page has shown, and no other follows for a while. Whether that came in time."""
        end = time.perf_counter() + ANSWER_SECS
        while time.perf_counter() < end:
            known = len(self.frames)
            if known > after and self.frames[-1].why == "still" and self._has_shown(self.frames[-1]):
                time.sleep(REST_SECS)
                if len(self.frames) == known:
                    return True
            time.sleep(POLL_SECS)
        return False

    def _has_shown(self, frame: Frame) -> bool:
        came = self.page.evaluate("splatBench.last()")
        return came is not None and came / 1000 + self.offset >= frame.begun

    def forget(self) -> None:
        """Begin a new record, at rest. The picture that stands remains in it."""
        self.page.evaluate("splatBench.take()")
        del self.frames[:-1]
        for rows in (self.cameras, self.drags, self.jobs, self.previews):
            rows.clear()

    def singles(self, spots: Iterator[Spot], heard: list[float]) -> dict[str, Any]:
        """Movements after rests: what ``answer`` says of each, by name."""
        self.forget()
        for _ in range(MOVES):
            known = len(self.frames)
            self.page.mouse.move(*next(spots))
            self.rest(known)
        log = self.page.evaluate("splatBench.take()")
        pictures = joined(log["pictures"], self.frames, self.previews, self.offset)
        begins = [row["at"] / 1000 + self.offset for row in log["mouse"]]
        answers = [answer(begin, end, heard, pictures)
                   for begin, end in zip(begins, [*begins[1:], math.inf], strict=True)][1:]  # fmt: skip
        told = [one for one in answers if one is not None]
        names = told[0] if told else ()
        return {"unanswered": MOVES - 1 - len(told), **{name: [one[name] for one in told] for name in names}}

    def stroke(self, spots: Iterator[Spot], secs: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """Movement without rest; rates of it, and the page's record."""
        self.forget()
        self.page.evaluate("splatBench.count(true)")
        meter, start = Meter(), time.perf_counter()
        while time.perf_counter() - start < secs:
            self.page.mouse.move(*next(spots), steps=STEPS)  # each waits until the page has taken the one before
        cores, wall = meter.cores(), time.perf_counter() - start
        log = self.page.evaluate("splatBench.take()")
        self.page.evaluate("splatBench.count(false)")
        pictures = joined(log["pictures"], self.frames, self.previews, self.offset)
        widths = [frame.width for frame in self.frames if frame.begun > start]
        rates = {"mouse_events": len(log["mouse"]), "animation_frames": log["beats"], "webgl_frames": log["drawn"],
                 "pictures_sent": len(widths), "pictures": distinct(pictures)}  # fmt: skip
        return {"per_sec": {name: number / wall for name, number in rates.items()}, "cores": cores,
                "width": statistics.median(widths) if widths else 0.0}, log  # fmt: skip


def circle(middle: Spot, radius: float, step: float) -> Iterator[Spot]:
    """Around without end, beginning at the rightmost point; ``step`` radians each."""
    for i in count():
        yield middle[0] + radius * math.cos(step * i), middle[1] + radius * math.sin(step * i)


# what is measured ---------------------------------------------------------------------------------------------------


def orbits(seat: Seat, secs: float) -> dict[str, Any]:
    """Single movements of an orbit, an orbit without rest, and one with the stream off."""
    spots = circle(seat.at(ORBIT_AT), ORBIT_PX, 0.3)
    seat.page.mouse.move(*next(spots))
    seat.page.mouse.down()
    seat.rest()
    single = seat.singles(spots, seat.cameras)
    stream, _ = seat.stroke(spots, secs)
    seat.rest()
    seat.ours.stream(False)
    time.sleep(REST_SECS)
    off, _ = seat.stroke(spots, secs / 2)
    seat.page.mouse.up()
    return {"single": single, "stream": stream, "stream_off": off, "clock_error_ms": [1000 * seat.clock_error]}


def drags(seat: Seat, selected: int, secs: float) -> dict[str, Any]:
    """Single movements of a handle that the mouse holds, a stroke without rest, and the same drag without a page. The
    mouse never lets go: the edit that would follow takes seconds, and nobody waits for it."""
    spot, radius = choose_handle(seat, selected)
    spots = circle((spot[0] - DRAG_PX, spot[1]), DRAG_PX, 0.7)
    seat.page.mouse.move(*next(spots))
    seat.page.mouse.down()
    for _ in range(3):  # the first makes it a drag, the next are followed
        seat.page.mouse.move(*next(spots))
        time.sleep(REST_SECS)
    wait_for(lambda: seat.jobs, "the handle to follow the mouse")
    seat.rest()
    single = seat.singles(spots, seat.drags)
    single["event_ms"] = [1000 * (job.ended - job.begun) for job in seat.jobs[1:]]
    stream, log = seat.stroke(spots, secs)
    pictures = joined(log["pictures"], seat.frames, seat.previews, seat.offset)
    stream["lag_ms"] = lags(log, seat.jobs, pictures, seat.offset)
    stream["event_ms"] = [1000 * (job.ended - job.begun) for job in seat.jobs]
    seat.rest()
    tool, snapshot = seat.ours.toolbox.tool, seat.viewer.desk.snapshot
    alone = moved(snapshot, seat.ours.toolbox.selected(), tool.operation(0, tool.pins[0].at, (1.0, 0.0, 0.0, 0.0)),
                  0.05 * radius, seat.ours.camera())  # fmt: skip
    return {"single": single, "stream": stream, "splats": snapshot.model.count, "rows": alone["rows"],
            "without_page": alone}  # fmt: skip


def choose_handle(seat: Seat, selected: int) -> tuple[Spot, float]:
    """Select what is nearest to a point that is seen, put a handle there by a click, and give the mouse to the tool;
    the pixel, and the radius of what is selected (world units)."""
    box, desk = seat.ours.toolbox, seat.viewer.desk
    found = None
    for share in HANDLES_AT:
        spot = seat.at(share)
        found = box.picked((spot[0] + 0.5, spot[1] + 0.5), seat.ours.camera())
        if found is not None:
            break
    if found is None:
        raise UserError("browser: nothing to drag is seen where a handle could be put")
    away = (desk.snapshot.model.rows["means"] - torch.as_tensor(found.at, dtype=torch.float32)).norm(dim=1)
    radius = float(away.kthvalue(min(selected, len(away))).values) * (1 + 1e-6)  # that one as well
    desk.submit(Select(Sphere(tuple(map(float, found.at)), radius))).result(PATIENCE_SECS)
    desk.refresh()
    wait_for(lambda: bool(desk.snapshot.labels.having(SELECTED).any()), "selection")
    seat.page.keyboard.press("g")
    wait_for(lambda: box.tool is not None and box.tool.name == "drag", "drag tool")
    box.runner.idle(PATIENCE_SECS)
    seat.rest()
    seat.page.mouse.click(*spot)
    wait_for(lambda: box.tool.pins, "handle")
    box.runner.idle(PATIENCE_SECS)
    seat.rest()
    return spot, radius
