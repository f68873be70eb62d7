"""The nouns: what a saga, a definition and a step are. Values only; nothing here does anything.

All times are integer milliseconds since the epoch by the database's clock, as `engine/clock.py`
tells it; all durations are integer milliseconds. A saga is replaced, never changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from coordinator.core.commands import Call


class SagaState(Enum):
    """Where a saga is. STUCK can go on in the direction it was going; the last three are final."""

    RUNNING = "RUNNING"
    COMPENSATING = "COMPENSATING"
    STUCK = "STUCK"
    COMPLETED = "COMPLETED"
    COMPENSATED = "COMPENSATED"
    ABANDONED = "ABANDONED"

    @property
    def final(self) -> bool:
        """Whether nothing can happen to the saga any more."""
        return self in _FINAL


_FINAL = frozenset({SagaState.COMPLETED, SagaState.COMPENSATED, SagaState.ABANDONED})


class StepState(Enum):
    """Where one step of a saga is. DOING may have happened; REJECTED provably has not."""

    PENDING = "PENDING"
    DOING = "DOING"
    DONE = "DONE"
    REJECTED = "REJECTED"
    COMPENSATING = "COMPENSATING"
    COMPENSATED = "COMPENSATED"
    SKIPPED = "SKIPPED"


class Direction(Enum):
    """The two directions of a step."""

    DO = "DO"
    COMPENSATE = "COMPENSATE"


class FailureKind(Enum):
    """How sure an unsuccessful answer is. Only REJECTED proves that there is no effect."""

    REJECTED = "REJECTED"
    """The participant stored its refusal and proved it (`saga-outcome: rejected`)."""
    REFUSED = "REFUSED"
    """A final no without proof: an earlier attempt may have been applied."""
    UNKNOWN = "UNKNOWN"
    """It may or may not have happened: try again."""
    MISCONFIGURED = "MISCONFIGURED"
    """No try can succeed until somebody mends the deployment: try again, slowly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt did not succeed, or why a saga left its path."""

    kind: FailureKind
    code: str
    """Name of the gRPC status code."""
    reason: str
    """Machine-readable reason in UPPER_SNAKE_CASE."""
    message: str = ""
    """Words for a human; never a payload."""
    step: str = ""
    """Name of the step it happened in; empty when it belongs to the saga as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When an attempt without a clear answer is tried again. `retry.py` applies it."""

    max_attempts: int | None = 5
    """At most this many attempts; None for no limit."""
    initial_interval_ms: int = 1_000
    """Wait before the second attempt."""
    max_interval_ms: int = 30_000
    """Longest wait between two attempts."""
    backoff_coefficient: float = 2.0
    """Each wait is this many times the last."""
    max_elapsed_ms: int | None = None
    """No attempt begins this long after the first; None for no limit."""
    non_retryable_reasons: frozenset[str] = frozenset()
    """Reasons that mean no for good even when their code would be tried again."""


COMPENSATION_RETRY = RetryPolicy(max_attempts=None, max_elapsed_ms=24 * 3_600_000)
"""Compensation is tried for a day, at most 30 s apart, before the saga is STUCK."""


class RequestNotBuildable(Exception):
    """The expression that builds a request failed on this saga's data."""


class RequestBuilder(Protocol):
    """Builds the bytes of a Do request: pure, the same bytes for the same arguments."""

    def __call__(self, input_bytes: bytes, responses: Mapping[str, bytes], /) -> bytes:
        """Return the request from the saga's input and the responses of its earlier steps.

        Raises:
            RequestNotBuildable: the expression failed on this data.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a compiled definition."""

    name: str
    """Unique in the definition; `[a-z][a-z0-9_]{0,47}`."""
    service: str
    """Full name of its step service, such as inventory.v1.ReserveStock."""
    build: RequestBuilder
    """Builds its Do request."""
    timeout_ms: int = 30_000
    """Limit of one attempt."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """When Do is tried again."""
    compensation_retry: RetryPolicy = COMPENSATION_RETRY
    """When Compensate is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A compiled definition: what a saga runs. Immutable and identified by its content hash."""

    name: str
    hash: str
    """Hex SHA-256 over its source and the descriptors it was checked against."""
    steps: tuple[Step, ...]
    """In the order they run; at least one."""
    deadline_ms: int | None = None
    """The saga aborts when it has not completed after this long; None for never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProgress:
    """Progress of one step of one saga."""

    state: StepState = StepState.PENDING
    attempt: int = 0
    """Number of the newest attempt in the present direction, from 1; 0 when PENDING."""
    since_ms: int = 0
    """When the budget of the present direction began: its first command, or the last RetrySaga."""
    spent: int = 0
    """Attempts of the present direction that failed since `since_ms`."""
    hopeless: int = 0
    """Of those, failures that no retry can cure (Compensate only; STUCK at three)."""
    call: Call | None = None
    """The newest attempt's command while it has no answer; None when nothing is outstanding."""
    request: bytes = b""
    """The exact bytes of its Do request; empty when PENDING."""
    response: bytes | None = None
    """What Do answered; None until it is DONE."""
    failure: Failure | None = None
    """Why the newest answered attempt failed; None once it succeeded."""
    span_id: str = ""
    """Span of the newest answered Do, for the link from its compensation; empty when unsampled."""

    @property
    def due_ms(self) -> int:
        """When the outstanding attempt is due; 0 for at once, or when there is none."""
        return self.call.due_ms if self.call else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Saga:
    """One run of a definition: the fold of its events. Built by `evolve.py` alone."""

    saga_id: str
    definition: Definition
    input_bytes: bytes
    state: SagaState
    revision: int
    """How many events it has."""
    steps: tuple[StepProgress, ...]
    """Parallel to `definition.steps`."""
    failure: Failure | None = None
    """Why it was aborted; None on the way forward."""
    stuck: Failure | None = None
    """Why it is STUCK; None otherwise."""
    created_ms: int = 0
    updated_ms: int = 0
    """When its newest event happened."""
    deadline_ms: int = 0
    """When it aborts by itself; 0 for never."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Searchable values taken from the input."""
    traceparent: str = ""
    """W3C trace context that every span of the saga belongs to; empty when it is not traced."""
