"""Why a saga is where it is, in a few sentences for a human. Pure.

Where it is and since when; why it left its path; what it waits for, whose participant does how;
what happens next by itself; and what each verb would do that is legal now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import assert_never

from msgspec.structs import replace

from coordinator.core.model import Failure, FailureKind, SagaState, Step, StepState
from coordinator.core.saga import Saga, StepProgress, open_steps
from coordinator.core.words import legal_verbs
from coordinator.engine.gate import Condition
from coordinator.journal.base import Standing
from coordinator.journal.verbs import VerbKind


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is known besides the saga, and by whom."""

    conditions: Mapping[str, Condition]
    """By step service, how its participant does, seen from this instance."""
    owner: str
    """The instance that runs the saga; empty for none."""
    here: str
    """This instance."""
    now_ms: int
    parked_until_ms: int = 0
    """0 when it is not parked."""


def explain(saga: Saga, view: View) -> str:
    """The whole of it."""
    sentences = (
        _standing(saga, view),
        _state_sentences(saga, view),
        (_VERBS[VerbKind(verb)](saga) for verb in legal_verbs(saga)),
    )
    return " ".join(chain(*sentences))


def explain_unreadable(saga_id: str, standing: Standing, why: str) -> str:
    """What can be said of a saga that this release cannot fold."""
    return (
        f"Saga {saga_id} is {standing.state.value} and runs definition {standing.definition_hash}."
        f" This coordinator can tell no more of it: {why}. It can neither run nor change it;"
        " an instance of the release that wrote it can."
    )


def waits_for(saga: Saga) -> tuple[str, ...]:
    """The step services that answer next, or that it halted at."""
    if saga.state.final:
        return ()
    return tuple(step.service for step, _ in _under_way(saga))


def _under_way(saga: Saga) -> Iterator[tuple[Step, StepProgress]]:
    for step, progress in zip(saga.definition.steps, saga.steps, strict=True):
        if progress.state in (StepState.DOING, StepState.COMPENSATING):
            yield step, progress


def _standing(saga: Saga, view: View) -> Iterator[str]:
    yield f"Saga {saga.saga_id} of {saga.definition.name} is {saga.state.value}."
    begun, newest = view.now_ms - saga.created_ms, view.now_ms - saga.updated_ms
    yield f"It was started {_span(begun)} ago, and its newest event is {_span(newest)} old."
    if not saga.state.final:
        yield _ownership(view)
    if saga.failure is not None:
        yield f"It was aborted: {_told(saga.failure)}"


def _ownership(view: View) -> str:
    if view.owner:
        return f"Its owner is {view.owner}."
    if view.parked_until_ms:
        due = _when(view.parked_until_ms, view.now_ms)
        return f"It is parked, in nobody's memory; it goes on {due}, or when a verb is asked of it."
    return "Nobody owns it now: its last owner's lease is over, and another will claim it."


def _state_sentences(saga: Saga, view: View) -> Iterator[str]:
    match saga.state:
        case SagaState.RUNNING:
            yield from _progress(saga, view)
            if saga.deadline_ms:
                yield f"It aborts by itself {_when(saga.deadline_ms, view.now_ms)}."
        case SagaState.COMPENSATING:
            yield from _progress(saga, view)
            yield f"Effects that may be left: {_effects(saga)}."
        case SagaState.STUCK:
            yield from _halted(saga, view)
        case SagaState.COMPLETED:
            yield f"All of its {len(saga.steps)} steps are done."
        case SagaState.COMPENSATED:
            yield "No step's effect is left."
        case SagaState.ABANDONED:
            yield f"An operator ended it. Effects that stay: {_effects(saga)}."
        case _:
            assert_never(saga.state)


def _progress(saga: Saga, view: View) -> Iterator[str]:
    for step, progress in _under_way(saga):
        number = saga.definition.steps.index(step) + 1
        place = f"Step {step.name} ({number} of {len(saga.steps)})"
        yield f"{place} is {progress.state.value}, {_attempt(step, progress, view)}."
        if progress.failure is not None:
            tried, why = _span(view.now_ms - progress.since_ms), _told(progress.failure)
            yield f"It has been tried for {tried}; its last attempt failed: {why}"
            yield from _mending(progress.failure)
        yield from _participant(step, view, told=progress.failure)


