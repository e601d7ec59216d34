"""Films and the jobs that make them, without a browser."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import serving
from viewer_scene import camera, random_snapshot

from splat.errors import UserError
from splat.geometry.keyframes import CameraPath, Keyframe
from splat.render.registry import choose
from splat.viewer.output.movie import kept_look, key_at, look_with, shots, write_movie
from splat.viewer.picture.draw import draw
from splat.viewer.picture.look import Look
from splat.viewer.serving.jobs import Jobs, JobStopped

PAINTER = choose("cpu")


def test_a_key_keeps_how_the_page_draws():
    look = Look(mode="depth", background=(1.0, 0.5, 0.0), sh_degree=2, low=0.5, invert=True)
    key = key_at(camera(), look)
    assert look_with(Look(), key.look) == look and look_with(Look(), kept_look(look)) == look
    assert key_at(camera()).look == {} and look_with(look, {}) == look
    assert look_with(Look(), {"unheard of": 3.0, "swipe": 0.1}) == Look()  # words of later versions do no harm
    for wrong in ({"mode": 3.0}, {"background": "red"}, {"background": (1.0, 0.0)}, {"log_scale": "yes"}):
        with pytest.raises(UserError, match="does not fit"):
            look_with(Look(), wrong)


def test_a_film_shows_each_key_as_it_wants_to_be_drawn(tmp_path):
    keys = (key_at(camera(), Look(background=(1.0, 0.0, 0.0))), key_at(camera(), Look(background=(0.0, 0.0, 1.0))))
    snapshot = random_snapshot(40)
    path = CameraPath(tuple(Keyframe(k.position, k.wxyz, k.fov_deg, 1.0, 0.0, k.look) for k in keys), fps=4.0)
    pictures = shots(path, Look(show_selection=True), size=(48, 36))
    assert len(pictures) == 5 and not pictures[0][1].show_selection
    seen = []
    file = write_movie(tmp_path / "f.mp4", pictures, snapshot, PAINTER, fps=4.0, drew=lambda n, secs: seen.append(n))
    assert seen == [1, 2, 3, 4, 5]
    stream = cv2.VideoCapture(str(file))
    frames = [stream.read()[1][..., ::-1].astype(float) for _ in range(5)]
    assert not stream.read()[0]
    for (view, look), frame in zip(pictures, frames, strict=True):
        assert np.abs(draw(snapshot, view, look, rasterizer=PAINTER).rgb - frame).mean() < 8
    assert frames[0][..., 0].mean() > frames[0][..., 2].mean() and frames[4][..., 2].mean() > frames[4][..., 0].mean()


def test_a_film_that_is_stopped_leaves_nothing(tmp_path):
    def stop(count: int, secs: float) -> None:
        raise JobStopped

    pictures = shots(CameraPath((key_at(camera(), hold_secs=2.0),)), Look(), size=(48, 36))
    with pytest.raises(JobStopped):
        write_movie(tmp_path / "f.mp4", pictures, random_snapshot(5), PAINTER, fps=30.0, drew=stop)
    assert list(tmp_path.iterdir()) == []


class FakePage:
    is_closed = False

    def __init__(self) -> None:
        self.closers, self.errors = [], []

    def adopt(self, thread) -> None:
        pass

    def add_close(self, callback) -> None:
        self.closers.append(callback)

    def failed(self, error, doing="") -> None:
        self.errors.append((doing, str(error)))

    def guarded(self, function):
        return function


def run(jobs: Jobs, work) -> list:
    heard, ended = [], threading.Event()
    jobs.start("writing", work, lambda share, text: heard.append((share, text)), ended.set)
    assert ended.wait(serving.PATIENCE_SECS)
    return heard


def test_a_job_tells_how_far_it_is_and_one_runs_at_a_time():
    page = FakePage()
    jobs, go = Jobs(page), threading.Event()
    jobs.start("first", lambda job: go.wait(serving.PATIENCE_SECS), lambda share, text: None)
    with pytest.raises(UserError, match="second: wait until"):
        jobs.start("second", lambda job: None, lambda share, text: None)
    go.set()
    serving.wait_for(lambda: not jobs.is_running, why="the end of the first")
    assert run(jobs, lambda job: job.progress(0.5, "half")) == [(0.5, "half")] and page.errors == []


def test_a_job_that_fails_is_told_and_one_of_a_closed_page_ends():
    page = FakePage()
    jobs = Jobs(page)

    def fails(job) -> None:
        raise UserError("no space left")

    run(jobs, fails)
    assert page.errors == [("writing", "no space left")]

    def endless(job) -> None:
        page.closers[0]()
        while True:
            job.progress(0.1)

    run(jobs, endless)
    assert len(page.errors) == 1 and not jobs.is_running


def test_a_job_leaves_a_training_its_share():
    took = []
    share = SimpleNamespace(took=took.append, wait_secs=lambda idle: 0.0)
    desk = SimpleNamespace(is_training=True, share=share)
    run(Jobs(FakePage()), lambda job: job.leave_time(desk, 0.25))
    desk.is_training = False
    run(Jobs(FakePage()), lambda job: job.leave_time(desk, 9.0))
    assert took == [0.25]
