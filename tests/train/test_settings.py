import pytest

from splat.train.settings import LoopSettings, ResolutionSchedule


def test_resolution_starts_coarse_halves_at_equal_intervals_and_ends_full():
    schedule = ResolutionSchedule(factor=4, until=101)
    factors = [schedule.factor_at(step) for step in range(1, 121)]
    assert factors == [4] * 50 + [2] * 50 + [1] * 20


@pytest.mark.parametrize("schedule", [ResolutionSchedule(), ResolutionSchedule(1, 50), ResolutionSchedule(8, 0)])
def test_resolution_without_factor_or_length_is_full_from_the_first_step(schedule):
    assert [schedule.factor_at(step) for step in (1, 2, 49, 50)] == [1, 1, 1, 1]


@pytest.mark.parametrize("until", range(1, 12))
def test_resolution_never_gets_coarser_and_is_full_at_until(until):
    schedule = ResolutionSchedule(factor=8, until=until)
    factors = [schedule.factor_at(step) for step in range(1, 20)]
    assert factors == sorted(factors, reverse=True)
    assert factors[until - 1] == 1


def test_sh_bands_come_one_by_one():
    settings = LoopSettings(steps=10_000, sh_degree=3, sh_every=1000)
    assert [settings.sh_degree_at(step) for step in (1, 999, 1000, 1999, 2000, 3000, 9000)] == [0, 0, 1, 1, 2, 3, 3]
    assert LoopSettings(steps=1, sh_every=0).sh_degree_at(1) == 3
