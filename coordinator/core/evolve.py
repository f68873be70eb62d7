"""The fold: a saga is what its events and commands made of it, and nothing else.

`apply` and `record` are the only functions that make a new `Saga` from an old one. A live saga goes
through them once per event; a recovered one goes through the same, event by event (`replay`), so
the two cannot differ. Nothing is computed here that is not in the event, the commands or the pinned
definition.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from msgspec.structs import replace

from coordinator.core.answers import apply_answer
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
from coordinator.core.model import Definition, Direction, SagaState
from coordinator.core.saga import (
    Saga,
    StepProgress,
    next_to_do,
    next_to_undo,
    place_of,
    with_progress,
)
from coordinator.core.transitions import (
    IllegalEvent,
    SagaTrigger,
    StepTrigger,
    next_saga_state,
    next_step_state,
)
from coordinator.core.words import apply_word

_RUNNING, _DO = SagaState.RUNNING, Direction.DO
_DECIDED = {
    Direction.DO: StepTrigger.DO_DECIDED,
    Direction.COMPENSATE: StepTrigger.COMPENSATE_DECIDED,
}


def begin(saga_id: str, definition: Definition, event: Started) -> Saga:
    """Return the saga as it is after its first event, before any command."""
    return Saga(
        saga_id=saga_id,
        definition=definition,
        input_bytes=event.input_bytes,
        state=SagaState.RUNNING,
        revision=1,
        steps=(StepProgress(),) * len(definition.steps),
        created_ms=event.time_ms,
        updated_ms=event.time_ms,
        deadline_ms=event.deadline_ms,
        keys=event.keys,
        traceparent=event.traceparent,
    )


def replay(
    saga_id: str, definition: Definition, entries: Iterable[tuple[Event, tuple[Call, ...]]]
) -> Saga:
    """Fold a saga from its durable history, oldest entry first.

    Raises:
        IllegalEvent: the history is not one that this definition can have.
    """
    saga: Saga | None = None
    for event, commands in entries:
        if saga is None:
            if not isinstance(event, Started):
                raise IllegalEvent(f"a history that begins with {type(event).__name__}")
            saga = begin(saga_id, definition, event)
        else:
            saga = apply(saga, event)
        saga = record(saga, commands)
    if saga is None:
        raise IllegalEvent("an empty history")
    return saga


def apply(saga: Saga, event: Event) -> Saga:
    """Return the saga after an event, before the commands that it calls for.

    Raises:
        IllegalEvent: it cannot happen to this saga now.
    """
    if saga.state.final:
        raise IllegalEvent(f"a saga that is {saga.state.value}: {type(event).__name__}")
    after = replace(saga, revision=saga.revision + 1, updated_ms=event.time_ms)
    match event:
        case StepDone() | StepRejected() | AttemptFailed() | StepCompensated():
            return _settle(apply_answer(after, event))
        case Aborted() | Stuck() | Retried() | StepSkipped() | Abandoned():
            return _settle(apply_word(after, event))
        case Started():
            raise IllegalEvent("a saga that is started twice")
        case _:
            assert_never(event)


def record(saga: Saga, commands: Iterable[Call]) -> Saga:
    """Return the saga with these commands outstanding."""
    for call in commands:
        place = place_of(saga, call.step)
        saga = with_progress(saga, place, _outstanding(saga, saga.steps[place], call))
    return saga


def _outstanding(saga: Saga, progress: StepProgress, call: Call) -> StepProgress:
    state = next_step_state(progress.state, _DECIDED[call.direction])
    fresh = state is not progress.state  # a direction begins, and its budget with it
    return replace(
        progress,
        state=state,
        call=call,
        attempt=call.attempt,
        request=call.request if call.direction is _DO else progress.request,
        since_ms=saga.updated_ms if fresh else progress.since_ms,
        spent=0 if fresh else progress.spent,
        hopeless=0 if fresh else progress.hopeless,
    )


def _settle(saga: Saga) -> Saga:
    if saga.state is _RUNNING:
        if next_to_do(saga) == len(saga.steps):
            return replace(saga, state=next_saga_state(saga.state, SagaTrigger.ALL_DONE))
    elif saga.state is SagaState.COMPENSATING and next_to_undo(saga) < 0:
        return replace(saga, state=next_saga_state(saga.state, SagaTrigger.ALL_UNDONE))
    return saga
