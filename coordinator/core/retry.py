"""When to try again, and when to stop.

Capped exponential backoff with equal jitter: a wait is drawn between half of the interval and all
of it, so that sagas that failed together do not come back together and none comes back at once
(M. Brooker, "Exponential Backoff And Jitter", 2015). Chance is an argument.
"""

from __future__ import annotations

from coordinator.core.model import FailureKind, RetryPolicy

HOPELESS_LIMIT = 3
"""A step that fails this often for a reason that no retry cures makes the saga STUCK, forward when
its participant is misconfigured, backward also when it refuses to undo."""

_LARGEST_EXPONENT = 64


def next_attempt_at(
    policy: RetryPolicy,
    *,
    now_ms: int,
    failed: int,
    kind: FailureKind,
    chance: float,
    retry_after_ms: int | None = None,
) -> int:
    """Say when the next attempt is due, in milliseconds since the epoch.

    `failed` counts the attempts that failed so far, from 1; `chance` lies in [0, 1). A participant
    that says when to come back (`retry_after_ms`) is obeyed up to the policy's longest interval,
    plus a share of the jitter, so that all who were told the same time do not come at that time.
    """
    interval = _interval_ms(policy, failed, kind)
    drawn = interval / 2 + chance * interval / 2
    asked = min(retry_after_ms or 0, policy.max_interval_ms)
    return now_ms + int(max(drawn, asked + chance * interval / 2 if asked else 0))


def longest_wait_ms(policy: RetryPolicy) -> int:
    """No attempt is due later than this after the one before it failed."""
    return policy.max_interval_ms * 3 // 2


def _interval_ms(policy: RetryPolicy, failed: int, kind: FailureKind) -> float:
    if kind is FailureKind.MISCONFIGURED:
        return policy.max_interval_ms
    growth = policy.backoff_coefficient ** min(failed - 1, _LARGEST_EXPONENT)
    return min(policy.initial_interval_ms * growth, policy.max_interval_ms)


def is_spent(policy: RetryPolicy, *, failed: int, since_ms: int, retry_at_ms: int) -> bool:
    """Whether no attempt is left at `retry_at_ms`, after `failed` ones since `since_ms`."""
    if policy.max_attempts is not None and failed >= policy.max_attempts:
        return True
    return policy.max_elapsed_ms is not None and retry_at_ms - since_ms > policy.max_elapsed_ms
