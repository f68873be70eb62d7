"""What an answer means: one table, and what goes before it.

Forward, an answer is a rejection only when its participant proves that it has stored its refusal
(trailing `saga-outcome: rejected`). The same code without that proof is a refusal: it may come from
a proxy, or from a participant without our barrier where an earlier attempt was applied. Hence
safety never hangs on a code: a refusal aborts the saga like a rejection does, but its step is
compensated too. Everything that says nothing about the effect is UNKNOWN and tried again.

Backward there is no rejection. REFUSED says that trying again is unlikely to help, MISCONFIGURED
that it will not help before somebody mends the deployment; either makes the saga STUCK soon.
"""

from __future__ import annotations

from collections.abc import Mapping

from grpc import StatusCode

from coordinator.core.model import Direction, Failure, FailureKind
from mesh.errors import Refusal

_REFUSED = FailureKind.REFUSED
_UNKNOWN = FailureKind.UNKNOWN
_BROKEN = FailureKind.MISCONFIGURED

KINDS: Mapping[StatusCode, tuple[FailureKind, FailureKind]] = {
    # an unproven answer on:           Do        Compensate
    StatusCode.FAILED_PRECONDITION: (_REFUSED, _REFUSED),
    StatusCode.INVALID_ARGUMENT: (_REFUSED, _REFUSED),
    StatusCode.NOT_FOUND: (_REFUSED, _UNKNOWN),
    StatusCode.ALREADY_EXISTS: (_REFUSED, _UNKNOWN),
    StatusCode.OUT_OF_RANGE: (_REFUSED, _UNKNOWN),
    StatusCode.UNAVAILABLE: (_UNKNOWN, _UNKNOWN),
    StatusCode.DEADLINE_EXCEEDED: (_UNKNOWN, _UNKNOWN),
    StatusCode.ABORTED: (_UNKNOWN, _UNKNOWN),
    StatusCode.RESOURCE_EXHAUSTED: (_UNKNOWN, _UNKNOWN),
    StatusCode.INTERNAL: (_UNKNOWN, _UNKNOWN),
    StatusCode.UNKNOWN: (_UNKNOWN, _UNKNOWN),
    StatusCode.CANCELLED: (_UNKNOWN, _UNKNOWN),
    StatusCode.DATA_LOSS: (_UNKNOWN, _UNKNOWN),
    StatusCode.UNIMPLEMENTED: (_BROKEN, _BROKEN),
    StatusCode.UNAUTHENTICATED: (_BROKEN, _BROKEN),
    StatusCode.PERMISSION_DENIED: (_BROKEN, _BROKEN),
}
"""How sure each code is in each direction. OK is no failure and not in here."""

FINAL_REASONS = frozenset(
    {
        "STEP_REQUEST_CHANGED",  # a bug or a foreign caller: the same answer whenever it is asked
        "STEP_RECORD_MISSING",  # the participant lost what it must undo: somebody has to look
    }
)
"""Reasons that no further try can change, whatever their code says."""

_MAX_REASON = 128
_MAX_MESSAGE = 1024


def failure_of(
    refusal: Refusal,
    direction: Direction,
    *,
    proven: bool,
    non_retryable_reasons: frozenset[str] = frozenset(),
) -> Failure:
    """Say what an answer that is not OK means for the saga.

    `proven` tells whether it carries `saga-outcome: rejected`.
    """
    return Failure(
        kind=_kind(refusal, direction, proven=proven, non_retryable_reasons=non_retryable_reasons),
        code=refusal.code.name,
        reason=refusal.reason[:_MAX_REASON] or refusal.code.name,
        message=refusal.message[:_MAX_MESSAGE],
    )


def _kind(
    refusal: Refusal, direction: Direction, *, proven: bool, non_retryable_reasons: frozenset[str]
) -> FailureKind:
    if proven and direction is Direction.DO:
        return FailureKind.REJECTED
    if refusal.reason in FINAL_REASONS or refusal.reason in non_retryable_reasons:
        return FailureKind.REFUSED
    forward, backward = KINDS[refusal.code]
    return forward if direction is Direction.DO else backward
