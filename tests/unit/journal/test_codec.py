from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from coordinator.core.commands import Call
from coordinator.core.decide import start
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
from coordinator.core.model import Direction, Failure, FailureKind
from coordinator.journal.base import Append, UnreadableHistory, Unwritable
from coordinator.journal.codec import KINDS, Row, clean, decode, encode
from coordinator.journal.limits import MAX_TIME_MS
from protos.journal.v1 import journal_pb2 as pb
from tests.builders import definition

_STORY = start("saga-1", definition("a"), Started(time_ms=1_000, input_bytes=b"in")).saga

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
dirty_texts = st.text(st.characters())
times = st.integers(0, MAX_TIME_MS)
numbers = st.integers(0, 2**31 - 1)
calls = st.builds(
    Call,
    step=texts,
    direction=st.sampled_from(Direction),
    attempt=numbers,
    request=st.binary(),
    due_ms=times,
)


def failures(text: st.SearchStrategy[str]) -> st.SearchStrategy[Failure]:
    return st.builds(
        Failure, kind=st.sampled_from(FailureKind), code=text, reason=text, message=text, step=text
    )


def events(text: st.SearchStrategy[str]) -> st.SearchStrategy[Event]:
    """Any event of any kind, with the given text wherever others write."""
    when = {"time_ms": times}
    answer = {**when, "step": texts, "attempt": numbers}
    said = {"actor": text, "note": text}
    failure = {"failure": failures(text)}
    return st.one_of(
        st.builds(
            Started,
            **when,
            input_bytes=st.binary(),
            deadline_ms=times,
            keys=st.dictionaries(text, text),
            traceparent=texts,
        ),
        st.builds(StepDone, **answer, response=st.binary(), span_id=texts),
        st.builds(StepRejected, **answer, **failure, span_id=texts),
        st.builds(
            AttemptFailed,
            **answer,
            **failure,
            direction=st.sampled_from(Direction),
            retry_at_ms=times,
            span_id=texts,
        ),
        st.builds(Aborted, **when, **failure, **said, awaited=st.frozensets(texts)),
        st.builds(StepCompensated, **answer),
        st.builds(Stuck, **when, **failure),
        st.builds(Retried, **when, **said),
        st.builds(StepSkipped, **when, **said, step=texts),
        st.builds(Abandoned, **when, **said),
    )


def _append(event: Event, commands: tuple[Call, ...] = ()) -> Append:
    return Append(saga=_STORY, event=event, commands=commands, state_changed=False)


def _stored(event: Event) -> Event:
    return decode(encode(_append(event))).event


@given(events(texts), st.lists(calls, max_size=3).map(tuple))
def test_what_is_encoded_is_decoded(event: Event, commands: tuple[Call, ...]) -> None:
    entry = decode(encode(_append(event, commands)))
    assert (entry.revision, entry.event, entry.commands) == (1, event, commands)


@given(events(texts), st.lists(calls, max_size=3).map(tuple))
def test_what_is_framed_by_hand_is_what_protobuf_writes(
    event: Event, commands: tuple[Call, ...]
) -> None:
    row = encode(_append(event, commands))
    payload, calls = pb.Event.FromString(row.payload), pb.Commands.FromString(row.commands)
    assert row.payload == payload.SerializeToString(deterministic=True)
    assert row.commands == calls.SerializeToString()


def test_every_kind_of_event_has_a_name_of_its_own() -> None:
    assert set(KINDS) == set(get_args(Event))
    assert len(set(KINDS.values())) == len(KINDS)


@given(events(dirty_texts))
def test_whatever_others_write_can_be_stored_and_read(event: Event) -> None:
    stored = _stored(event)
    assert _stored(stored) == stored


@given(dirty_texts)
def test_clean_text_holds_nothing_that_a_database_refuses(text: str) -> None:
    assert "\0" not in clean(text)
    clean(text).encode()


@given(texts)
def test_text_that_a_database_takes_is_left_as_it_is(text: str) -> None:
    assert clean(text) == text


def test_the_same_event_always_has_the_same_bytes() -> None:
    words = [f"step_{number}" for number in range(50)]
    failure = Failure(kind=FailureKind.UNKNOWN, code="UNAVAILABLE", reason="AWAY")

    def rows(order: list[str]) -> tuple[Row, Row]:
        started = Started(time_ms=1, input_bytes=b"", keys={word: word for word in order})
        aborted = Aborted(time_ms=1, failure=failure, awaited=frozenset(order))
        return encode(_append(started)), encode(_append(aborted))

    assert rows(words) == rows(words[::-1])


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_a_name_that_cannot_be_stored_is_refused_and_never_changed(name: str) -> None:
    with pytest.raises(Unwritable):
        encode(_append(StepCompensated(time_ms=1, step=name, attempt=1)))
    renamed = replace(_STORY, saga_id=name)
    with pytest.raises(Unwritable):
        encode(replace(_append(Started(time_ms=1, input_bytes=b"")), saga=renamed))


@pytest.mark.parametrize("time_ms", [-1, MAX_TIME_MS + 1])
def test_a_time_outside_the_calendar_is_refused(time_ms: int) -> None:
    with pytest.raises(Unwritable):
        encode(_append(StepCompensated(time_ms=time_ms, step="a", attempt=1)))


def test_a_number_too_large_for_its_field_is_refused() -> None:
    with pytest.raises(Unwritable):
        encode(_append(Started(time_ms=1, input_bytes=b"", deadline_ms=2**63)))


def test_a_row_of_a_newer_version_is_unreadable() -> None:
    row = encode(_append(StepCompensated(time_ms=1, step="a", attempt=1)))
    with pytest.raises(UnreadableHistory):
        decode(replace(row, kind="STEP_DREAMT"))


def test_a_damaged_row_is_unreadable() -> None:
    row = encode(_append(StepCompensated(time_ms=1, step="a", attempt=1)))
    with pytest.raises(UnreadableHistory):
        decode(replace(row, payload=b"\xff"))
    with pytest.raises(UnreadableHistory):
        decode(replace(row, kind="STUCK"))
