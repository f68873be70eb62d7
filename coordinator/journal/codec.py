"""Between events and what a store keeps of them: plain columns and two protobuf messages.

The same append always gives the same bytes, so that "is it the same event?" is a comparison of
rows. Text written by others (failure messages, notes, keys) is cleaned of what PostgreSQL cannot
hold; text that identifies something (saga and step names) is refused instead of changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import assert_never

from google.protobuf.message import DecodeError
from msgspec import Struct
from msgspec.structs import replace

from coordinator.core.commands import Call
from coordinator.core.events import (
    Abandoned,
    Aborted,
    AttemptFailed,
    Event,
    Retried,
    Started,
    StepCompensated,
    StepDone,
    StepRejected,
    StepSkipped,
    Stuck,
)
from coordinator.core.framing import framed
from coordinator.core.model import Direction, Failure, FailureKind
from coordinator.journal.base import Append, Entry, UnreadableHistory, Unwritable
from coordinator.journal.limits import check_texts, storable_text, storable_time
from coordinator.journal.verbs import Verb
from protos.journal.v1 import journal_pb2 as pb

KINDS: Mapping[type[Event], str] = {
    Started: "STARTED",
    StepDone: "STEP_DONE",
    StepRejected: "STEP_REJECTED",
    AttemptFailed: "ATTEMPT_FAILED",
    Aborted: "ABORTED",
    StepCompensated: "STEP_COMPENSATED",
    Stuck: "STUCK",
    Retried: "RETRIED",
    StepSkipped: "STEP_SKIPPED",
    Abandoned: "ABANDONED",
}

_DIRECTIONS = {Direction.DO: 1, Direction.COMPENSATE: 2}
_FAILURE_KINDS = {
    FailureKind.REJECTED: 1,
    FailureKind.REFUSED: 2,
    FailureKind.UNKNOWN: 3,
    FailureKind.MISCONFIGURED: 4,
}
_DIRECTION_OF = {number: direction for direction, number in _DIRECTIONS.items()}
_FAILURE_KIND_OF = {number: kind for kind, number in _FAILURE_KINDS.items()}

# Tags of what is framed by hand, as it is in almost every row: a third of what protobuf takes.
_RESPONSE, _SPAN_ID = b"\x0a", b"\x2a"  # of an Event
_CALL = b"\x0a"  # of Commands
_REQUEST = b"\x2a"  # of a Call


class Row(Struct, frozen=True, gc=False):
    """What a store keeps of one event."""

    saga_id: str
    revision: int
    time_ms: int
    kind: str
    step: str
    """Empty for events of the saga as a whole."""
    attempt: int
    """0 for events that are no answer to an attempt."""
    payload: bytes
    """A `journal.v1.Event`."""
    commands: bytes
    """A `journal.v1.Commands`."""


def encode(append: Append) -> Row:
    """Turn an append into its row.

    Raises:
        Unwritable: no store can hold it.
    """
    event, saga = append.event, append.saga
    step, attempt = _attempt_of(event)
    if not (storable_text(saga.saga_id, step) and storable_time(event.time_ms)):
        raise Unwritable(f"event {saga.revision} has a name or a time that cannot be stored")
    try:
        payload = _payload(event)
        commands = _commands(append.commands)
    except (ValueError, TypeError) as error:
        raise Unwritable(f"event {saga.revision} cannot be encoded") from error
    kind = KINDS[type(event)]
    return Row(saga.saga_id, saga.revision, event.time_ms, kind, step, attempt, payload, commands)


def decode(row: Row) -> Entry:
    """Turn a row into the entry that it was made from.

    Raises:
        UnreadableHistory: this version does not understand it.
    """
    try:
        event = _event(row, pb.Event.FromString(row.payload))
        calls = pb.Commands.FromString(row.commands).calls
        return Entry(
            revision=row.revision, event=event, commands=tuple(_call_of(call) for call in calls)
        )
    except (DecodeError, ValueError, KeyError) as error:
        raise UnreadableHistory(
            f"event {row.revision} of saga {row.saga_id} is not readable"
        ) from error


def clean(text: str) -> str:
    """The text without what PostgreSQL cannot hold: NUL and halves of surrogate pairs."""
    if not text.isascii():
        text = text.encode(errors="replace").decode()
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def clean_keys(keys: Mapping[str, str]) -> dict[str, str]:
    """Search keys with both sides cleaned."""
    return {clean(key): clean(value) for key, value in keys.items()}


def clean_verb(verb: Verb) -> Verb:
    """The verb as it is kept: what its sender wrote is cleaned.

    Raises:
        InvalidQuery: one of its ids or its step cannot be stored.
    """
    check_texts(verb.request_id, verb.saga_id, verb.step)
    return replace(verb, actor=clean(verb.actor), reason=clean(verb.reason))


def _attempt_of(event: Event) -> tuple[str, int]:
    """Step and number of the attempt that it answers; a skipped step has none."""
    match event:
        case StepDone() | StepRejected() | AttemptFailed() | StepCompensated():
            return event.step, event.attempt
        case StepSkipped():
            return event.step, 0
        case Started() | Aborted() | Stuck() | Retried() | Abandoned():
            return "", 0
        case _:
            assert_never(event)


def _payload(event: Event) -> bytes:
    match event:
        case StepDone():
            response = _field(_RESPONSE, event.response)
            return (
                response + framed(_SPAN_ID, event.span_id.encode()) if event.span_id else response
            )
        case StepCompensated():
            return b""
        case Started():
            payload = _started(event)
        case StepRejected():
            payload = pb.Event(failure=_failure(event.failure), span_id=event.span_id)
        case AttemptFailed():
            payload = pb.Event(
                failure=_failure(event.failure),
                direction=_DIRECTIONS[event.direction],
                retry_at_ms=event.retry_at_ms,
                span_id=event.span_id,
            )
        case Aborted():
            payload = pb.Event(
                failure=_failure(event.failure),
                awaited=sorted(event.awaited),
                actor=clean(event.actor),
                note=clean(event.note),
            )
        case Stuck():
            payload = pb.Event(failure=_failure(event.failure))
        case Retried() | StepSkipped() | Abandoned():
            payload = pb.Event(actor=clean(event.actor), note=clean(event.note))
        case _:
            assert_never(event)
    return payload.SerializeToString(deterministic=True)


def _started(event: Started) -> pb.Event:
    """One field after the other: that costs half of what keyword arguments do."""
    payload = pb.Event()
    payload.input = event.input_bytes
    payload.deadline_ms = event.deadline_ms
    payload.traceparent = event.traceparent
    keys = payload.keys
    for key, value in event.keys.items():
        keys[clean(key)] = clean(value)
    return payload


def _failure(failure: Failure) -> pb.Failure:
    return pb.Failure(
        kind=_FAILURE_KINDS[failure.kind],
        code=clean(failure.code),
        reason=clean(failure.reason),
        message=clean(failure.message),
        step=clean(failure.step),
    )


def _commands(calls: Iterable[Call]) -> bytes:
    return b"".join([framed(_CALL, _call(call)) for call in calls])


def _call(call: Call) -> bytes:
    """A `journal.v1.Call`: the bytes of its fields, one behind the other."""
    head = _head(call.step, call.direction, call.attempt)
    due = pb.Call(due_ms=call.due_ms).SerializeToString() if call.due_ms else b""
    return head + due + _field(_REQUEST, call.request)


@lru_cache(maxsize=4_096)
def _head(step: str, direction: Direction, attempt: int) -> bytes:
    """What the calls of many sagas begin with."""
    call = pb.Call(step=step, direction=_DIRECTIONS[direction], attempt=attempt)
    return call.SerializeToString()


def _field(tag: bytes, content: bytes) -> bytes:
    return framed(tag, content) if content else b""


def _event(row: Row, payload: pb.Event) -> Event:
    match row.kind:
        case "STARTED":
            return Started(
                time_ms=row.time_ms,
                input_bytes=payload.input,
                deadline_ms=payload.deadline_ms,
                keys=dict(payload.keys),
                traceparent=payload.traceparent,
            )
        case "ABORTED":
            return Aborted(
                time_ms=row.time_ms,
                failure=_failure_of(payload),
                awaited=frozenset(payload.awaited),
                actor=payload.actor,
                note=payload.note,
            )
        case "STUCK":
            return Stuck(time_ms=row.time_ms, failure=_failure_of(payload))
        case "RETRIED":
            return Retried(time_ms=row.time_ms, actor=payload.actor, note=payload.note)
        case "ABANDONED":
            return Abandoned(time_ms=row.time_ms, actor=payload.actor, note=payload.note)
        case _:
            return _step_event(row, payload)


def _step_event(row: Row, payload: pb.Event) -> Event:
    match row.kind:
        case "STEP_DONE":
            return StepDone(
                time_ms=row.time_ms,
                step=row.step,
                attempt=row.attempt,
                response=payload.response,
                span_id=payload.span_id,
            )
        case "STEP_REJECTED":
            return StepRejected(
                time_ms=row.time_ms,
                step=row.step,
                attempt=row.attempt,
                failure=_failure_of(payload),
                span_id=payload.span_id,
            )
        case "ATTEMPT_FAILED":
            return AttemptFailed(
                time_ms=row.time_ms,
                step=row.step,
                direction=_DIRECTION_OF[payload.direction],
                attempt=row.attempt,
                failure=_failure_of(payload),
                retry_at_ms=payload.retry_at_ms,
                span_id=payload.span_id,
            )
        case "STEP_COMPENSATED":
            return StepCompensated(time_ms=row.time_ms, step=row.step, attempt=row.attempt)
        case "STEP_SKIPPED":
            return StepSkipped(
                time_ms=row.time_ms, step=row.step, actor=payload.actor, note=payload.note
            )
        case kind:
            raise ValueError(f"unknown kind of event: {kind}")


def _failure_of(payload: pb.Event) -> Failure:
    stored = payload.failure
    return Failure(
        kind=_FAILURE_KIND_OF[stored.kind],
        code=stored.code,
        reason=stored.reason,
        message=stored.message,
        step=stored.step,
    )


def _call_of(stored: pb.Call) -> Call:
    return Call(
        step=stored.step,
        direction=_DIRECTION_OF[stored.direction],
        attempt=stored.attempt,
        request=stored.request,
        due_ms=stored.due_ms,
    )
