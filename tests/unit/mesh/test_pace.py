from __future__ import annotations

from mesh.pace import Pace

LONGEST = 0.001


def after(pace: Pace, *, groups: int, appends: int, every: float) -> float:
    """How long the next group waits after a while of such groups."""
    for number in range(1, groups + 1):
        pace.sent(appends, number * every)
    return pace.wait(1)


def test_the_first_append_waits_for_nothing() -> None:
    assert Pace(0.0, longest=LONGEST).wait(1) == 0.0


def test_single_appends_never_wait() -> None:
    assert after(Pace(0.0, longest=LONGEST), groups=1_000, appends=1, every=0.0005) == 0.0


def test_groups_wait_when_appends_come_thick() -> None:
    assert after(Pace(0.0, longest=LONGEST), groups=50, appends=10, every=0.0005) == LONGEST


def test_a_group_that_is_large_already_goes_at_once() -> None:
    pace = Pace(0.0, longest=LONGEST)
    assert after(pace, groups=50, appends=100, every=0.0005) == LONGEST
    assert pace.wait(100) == 0.0


def test_they_wait_no_more_once_the_load_is_gone() -> None:
    pace = Pace(0.0, longest=LONGEST)
    after(pace, groups=50, appends=10, every=0.0005)
    for number in range(20):
        pace.sent(1, 1.0 + number)
    assert pace.wait(1) == 0.0


def test_no_group_waits_when_no_wait_is_allowed() -> None:
    assert after(Pace(0.0, longest=0.0), groups=50, appends=1_000, every=0.0005) == 0.0


def test_two_groups_at_the_same_instant_are_no_infinite_rate() -> None:
    pace = Pace(1.0, longest=LONGEST)
    pace.sent(1, 1.0)
    pace.sent(1, 2.0)
    assert after(pace, groups=30, appends=1, every=1.0) == 0.0
