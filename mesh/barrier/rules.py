"""What every barrier decides alike, whatever it stores its rows in.

arrives      stored                     answer
Do           nothing                    run it; store the response with the effect
Do           DONE / REJECTED            the stored response / the stored rejection
Do           DOING                      one effect: wait, help, or ABORTED
Do           COMPENSATING, COMPENSATED  STEP_ALREADY_COMPENSATED
Do           another request            STEP_REQUEST_CHANGED
Do           past saga-not-after        STEP_EXPIRED
Compensate   DONE                       undo from the stored record
Compensate   nothing, no response       store COMPENSATED: a late Do is refused from now on
Compensate   nothing, but a response    STEP_RECORD_MISSING: never pretend
Compensate   REJECTED, COMPENSATED      OK, no effect
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

from google.protobuf.message import Message
from google.rpc import status_pb2

from mesh.errors import (
    Conflict,
    FieldViolation,
    InvalidRequest,
    MeshError,
    NotNow,
    RecordMissing,
    Rejected,
    to_status,
)
from mesh.step import MAX_MESSAGE_BYTES, StepCall, StepTypes


class BarrierState(StrEnum):
    """Where one step of one saga is, seen from its participant."""

    DOING = "DOING"
    """The effect may have begun; only barriers with several writes ever show it."""
    DONE = "DONE"
    REJECTED = "REJECTED"
    COMPENSATING = "COMPENSATING"
    COMPENSATED = "COMPENSATED"
    """Undone, or refused in advance: a Do that comes now is too late."""


def canonical(message: Message) -> bytes:
    """The same bytes for the same message, in every process."""
    return message.SerializeToString(deterministic=True)


def fingerprint(message: Message) -> bytes:
    """SHA-256 of the request, 32 bytes: what tells a repetition from another request."""
    return hashlib.sha256(canonical(message)).digest()


def refuse_expired(call: StepCall, now_ms: int) -> None:
    """Raises NotNow `STEP_EXPIRED` when the call came after its `saga-not-after`."""
    if call.not_after_ms is not None and now_ms > call.not_after_ms:
        raise NotNow(
            "STEP_EXPIRED",
            f"step {call.key} expired at {call.not_after_ms} ms, it is {now_ms} ms now",
            state="EXPIRED",
            allowed=[f"before {call.not_after_ms} ms"],
        )


def refuse_large_request(request: Message) -> None:
    """Raises InvalidRequest `REQUEST_TOO_LARGE` over 1 MiB."""
    size = request.ByteSize()
    if size > MAX_MESSAGE_BYTES:
        violation = FieldViolation("request", f"is {size} bytes, at most {MAX_MESSAGE_BYTES}")
        raise InvalidRequest([violation], reason="REQUEST_TOO_LARGE")


def refuse_changed_request(call: StepCall, *, stored: bytes | None, arrived: bytes) -> None:
    """Raises Conflict `STEP_REQUEST_CHANGED` when two fingerprints differ.

    `stored` is None where a Compensate came first and no request is known.
    """
    if stored is not None and stored != arrived:
        raise request_changed(call)


def check_response(types: StepTypes, response: Message) -> Message:
    """The response of a step's `do`, before it is stored.

    Raises:
        TypeError: it is not the step's response message.
        MeshError: `RESPONSE_TOO_LARGE`, over 1 MiB.
    """
    if not isinstance(response, types.response):
        raise TypeError(f"{types.service.full_name}: do() must return {types.response.__name__}")
    size = response.ByteSize()
    if size > MAX_MESSAGE_BYTES:
        raise MeshError(
            "RESPONSE_TOO_LARGE",
            f"the response is {size} bytes, at most {MAX_MESSAGE_BYTES}; the effect is undone",
            metadata={"size": str(size), "limit": str(MAX_MESSAGE_BYTES)},
        )
    return response


def request_changed(call: StepCall) -> Conflict:
    """The refusal of a key that was used for something else."""
    return Conflict(
        "STEP_REQUEST_CHANGED",
        f"step {call.key} was asked before with another request",
        metadata={"saga_id": call.saga_id, "step": call.step},
    )


class Superseded(NotNow):
    """A Compensate came first: this Do is too late, and has to clean up what it began."""


def already_compensated(call: StepCall) -> Superseded:
    """The refusal of a Do that comes after its Compensate."""
    return Superseded(
        "STEP_ALREADY_COMPENSATED",
        f"step {call.key} was compensated; its Do is refused for good",
        state=BarrierState.COMPENSATED,
        allowed=["no state"],
    )


def record_missing(call: StepCall) -> RecordMissing:
    """The refusal to undo what was answered but left no record."""
    return RecordMissing(
        "STEP_RECORD_MISSING",
        f"step {call.key} has answered its Do, but there is no record of it to undo",
        metadata={"saga_id": call.saga_id, "step": call.step},
    )


def busy(call: StepCall) -> Conflict:
    """Another attempt of the same step is at work, or was until a moment ago."""
    return Conflict(
        "STEP_BUSY",
        f"another attempt of step {call.key} is at work; ask again",
        metadata={"saga_id": call.saga_id, "step": call.step},
    )


def freeze(rejection: Rejected, types: StepTypes) -> bytes:
    """The rejection as a serialised `google.rpc.Status`, the form in which it is stored."""
    return canonical(to_status(rejection, domain=types.service.file.package))


def thaw(stored: bytes) -> Rejected:
    """The stored rejection: answered, it gives the same bytes again."""
    return Rejected.from_status(status_pb2.Status.FromString(stored))


def answer(outcome: Message | Rejected) -> Message:
    """The response itself; raises the rejection."""
    if isinstance(outcome, Rejected):
        raise outcome
    return outcome
