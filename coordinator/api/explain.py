"""Why a saga is where it is, in a few sentences for a human. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from coordinator.core.model import Failure, SagaState, StepState
from coordinator.core.saga import Saga, StepProgress, open_steps
from coordinator.core.transitions import LEGAL_VERBS
from coordinator.journal.base import VerbKind


def legal_verbs(saga: Saga) -> tuple[VerbKind, ...]:
    """What would be accepted now. A step is skipped backward only: forward nothing is undone."""
    legal = LEGAL_VERBS[saga.state]
    return tuple(
        kind
        for kind in VerbKind
        if kind.value in legal and not (kind is VerbKind.SKIP and saga.failure is None)
    )


def explain(saga: Saga, *, now_ms: int) -> str:
    """Where the saga is, since when, what went wrong last and what happens next."""
    return " ".join(_sentences(saga, now_ms))


def _sentences(saga: Saga, now_ms: int) -> Iterator[str]:
    yield f"Saga {saga.saga_id} of {saga.definition.name} is {saga.state.value}."
    begun, newest = now_ms - saga.created_ms, now_ms - saga.updated_ms
    yield f"It was started {_span(begun)} ago, and its newest event is {_span(newest)} old."
    if saga.failure is not None:
        yield f"It was aborted: {_told(saga.failure)}"
    match saga.state:
        case SagaState.RUNNING:
            yield from _underway(saga, now_ms)
            if saga.deadline_ms:
                yield f"It aborts by itself {_when(saga.deadline_ms, now_ms)}."
        case SagaState.COMPENSATING:
            yield from _underway(saga, now_ms)
            yield f"Effects that may be left: {_effects(saga)}."
        case SagaState.STUCK:
            yield from _halted(saga)
        case SagaState.COMPLETED:
            yield f"All of its {len(saga.steps)} steps are done."
        case SagaState.COMPENSATED:
            yield "No step's effect is left."
        case SagaState.ABANDONED:
            yield f"An operator ended it. Effects that stay: {_effects(saga)}."
        case _:
            assert_never(saga.state)


def _underway(saga: Saga, now_ms: int) -> Iterator[str]:
    steps = zip(saga.definition.steps, saga.steps, strict=True)
    for number, (step, progress) in enumerate(steps, start=1):
        if progress.state in (StepState.DOING, StepState.COMPENSATING):
            place = f"Step {step.name} ({number} of {len(saga.steps)})"
            yield f"{place} is {progress.state.value}, {_attempt(progress, now_ms)}."
            if progress.failure is not None:
                yield f"Its last attempt failed: {_told(progress.failure)}"


def _attempt(progress: StepProgress, now_ms: int) -> str:
    if progress.due_ms > now_ms:
        return f"and attempt {progress.attempt} is due {_when(progress.due_ms, now_ms)}"
    if progress.call is not None:
        return f"and attempt {progress.attempt} waits for its answer"
    return f"after attempt {progress.attempt}"


def _halted(saga: Saga) -> Iterator[str]:
    if saga.stuck is not None:
        yield f"It halted: {_told(saga.stuck)}"
    yield f"Effects that may be left: {_effects(saga)}."
    yield "It waits for an operator: RetrySaga goes on with fresh budgets,"
    if VerbKind.SKIP in legal_verbs(saga):
        yield "SkipStep marks a step as undone by hand,"
    yield "AbandonSaga ends it and leaves these effects."


def _effects(saga: Saga) -> str:
    return ", ".join(open_steps(saga)) or "none"


def _told(failure: Failure) -> str:
    where = f"step {failure.step}, " if failure.step else ""
    words = f": {failure.message}" if failure.message else ""
    return f"{where}{failure.code} {failure.reason}{words}".rstrip(".") + "."


def _when(time_ms: int, now_ms: int) -> str:
    return f"in {_span(time_ms - now_ms)}" if time_ms > now_ms else "now"


def _span(duration_ms: int) -> str:
    """A duration in its largest unit, such as 90 s, 15 min or 3 h."""
    seconds = max(duration_ms, 0) / 1_000
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
