"""The nouns: states, failures, policies and definitions. Values only; nothing here does anything.

All times are integer milliseconds since the epoch by the database's clock, as `engine/clock.py`
tells it; all durations are integer milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import cached_property
from typing import Protocol

from msgspec import Struct, field


class Symbol(Enum):
    """A word with one member for each of its meanings, compared by identity."""

    __hash__ = object.__hash__  # in C; an Enum hashes its name, in Python


class SagaState(Symbol):
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

    @property
    def ended(self) -> bool:
        """Whether nothing happens to the saga any more by itself."""
        return self in _ENDED


_FINAL = frozenset({SagaState.COMPLETED, SagaState.COMPENSATED, SagaState.ABANDONED})
_ENDED = _FINAL | {SagaState.STUCK}


class StepState(Symbol):
    """Where one step of a saga is. DOING may have happened; REJECTED provably has not."""

    PENDING = "PENDING"
    DOING = "DOING"
    DONE = "DONE"
    REJECTED = "REJECTED"
    COMPENSATING = "COMPENSATING"
    COMPENSATED = "COMPENSATED"
    SKIPPED = "SKIPPED"


class Direction(Symbol):
    """The two directions of a step."""

    DO = "DO"
    COMPENSATE = "COMPENSATE"


class FailureKind(Symbol):
    """How sure an unsuccessful answer is. Only REJECTED proves that there is no effect."""

    REJECTED = "REJECTED"
    """The participant stored its refusal and proved it (`saga-outcome: rejected`)."""
    REFUSED = "REFUSED"
    """A final no without proof: an earlier attempt may have been applied."""
    UNKNOWN = "UNKNOWN"
    """It may or may not have happened: try again."""
    MISCONFIGURED = "MISCONFIGURED"
    """No try can succeed until somebody mends the deployment: try again, slowly."""


class Failure(Struct, frozen=True, kw_only=True, gc=False):
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


class RetryPolicy(Struct, frozen=True, kw_only=True, gc=False):
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


class Step(Struct, frozen=True, kw_only=True, gc=False):
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


class Definition(Struct, frozen=True, kw_only=True, dict=True):
    """A compiled definition: what a saga runs. Immutable and identified by its content hash."""

    name: str
    hash: str
    """Hex SHA-256 over its source and the descriptors it was checked against."""
    steps: tuple[Step, ...]
    """In the order they run; at least one."""
    deadline_ms: int | None = None
    """The saga aborts when it has not completed after this long; None for never."""

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Where in `steps` each step is, by its name."""
        return {step.name: place for place, step in enumerate(self.steps)}