def _attempt(step: Step, progress: StepProgress, view: View) -> str:
    number, condition = progress.attempt, view.conditions.get(step.service)
    if progress.due_ms > view.now_ms:
        return f"and attempt {number} is due {_when(progress.due_ms, view.now_ms)}"
    if progress.call is None:
        return f"after attempt {number}"
    if condition is not None and condition.open:
        return f"and attempt {number} waits for {condition.participant} to be back"
    if view.owner not in ("", view.here):
        return f"and attempt {number} waits for its answer, or to be sent: {view.owner} knows"
    return f"and attempt {number} waits for its answer"


def _participant(step: Step, view: View, *, told: Failure | None) -> Iterator[str]:
    """How its participant does, if not well; why not, unless that was `told` already."""
    condition = view.conditions.get(step.service)
    if condition is None:
        return
    name, waiting = condition.participant, condition.waiting
    if condition.open:
        away = _span(view.now_ms - condition.since_ms)
        yield f"Participant {name} has been away for {away}{_why(condition.failure, told)}"
        yield (
            f"Its circuit is open: calls wait ({waiting} now), and spend no attempts, until its"
            " health service says SERVING."
        )
    elif waiting:
        yield f"Participant {name} has {condition.in_flight} calls in flight; {waiting} more wait."


def _why(failure: Failure | None, told: Failure | None) -> str:
    if failure is None or (told is not None and _told(replace(told, step="")) == _told(failure)):
        return "."
    return f": {_told(failure)}"


def _halted(saga: Saga, view: View) -> Iterator[str]:
    if saga.stuck is not None:
        yield f"It halted: {_told(saga.stuck)}"
        yield from _mending(saga.stuck)
    for step, _ in _under_way(saga):
        yield from _participant(step, view, told=saga.stuck)
    yield f"Effects that may be left: {_effects(saga)}."
    yield "It waits for an operator."


def _mending(failure: Failure) -> Iterator[str]:
    if failure.step and failure.kind is FailureKind.MISCONFIGURED:
        yield (
            "No retry helps before the deployment is mended: whoever answers there does not serve"
            " this step, or does not let the coordinator in."
        )


# --- what each verb would do --------------------------------------------------------


def _cancel(saga: Saga) -> str:
    return f"CancelSaga would abort it and undo what may have happened: {_effects(saga)}."


def _retry(saga: Saga) -> str:
    how = "on" if saga.failure is None else "on undoing"
    return f"RetrySaga would go {how}, with fresh budgets."


def _skip(saga: Saga) -> str:
    return f"SkipStep would take one as undone by hand and keep undoing: {_effects(saga)}."


def _abandon(saga: Saga) -> str:
    return f"AbandonSaga would end it and leave its effects: {_effects(saga)}."


_VERBS: Mapping[VerbKind, Callable[[Saga], str]] = {
    VerbKind.CANCEL: _cancel,
    VerbKind.RETRY: _retry,
    VerbKind.SKIP: _skip,
    VerbKind.ABANDON: _abandon,
}


# --- words ---------------------------------------------------------------------------


def _effects(saga: Saga) -> str:
    return ", ".join(open_steps(saga)) or "none"


def _told(failure: Failure) -> str:
    where = f"step {failure.step}, " if failure.step else ""
    words = f": {failure.message}" if failure.message else ""
    name = failure.code if failure.reason == failure.code else f"{failure.code} {failure.reason}"
    return f"{where}{name}{words}".rstrip(".") + "."


def _when(time_ms: int, now_ms: int) -> str:
    return f"in {_span(time_ms - now_ms)}" if time_ms > now_ms else "now"


def _span(duration_ms: int) -> str:
    """A duration in its largest unit, such as 90 s, 15 min or 3 h."""
    seconds = max(duration_ms, 0) / 1_000
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
