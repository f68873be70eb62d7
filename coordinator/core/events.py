"""What can happen to a saga. Each event is durable before anything is done about it.

Every event carries its own time, so that `decide` needs no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coordinator.core.model import Direction, Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """StartSaga was accepted."""

    time_ms: int
    input_bytes: bytes
    deadline_ms: int = 0
    """When the saga aborts by itself; 0 for never."""
    keys: Mapping[str, str] = field(default_factory=dict)
    traceparent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """A Do succeeded."""

    time_ms: int
    step: str
    attempt: int
    response: bytes
    span_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRejected:
    """A Do was refused for good: with proof (REJECTED) or without (REFUSED)."""

    time_ms: int
    step: str
    attempt: int
    failure: Failure
    span_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed:
    """An attempt got no clear answer, or a Compensate failed in whatever way."""

    time_ms: int
    step: str
    direction: Direction
    attempt: int
    failure: Failure
    retry_at_ms: int
    """When the next attempt is due, if the budget allows one."""
    span_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aborted:
    """A client cancelled the saga, or its deadline passed."""

    time_ms: int
    failure: Failure
    awaited: frozenset[str] = frozenset()
    """Steps whose Do is in flight: their Compensate waits for the answer."""
    actor: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCompensated:
    """A Compensate succeeded."""

    time_ms: int
    step: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """The coordinator cannot go on by itself, for a reason outside the steps."""

    time_ms: int
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """An operator lets a STUCK saga go on in its direction, with fresh budgets."""

    time_ms: int
    actor: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSkipped:
    """An operator undid a step of a STUCK saga by hand."""

    time_ms: int
    step: str
    actor: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandoned:
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
