"""A saga as its events tell it: where it is and where each of its steps is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from protos.saga.v1 import saga_pb2

_MOVES = {
    saga_pb2.SAGA_EVENT_KIND_STEP_DONE: "DONE",
    saga_pb2.SAGA_EVENT_KIND_STEP_REJECTED: "REJECTED",
    saga_pb2.SAGA_EVENT_KIND_STEP_COMPENSATED: "COMPENSATED",
    saga_pb2.SAGA_EVENT_KIND_STEP_SKIPPED: "SKIPPED",
}
_DIRECTIONS = {
    saga_pb2.DIRECTION_DO: "DOING",
    saga_pb2.DIRECTION_COMPENSATE: "COMPENSATING",
}


@dataclass(slots=True)
class StepLine:
    """One step on the screen."""

    state: str = "PENDING"
    attempt: int = 0
    note: str = ""
    """Why the newest attempt did not succeed."""


class Progress:
    """Changes with each event."""

    def __init__(self, steps: Iterable[str]) -> None:
        self.state = "RUNNING"
        self.steps = {name: StepLine() for name in steps}

    def apply(self, event: saga_pb2.SagaEvent) -> None:
        """Take one event in."""
        self.state = saga_pb2.SagaState.Name(event.state).removeprefix("SAGA_STATE_")
        if event.step in self.steps:
            line = self.steps[event.step]
            line.state = _MOVES.get(event.kind, line.state)
            line.note = reason(event)
        for command in event.commands:
            line = self.steps[command.step]
            line.state, line.attempt = _DIRECTIONS[command.direction], command.attempt


def reason(event: saga_pb2.SagaEvent) -> str:
    """Why it did not go well, in a word; empty when it did."""
    if not event.HasField("failure"):
        return ""
    return event.failure.reason or event.failure.code


def sentence(event: saga_pb2.SagaEvent) -> str:
    """One line about one event."""
    kind = saga_pb2.SagaEventKind.Name(event.kind).removeprefix("SAGA_EVENT_KIND_")
    said = [f"{event.revision:>3}", kind.lower().replace("_", " "), event.step, reason(event)]
    return " ".join(word for word in said if word)
