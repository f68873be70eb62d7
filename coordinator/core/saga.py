"""One run of a definition: a value that is replaced, never changed. `evolve.py` alone makes it."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from coordinator.core.commands import Call
from coordinator.core.model import Definition, Failure, SagaState, Step, StepState
from coordinator.core.transitions import MAY_HAVE_HAPPENED, IllegalEvent

_DONE = StepState.DONE


class StepProgress(Struct, frozen=True, kw_only=True, gc=False):
    """Progress of one step of one saga."""

    state: StepState = StepState.PENDING
    attempt: int = 0
    """Number of the newest attempt in the present direction, from 1; 0 when PENDING."""
    since_ms: int = 0
    """When the budget of the present direction began: its first command, or the last RetrySaga."""
    spent: int = 0
    """Attempts of the present direction that failed since `since_ms`."""
    hopeless: int = 0
    """Of those, failures that no retry can cure; STUCK at three."""
    call: Call | None = None
    """The newest attempt's command while it has no answer; None when nothing is outstanding."""
    request: bytes = b""
    """The exact bytes of its Do request; empty when PENDING."""
    response: bytes | None = None
    """What Do answered; None until it is DONE."""
    failure: Failure | None = None
    """Why the newest answered attempt failed; None once it succeeded."""
    span_id: str = ""
    """Span of the newest answered Do, for the link from its compensation; empty when unsampled."""

    @property
    def due_ms(self) -> int:
        """When the outstanding attempt is due; 0 for at once, or when there is none."""
        return self.call.due_ms if self.call else 0


class Saga(Struct, frozen=True, kw_only=True, gc=False):
    """One run of a definition: the fold of its events. Built by `evolve.py` alone."""

    saga_id: str
    definition: Definition
    input_bytes: bytes
    state: SagaState
    revision: int
    """How many events it has."""
    steps: tuple[StepProgress, ...]
    """Parallel to `definition.steps`."""
    failure: Failure | None = None
    """Why it was aborted; None on the way forward."""
    stuck: Failure | None = None
    """Why it is STUCK; None otherwise."""
    created_ms: int = 0
    updated_ms: int = 0
    """When its newest event happened."""
    deadline_ms: int = 0
    """When it aborts by itself; 0 for never."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Searchable values taken from the input."""
    traceparent: str = ""
    """W3C trace context that every span of the saga belongs to; empty when it is not traced."""


def place_of(saga: Saga, step: str) -> int:
    """Where a step is in the saga's definition, by name.

    Raises:
        IllegalEvent: the definition has no such step.
    """
    try:
        return saga.definition.places[step]
    except KeyError:
        raise IllegalEvent(f"a step {step!r} that the definition does not have") from None


def progress_of(saga: Saga, step: str) -> StepProgress:
    """Progress of a step by name.

    Raises:
        IllegalEvent: the definition has no such step.
    """
    return saga.steps[place_of(saga, step)]


def step_of(saga: Saga, step: str) -> Step:
    """A step of the saga's definition by name.

    Raises:
        IllegalEvent: the definition has no such step.
    """
    return saga.definition.steps[place_of(saga, step)]


def with_progress(saga: Saga, place: int, progress: StepProgress) -> Saga:
    """The saga with another progress of the step at a place."""
    steps = list(saga.steps)
    steps[place] = progress
    return replace(saga, steps=tuple(steps))


def next_to_do(saga: Saga) -> int:
    """Place of the first step that is not DONE; the number of steps when all are."""
    place = 0
    for progress in saga.steps:
        if progress.state is not _DONE:
            break
        place += 1
    return place


def next_to_undo(saga: Saga) -> int:
    """Place of the last step that may have happened; -1 when none may."""
    for place in range(len(saga.steps) - 1, -1, -1):
        if saga.steps[place].state in MAY_HAVE_HAPPENED:
            return place
    return -1


def open_steps(saga: Saga) -> tuple[str, ...]:
    """Names of the steps whose effect may be there, in the order of the definition."""
    return tuple(
        step.name
        for step, progress in zip(saga.definition.steps, saga.steps, strict=True)
        if progress.state in MAY_HAVE_HAPPENED
    )
