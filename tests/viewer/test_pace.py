"""What is due when, with a clock that the test turns."""

from __future__ import annotations

import pytest

from splat.viewer.serving.pace import (
    IDLE_SHARE,
    MOVING_SECS,
    QUALITY_MOVING,
    QUALITY_STILL,
    SCALES,
    STILL_AFTER_SECS,
    Pace,
    Share,
    Speed,
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, share: float = 0.5) -> tuple[Pace, Share]:
    common = Share(share, clock=clock)
    return Pace(common, clock=clock), common


def drawn(pace: Pace, clock: Clock, secs: float, *, training: bool = False):
    """The picture that is due, made in ``secs``."""
    plan, _ = pace.due(training=training)
    assert plan is not None
    pace.begin(plan)
    clock.now += secs
    pace.drew(plan, secs, training=training)
    return plan


def test_a_new_page_gets_a_picture_then_a_sharp_one_then_nothing(clock) -> None:
    pace, _ = make(clock)
    assert drawn(pace, clock, 0.001).why == "moving"
    plan, wait = pace.due(training=False)
    assert plan is None and wait == pytest.approx(STILL_AFTER_SECS - 0.001)
    clock.now += wait
    still = drawn(pace, clock, 0.001)
    assert (still.why, still.scale, still.quality) == ("still", 1.0, QUALITY_STILL)
    assert pace.due(training=False) == (None, None)


def test_events_while_a_picture_is_made_are_one_picture_afterwards(clock) -> None:
    pace, _ = make(clock)
    plan, _ = pace.due(training=False)
    pace.begin(plan)
    for _ in range(5):
        pace.event()
    pace.drew(plan, 0.01, training=False)
    again = drawn(pace, clock, 0.01)
    assert (again.why, again.quality) == ("moving", QUALITY_MOVING)
    assert pace.due(training=False)[0] is None


def test_the_sharp_picture_waits_until_nothing_moves(clock) -> None:
    pace, _ = make(clock)
    for _ in range(10):
        assert drawn(pace, clock, 0.02).why == "moving"
        clock.now += 0.05
        assert pace.due(training=False)[0] is None
        pace.event()
    drawn(pace, clock, 0.02)
    clock.now += STILL_AFTER_SECS
    assert drawn(pace, clock, 0.02).why == "still"


def test_moving_pictures_shrink_until_they_are_quick(clock) -> None:
    """A drawer that takes 0.2 s for a full picture, in proportion to the pixels."""
    pace, _ = make(clock)
    scales = []
    for _ in range(12):
        pace.event()
        plan, _ = pace.due(training=False)
        pace.begin(plan)
        pace.drew(plan, 0.2 * plan.scale**2, training=False)
        scales.append(plan.scale)
    assert scales[0] == 1.0 and 0.2 * scales[-1] ** 2 <= MOVING_SECS
    larger = SCALES[SCALES.index(scales[-1]) - 1]
    assert 0.2 * larger**2 > MOVING_SECS, "no smaller than need be"


def test_moving_pictures_grow_again_when_drawing_gets_quick(clock) -> None:
    pace, _ = make(clock)
    for cost, steps in ((1.0, 8), (0.01, 30)):
        for _ in range(steps):
            pace.event()
            plan, _ = pace.due(training=False)
            pace.begin(plan)
            pace.drew(plan, cost * plan.scale**2, training=False)
    assert plan.scale == 1.0


def test_a_cost_that_does_not_shrink_with_the_picture_ends_at_the_smallest() -> None:
    speed = Speed()
    for _ in range(10):
        speed.note(speed.best(MOVING_SECS), 0.5)
    assert speed.best(MOVING_SECS) == SCALES[-1]


def test_unknown_speed_begins_with_the_full_picture() -> None:
    assert Speed().predicted(1.0) == 0 and Speed().best(MOVING_SECS) == 1.0


def test_a_newer_model_is_drawn_once_and_sharp(clock) -> None:
    pace, _ = make(clock)
    drawn(pace, clock, 0.01)
    clock.now += 1
    drawn(pace, clock, 0.01)
    pace.arrived()
    pace.arrived()
    refresh = drawn(pace, clock, 0.01)
    assert (refresh.why, refresh.scale, refresh.quality) == ("refresh", 1.0, QUALITY_STILL)
    assert pace.due(training=False) == (None, None)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_page_in_motion_leaves_training_its_share(clock, share: float) -> None:
    pace, _ = make(clock, share)
    start, busy = clock.now, 0.0
    while clock.now < start + 60:
        pace.event()
        plan, wait = pace.due(training=True)
        if plan is None:
            clock.now += wait
            continue
        drawn(pace, clock, 0.03, training=True)
        busy += 0.03
    assert busy / (clock.now - start) == pytest.approx(1 - share, abs=0.01)


def test_progress_alone_takes_little_whatever_the_share(clock) -> None:
    pace, _ = make(clock, 0.2)
    drawn(pace, clock, 0.01, training=True)
    clock.now += 1
    drawn(pace, clock, 0.01, training=True)
    start, busy = clock.now, 0.0
    while clock.now < start + 100:
        pace.arrived()
        plan, wait = pace.due(training=True)
        if plan is None:
            clock.now += wait
            continue
        assert drawn(pace, clock, 0.05, training=True).why == "refresh"
        busy += 0.05
    assert busy / (clock.now - start) == pytest.approx(IDLE_SHARE, abs=0.003)


def test_the_copy_of_the_model_counts_as_well(clock) -> None:
    pace, share = make(clock, 0.5)
    plan = drawn(pace, clock, 0.1)
    pace.drew(plan, 0.1, training=True, copied_secs=0.3)
    assert share.wait_secs(idle=False) == pytest.approx(0.4)
    assert pace.speed.predicted(plan.scale) == pytest.approx(0.1)


def test_pages_of_one_training_share_what_is_left(clock) -> None:
    first, share = make(clock, 0.5)
    second = Pace(share, clock=clock)
    drawn(first, clock, 0.1, training=True)
    plan, wait = second.due(training=True)
    assert plan is None and wait == pytest.approx(0.1)


def test_moving_about_does_not_hold_up_progress_for_long(clock) -> None:
    """The debt of quick pictures is that of the share, not that of idle pages."""
    pace, share = make(clock, 0.5)
    for _ in range(50):
        pace.event()
        clock.now += pace.due(training=True)[1] or 0.0
        drawn(pace, clock, 0.02, training=True)
    assert share.wait_secs(idle=True) == pytest.approx(0.02)


def test_a_training_at_rest_asks_for_no_share(clock) -> None:
    pace, share = make(clock, 0.99)
    drawn(pace, clock, 1.0, training=True)
    pace.event()
    assert share.wait_secs(idle=False) > 50
    assert pace.due(training=False)[0] is not None


def test_the_share_has_bounds() -> None:
    assert Share(1.0).training < 1
    with pytest.raises(ValueError, match="does not fit"):
        Share(1.2)
