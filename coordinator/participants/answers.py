"""The answer to an attempt, made of what came back by whatever way; each ends its span."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from grpc import StatusCode
from opentelemetry.trace import INVALID_SPAN, Span

from coordinator.core.model import Failure, FailureKind
from coordinator.participants.base import Answer, Attempt, Done, Failed
from coordinator.participants.outcome import failure_of
from coordinator.participants.spans import end_span, span_id_of
from mesh.errors import Refusal


def done(response: bytes, span: Span) -> Answer:
    """OK with these bytes.

    What is no message would spoil the requests made of it, above all the Compensate that carries
    it. As an unknown answer it is asked for again, and the participant's barrier answers as before.
    """
    if response and not _is_message(response):
        words = "the answer is no message"
        return unknown(StatusCode.INTERNAL, "RESPONSE_NOT_READABLE", words, span)
    if span is INVALID_SPAN:
        return Done(response)
    answer = Done(response, span_id_of(span))
    end_span(span, StatusCode.OK)
    return answer


def refused(attempt: Attempt, refusal: Refusal, span: Span, *, proven: bool) -> Failed:
    """Any other code; `proven` tells whether it carries `saga-outcome: rejected`."""
    failure = failure_of(
        refusal,
        attempt.direction,
        proven=proven,
        non_retryable_reasons=attempt.non_retryable_reasons,
    )
    answer = Failed(failure, refusal.retry_after_ms, span_id_of(span))
    end_span(span, refusal.code, failure.reason)
    return answer


def unknown(code: StatusCode, reason: str, message: str, span: Span = INVALID_SPAN) -> Failed:
    """Nothing that tells what has happened."""
    failure = Failure(kind=FailureKind.UNKNOWN, code=code.name, reason=reason, message=message)
    answer = Failed(failure, span_id=span_id_of(span))
    end_span(span, code, reason)
    return answer


def broken(span: Span = INVALID_SPAN) -> Failed:
    """Something went wrong on this side."""
    words = "a bug in reading the answer; the log says more"
    return unknown(StatusCode.INTERNAL, "CALL_BROKEN", words, span)


def stopping(span: Span = INVALID_SPAN) -> Failed:
    """This coordinator does not wait for it any more."""
    words = "the coordinator is stopping"
    return unknown(StatusCode.CANCELLED, "COORDINATOR_STOPPING", words, span)


def _is_message(response: bytes) -> bool:
    """Whether these bytes are a message of any type."""
    try:
        Empty.FromString(response)
    except DecodeError:
        return False
    return True
