from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.model import FailureKind, RetryPolicy
from coordinator.core.retry import is_spent, longest_wait_ms, next_attempt_at

POLICY = RetryPolicy(initial_interval_ms=1_000, max_interval_ms=30_000, backoff_coefficient=2.0)
UNKNOWN = FailureKind.UNKNOWN


def wait(failed: int, chance: float, **more: int | None) -> int:
    at = next_attempt_at(
        POLICY, now_ms=1_000_000, failed=failed, kind=UNKNOWN, chance=chance, **more
    )
    return at - 1_000_000


def test_waits_double_up_to_the_cap() -> None:
    longest = [wait(failed, 0.999999) for failed in range(1, 8)]
    assert longest == [999, 1_999, 3_999, 7_999, 15_999, 29_999, 29_999]


def test_a_wait_is_never_shorter_than_half_of_its_interval() -> None:
    assert [wait(failed, 0.0) for failed in (1, 2, 3, 9)] == [500, 1_000, 2_000, 15_000]


def test_a_participant_that_says_when_is_obeyed_up_to_the_cap() -> None:
    assert wait(1, 0.0, retry_after_ms=10_000) == 10_000
    assert wait(1, 0.0, retry_after_ms=3_600_000) == 30_000


def test_those_who_were_told_the_same_time_do_not_come_together() -> None:
    assert wait(1, 0.9, retry_after_ms=10_000) > wait(1, 0.1, retry_after_ms=10_000)


def test_a_misconfigured_participant_is_asked_slowly() -> None:
    at = next_attempt_at(POLICY, now_ms=0, failed=1, kind=FailureKind.MISCONFIGURED, chance=0.0)
    assert at == 15_000


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.integers(0, 10**9))
def test_no_wait_exceeds_the_cap_and_a_half(failed: int, chance: float, asked: int) -> None:
    assert 0 < wait(failed, chance, retry_after_ms=asked) <= longest_wait_ms(POLICY)


def test_the_budget_is_attempts_and_elapsed_time() -> None:
    both = RetryPolicy(max_attempts=3, max_elapsed_ms=60_000)
    assert not is_spent(both, failed=2, since_ms=0, retry_at_ms=60_000)
    assert is_spent(both, failed=3, since_ms=0, retry_at_ms=1)
    assert is_spent(both, failed=1, since_ms=0, retry_at_ms=60_001)


def test_no_limit_is_never_reached() -> None:
    endless = RetryPolicy(max_attempts=None, max_elapsed_ms=None)
    assert not is_spent(endless, failed=10**6, since_ms=0, retry_at_ms=10**15)
