"""What is watched in a browser's page, for ``bench_viewer_browser.py``, and the arithmetic on it.

The page is viser's own. A script that runs before it wraps four things of the browser and changes none: the mouse's
events, the messages between the page and the worker that holds its connection, the making of blob addresses (a streamed
picture becomes an image that way), and the upload of an image into a texture (which happens in the animation frame that
draws it first).

Times are seconds of this process's ``perf_counter`` unless a name says otherwise.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

SCRIPT = r"""
(() => {
  let log, beats, drawn, dirty = false, counting = false, pending = [];
  const clear = () => { log = {mouse: [], sent: [], pictures: []}; beats = drawn = 0; };
  const now = () => performance.now();
  clear();
  globalThis.splatBench = {
    now,
    take: () => { const all = {...log, beats, drawn}; clear(); return all; },
    last: () => { const one = log.pictures.at(-1); return one && one.shown !== null ? one.came : null; },
    count: (on) => { if (on && !counting) requestAnimationFrame(beat); counting = on; },
  };
  const beat = () => {
    beats += 1;
    if (dirty) drawn += 1;
    dirty = false;
    if (counting) requestAnimationFrame(beat);
  };
  let place = "";
  addEventListener("pointermove", (event) => {
    const here = `${event.clientX} ${event.clientY}`;  // the browser repeats events where nothing moved
    if (here !== place) log.mouse.push({at: event.timeStamp, heard: now()});
    place = here;
  }, true);

  const Plain = Worker;
  globalThis.Worker = class extends Plain {
    constructor(...args) {
      super(...args);
      this.addEventListener("message", ({data}) => {
        if (data?.type !== "message_batch") return;
        for (const message of data.messages) {
          if (message.type !== "BackgroundImageMessage" || !message.rgb_data) continue;
          const picture = {bytes: message.rgb_data.length, came: now(), uploaded: null, shown: null, url: null};
          log.pictures.push(picture);
          pending = [...pending.slice(-20), picture];
        }
      });
    }
    postMessage(data, ...rest) {
      if (data?.type === "send") log.sent.push({at: now(), type: data.message.type, phase: data.message.phase});
      return super.postMessage(data, ...rest);
    }
  };

  const make = URL.createObjectURL;
  URL.createObjectURL = (blob) => {
    const url = make.call(URL, blob);
    const picture = pending.find((one) => one.url === null && one.bytes === blob.size);
    if (picture && blob.type?.startsWith("image/")) picture.url = url;
    return url;
  };

  const gl = WebGL2RenderingContext.prototype;
  for (const name of ["texImage2D", "texSubImage2D"]) {
    const plain = gl[name];
    gl[name] = function (...args) {
      const picture = pending.find((one) => one.url !== null && one.url === args.at(-1)?.src);
      if (picture && picture.uploaded === null) {
        picture.uploaded = now();
        requestAnimationFrame(() => { picture.shown = now(); });
      }
      return plain.apply(this, args);
    };
  }
  for (const name of ["drawArrays", "drawElements"]) {
    const plain = gl[name];
    gl[name] = function (...args) { dirty = true; return plain.apply(this, args); };
  }
})();
"""
CAMERA, DRAG = "ViewerCameraMessage", "SceneNodeDragMessage"
VIEW_STEP = 1e-5
"""Of the numbers of a view. The page tells a movement twice, at once still with the view it comes from but for the last
bits; a pixel is fifty times this."""


@dataclass(frozen=True)
class Frame:
    """A picture as the server made it."""

    begun: float
    handed: float
    """Drawn, packed and given to viser."""
    view: tuple[float, ...]
    """Of the camera: two frames with the same show the same, if nothing was dragged between."""
    why: str
    """``moving``, ``still`` or ``refresh``."""
    width: int


@dataclass(frozen=True)
class Job:
    """What the server did with one event of a drag: move the nodes of the handle, solve, deform."""

    number: int
    """Of the event, among those that were heard; one that waits is replaced by a newer one, and has no job."""
    heard: float
    begun: float
    ended: float


@dataclass(frozen=True)
class Picture:
    """A picture as the page showed it."""

    came: float
    """Its message reached the page's main thread."""
    shown: float
    """The beginning of the animation frame after the one that drew it: its pixels are the compositor's then."""
    frame: Frame
    state: tuple[int, int]
    """Number of the view, and of the previews of dragged rows: pictures of the same state are the same picture, but for
    their quality."""


