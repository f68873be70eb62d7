"""What can happen to a saga. Each event is durable before anything is done about it.

Every event carries its own time, so that `decide` needs no clock.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from coordinator.core.model import Direction, Failure


class Started(Struct, frozen=True, kw_only=True, gc=False):
    """StartSaga was accepted."""

    time_ms: int
    input_bytes: bytes
    deadline_ms: int = 0
    """When the saga aborts by itself; 0 for never."""
    keys: Mapping[str, str] = field(default_factory=dict)
    traceparent: str = ""


class StepDone(Struct, frozen=True, kw_only=True, gc=False):
    """A Do succeeded."""

    time_ms: int
    step: str
    attempt: int
    response: bytes
    span_id: str = ""


class StepRejected(Struct, frozen=True, kw_only=True, gc=False):
    """A Do was refused for good: with proof (REJECTED) or without (REFUSED)."""

    time_ms: int
    step: str
    attempt: int
    failure: Failure
    span_id: str = ""


class AttemptFailed(Struct, frozen=True, kw_only=True, gc=False):
    """An attempt got no clear answer, or a Compensate failed in whatever way."""

    time_ms: int
    step: str
    direction: Direction
    attempt: int
    failure: Failure
    retry_at_ms: int
    """When the next attempt is due, if the budget allows one."""
    span_id: str = ""


class Aborted(Struct, frozen=True, kw_only=True, gc=False):
    """A client cancelled the saga, or its deadline passed."""

    time_ms: int
    failure: Failure
    awaited: frozenset[str] = frozenset()
    """Steps whose Do is in flight: their Compensate waits for the answer."""
    actor: str = ""
    note: str = ""


class StepCompensated(Struct, frozen=True, kw_only=True, gc=False):
    """A Compensate succeeded."""

    time_ms: int
    step: str
    attempt: int


class Stuck(Struct, frozen=True, kw_only=True, gc=False):
    """The coordinator cannot go on by itself, for a reason outside the steps."""

    time_ms: int
    failure: Failure


class Retried(Struct, frozen=True, kw_only=True, gc=False):
    """An operator lets a STUCK saga go on in its direction, with fresh budgets."""

    time_ms: int
    actor: str
    note: str


class StepSkipped(Struct, frozen=True, kw_only=True, gc=False):
    """An operator undid a step of a STUCK saga by hand."""

    time_ms: int
    step: str
    actor: str
    note: str


class Abandoned(Struct, frozen=True, kw_only=True, gc=False):
    """An operator ends a STUCK saga with effects left open."""

    time_ms: int
    actor: str
    note: str


Event = (
    Started
    | StepDone
    | StepRejected
    | AttemptFailed
    | Aborted
    | StepCompensated
    | Stuck
    | Retried
    | StepSkipped
    | Abandoned
)
