"""What the words of clients, operators and the coordinator itself make of a saga."""

from __future__ import annotations

from typing import TypeAlias, assert_never

from msgspec.structs import replace

from coordinator.core.events import Abandoned, Aborted, Retried, StepSkipped, Stuck
from coordinator.core.model import Failure, SagaState
from coordinator.core.saga import Saga, place_of, with_progress
from coordinator.core.transitions import (
    LEGAL_VERBS,
    IllegalEvent,
    SagaTrigger,
    StepTrigger,
    next_saga_state,
    next_step_state,
)

Word: TypeAlias = Aborted | Stuck | Retried | StepSkipped | Abandoned


def legal_verbs(saga: Saga) -> tuple[str, ...]:
    """What operators and clients may ask of a saga now, such as CANCEL."""
    barred = "CANCEL" if saga.failure is not None else "SKIP"
    return tuple(verb for verb in LEGAL_VERBS[saga.state] if verb != barred)


def apply_word(saga: Saga, event: Word) -> Saga:
    """Return the saga after a word, before what its steps then add up to.

    Raises:
        IllegalEvent: the word is not legal now.
    """
    match event:
        case Aborted():
            if saga.failure is not None:
                raise IllegalEvent(f"a saga that is {saga.state.value} and was aborted: abort")
            return _forget_calls(abort(saga, event.failure), keep=event.awaited)
        case Stuck():
            return halt(saga, event.failure)
        case Retried():
            return _resume(saga)
        case StepSkipped():
            return _skip(saga, event.step)
        case Abandoned():
            return replace(saga, state=next_saga_state(saga.state, SagaTrigger.ABANDON))
        case _:
            assert_never(event)


def abort(saga: Saga, failure: Failure) -> Saga:
    """Return the saga on its way back."""
    if saga.failure is not None:
        return saga  # the first abort counts
    trigger = SagaTrigger.CANCEL if saga.state is SagaState.STUCK else SagaTrigger.ABORT
    state = next_saga_state(saga.state, trigger)
    return replace(saga, state=state, failure=failure, stuck=None)


def halt(saga: Saga, failure: Failure) -> Saga:
    """Return the saga STUCK."""
    return replace(saga, state=next_saga_state(saga.state, SagaTrigger.HALT), stuck=failure)


def _resume(saga: Saga) -> Saga:
    forward = saga.failure is None
    trigger = SagaTrigger.RESUME_FORWARD if forward else SagaTrigger.RESUME_BACKWARD
    resumed = replace(saga, state=next_saga_state(saga.state, trigger), stuck=None)
    return _fresh_budgets(_forget_calls(resumed, keep=frozenset()))


def _forget_calls(saga: Saga, *, keep: frozenset[str]) -> Saga:
    names = (step.name for step in saga.definition.steps)
    steps = (
        progress if name in keep else replace(progress, call=None)
        for name, progress in zip(names, saga.steps, strict=True)
    )
    return replace(saga, steps=tuple(steps))


def _fresh_budgets(saga: Saga) -> Saga:
    steps = (replace(p, since_ms=saga.updated_ms, spent=0, hopeless=0) for p in saga.steps)
    return replace(saga, steps=tuple(steps))


def _skip(saga: Saga, step: str) -> Saga:
    if saga.failure is None:
        raise IllegalEvent("a step skipped before the saga was aborted")
    place = place_of(saga, step)
    state = next_step_state(saga.steps[place].state, StepTrigger.SKIPPED)
    return _resume(with_progress(saga, place, replace(saga.steps[place], state=state)))
