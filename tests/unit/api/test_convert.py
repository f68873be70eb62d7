"""The API has a word for everything that the core can say."""

from __future__ import annotations

from typing import get_args

from coordinator.api import convert
from coordinator.core.events import Event, Stuck
from coordinator.core.model import Direction, SagaState, StepState
from coordinator.journal.base import Entry
from protos.saga.v1 import saga_pb2 as pb
from tests.builders import failure, given


def test_every_state_and_kind_has_its_message_by_the_same_name() -> None:
    assert {s: pb.SagaState.Name(m) for s, m in convert.SAGA_STATES.items()} == {
        s: f"SAGA_STATE_{s.value}" for s in SagaState
    }
    assert {s: pb.StepState.Name(m) for s, m in convert.STEP_STATES.items()} == {
        s: f"STEP_STATE_{s.value}" for s in StepState
    }
    assert {d: pb.Direction.Name(m) for d, m in convert.DIRECTIONS.items()} == {
        d: f"DIRECTION_{d.value}" for d in Direction
    }
    assert set(convert.EVENT_KINDS) == set(get_args(Event))
    assert sorted(convert.EVENT_KINDS.values()) == sorted(pb.SagaEventKind.values())[1:]


def test_no_message_of_a_state_is_missing_here() -> None:
    assert sorted(convert.SAGA_STATES.values()) == sorted(pb.SagaState.values())[1:]
    assert sorted(convert.STEP_STATES.values()) == sorted(pb.StepState.values())[1:]
    assert all(convert.state_of(m) is s for s, m in convert.SAGA_STATES.items())


def test_an_operators_word_is_shown_with_who_and_why() -> None:
    story = given("a", "b").done("a").rejected("b").stuck().retried()
    event, _ = story.history[-1]
    message = convert.event_message(Entry(revision=5, event=event, commands=()), story.saga)
    assert (message.kind, message.actor, message.note) == (
        pb.SAGA_EVENT_KIND_RETRIED,
        "ann",
        "mended",
    )


def test_a_step_that_was_refused_before_anything_was_sent_has_no_direction() -> None:
    story = given("a", "b", broken=frozenset("b")).done("a")
    event, _ = story.history[-1]
    message = convert.event_message(Entry(revision=3, event=event, commands=()), story.saga)
    assert (message.kind, message.step, message.attempt) == (
        pb.SAGA_EVENT_KIND_STEP_REJECTED,
        "b",
        0,
    )
    assert message.direction == pb.DIRECTION_UNSPECIFIED


def test_why_a_saga_halted_is_shown_with_the_event_and_with_the_saga() -> None:
    story = given("a").stuck()
    stuck = Stuck(time_ms=1_001, failure=failure(reason="POISON"))
    message = convert.event_message(Entry(revision=2, event=stuck, commands=()), story.saga)
    assert message.failure.reason == "POISON"
    saga = convert.saga_message(story.saga, "test.v1.Input", now_ms=1_001)
    assert saga.stuck.reason == "POISON"
    assert saga.update_time.ToMilliseconds() == 1_001


def test_times_keep_their_milliseconds() -> None:
    saga = convert.saga_message(given("a").saga, "test.v1.Input", now_ms=0)
    assert saga.create_time.ToMilliseconds() == 1_000
    assert saga.input.type_url == "type.googleapis.com/test.v1.Input"