def joined(rows: Sequence[dict[str, Any]], frames: Sequence[Frame], previews: Sequence[float],
           offset: float) -> list[Picture]:  # fmt: skip
    """The pictures of the page that were shown, with the frames they are. One frame is on its way at a time, and the
    next begins when the page has answered: a picture is the last frame that was begun before it came. ``rows`` are the
    page's, in its milliseconds; ``offset`` seconds lead from its clock to ours; ``previews`` are the times at which
    dragged rows changed."""
    begun, views, found = [frame.begun for frame in frames], numbered([frame.view for frame in frames]), []
    for row in rows:
        came = row["came"] / 1000 + offset
        number = bisect_right(begun, came) - 1
        if number < 0 or row["shown"] is None:
            continue
        state = (views[number], bisect_right(previews, frames[number].begun))
        found.append(Picture(came, row["shown"] / 1000 + offset, frames[number], state))
    return found


def numbered(views: Sequence[tuple[float, ...]]) -> list[int]:
    """A number for each, that of the one before where nothing has moved since that began."""
    numbers: list[int] = []
    first: np.ndarray | None = None
    for view in map(np.asarray, views):
        moved = first is None or np.abs(view - first).max() > VIEW_STEP
        if moved:
            first = view
        numbers.append((numbers[-1] if numbers else 0) + int(moved))
    return numbers


def answer(at: float, until: float, heard: Sequence[float], pictures: Sequence[Picture]) -> dict[str, float] | None:
    """How one movement of the mouse at ``at`` was answered before ``until``, milliseconds: the first picture that shows
    another state than the one before it, and the sharp one of the state it came to. ``heard`` are the times at which
    the server heard of movements. None where no such picture came."""
    before = next((p.state for p in reversed(pictures) if p.frame.handed <= at), None)
    after = [p for p in pictures if p.frame.handed > at and p.shown <= until]
    first = next((p for p in after if p.state != before), None)
    if first is None:
        return None
    sharp = next((p for p in after if p.frame.why == "still" and p.shown >= first.shown), None)
    told = max((time for time in heard if at <= time <= first.frame.begun), default=None)
    if sharp is None or told is None:
        return None
    frame = first.frame
    spans = {
        "first": (at, first.shown), "sharp": (at, sharp.shown), "to_server": (at, told), "server": (told, frame.handed),
        "drawing": (frame.begun, frame.handed), "way_back": (frame.handed, first.came),
        "page": (first.came, first.shown),
    }  # fmt: skip
    return {f"{name}_ms": 1000 * (end - begin) for name, (begin, end) in spans.items()}


def lags(page: dict[str, Any], jobs: Sequence[Job], pictures: Sequence[Picture], offset: float) -> list[float]:
    """Of each picture that was shown during a stroke without rest: milliseconds since the mouse event that it shows.
    The page's n-th message of the stroke is the n-th that the server heard, and tells of the last event that the page
    had handled. ``jobs`` and the previews that ``pictures`` were joined with are those of the stroke."""
    sent = [row["at"] for row in page["sent"] if row["type"] == DRAG and row["phase"] == "update"]
    handled = [row["heard"] for row in page["mouse"]]
    found, last = [], 0
    for picture in pictures:
        previews = picture.state[1]
        if last < previews <= len(jobs) and jobs[previews - 1].number < len(sent):
            event = bisect_right(handled, sent[jobs[previews - 1].number]) - 1
            if event >= 0:
                found.append(1000 * (picture.shown - page["mouse"][event]["at"] / 1000 - offset))
        last = previews
    return found


def distinct(pictures: Sequence[Picture]) -> int:
    """How many show another state than the one before."""
    return sum(one.state != other.state for one, other in pairwise(pictures))


def clock_offset(page_ms: Callable[[], float], clock: Callable[[], float], tries: int = 30) -> tuple[float, float]:
    """Seconds from the page's clock to ours, and how wrong that may be: half of the quickest question's time."""
    gap, offset = np.inf, 0.0
    for _ in range(tries):
        asked = clock()
        there = page_ms() / 1000
        heard = clock()
        if heard - asked < gap:
            gap, offset = heard - asked, (asked + heard) / 2 - there
    return float(offset), float(gap / 2)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 10 and 90 per cent; nothing of nothing."""
    if not values:
        return {}
    low, median, high = map(float, np.quantile(np.asarray(values, np.float64), (0.1, 0.5, 0.9)))
    return {"median": median, "p10": low, "p90": high, "count": len(values)}
