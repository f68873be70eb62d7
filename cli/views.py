"""Sagas and their events in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cli.output import time_text
from protos.saga.v1 import saga_pb2

SAGA_COLUMNS = ("SAGA", "DEFINITION", "STATE", "CREATED", "FAILURE")
STEP_COLUMNS = ("STEP", "SERVICE", "STATE", "ATTEMPT", "NEXT ATTEMPT", "FAILURE")

PARTICIPANT_COLUMNS = ("PARTICIPANT", "CIRCUIT", "SINCE", "IN FLIGHT", "WAITING", "FAILURE")


def state_of(state: saga_pb2.SagaState) -> str:
    """The state without its prefix."""
    return saga_pb2.SagaState.Name(state).removeprefix("SAGA_STATE_")


def saga_row(saga: saga_pb2.Saga) -> Sequence[str]:
    """One saga in a list."""
    failure = _failure(saga.failure) if saga.HasField("failure") else ""
    created = time_text(saga.create_time)
    return (saga.saga_id, saga.definition, state_of(saga.state), created, failure)


def heading_lines(saga: saga_pb2.Saga) -> Iterator[str]:
    """What a saga is and where it is, without its steps."""
    yield f"{saga.saga_id} of {saga.definition} is {state_of(saga.state)}, revision {saga.revision}"
    yield f"created {time_text(saga.create_time)}, updated {time_text(saga.update_time)}"
    if saga.HasField("deadline_time"):
        yield f"deadline {time_text(saga.deadline_time)}"
    for key, value in sorted(saga.keys.items()):
        yield f"{key}={value}"
    if saga.HasField("failure"):
        yield f"aborted: {_failure(saga.failure)}"
    if saga.HasField("stuck"):
        yield f"stuck: {_failure(saga.stuck)}"


def step_row(step: saga_pb2.StepProgress) -> Sequence[str]:
    """One step of a saga."""
    waits = step.HasField("next_attempt_time")
    return (
        step.name,
        step.service,
        saga_pb2.StepState.Name(step.state).removeprefix("STEP_STATE_"),
        str(step.attempt) if step.attempt else "",
        time_text(step.next_attempt_time) if waits else "",
        _words(step.failure) if step.HasField("failure") else "",
    )


def participant_row(condition: saga_pb2.ParticipantCondition) -> Sequence[str]:
    """How one participant does."""
    return (
        condition.participant,
        saga_pb2.CircuitState.Name(condition.circuit).removeprefix("CIRCUIT_STATE_"),
        time_text(condition.since_time) if condition.HasField("since_time") else "",
        str(condition.calls_in_flight),
        str(condition.waiting_calls),
        _words(condition.failure) if condition.HasField("failure") else "",
    )


def steer_row(told: saga_pb2.SteerSagasResponse) -> Sequence[str]:
    """What came of a verb for one saga."""
    result = saga_pb2.SteerResult.Name(told.result).removeprefix("STEER_RESULT_")
    return told.saga_id, told.definition, state_of(told.state), result, told.explanation


def event_line(event: saga_pb2.SagaEvent) -> str:
    """One event on one line: when, which, what, why, and what was decided by it."""
    kind = saga_pb2.SagaEventKind.Name(event.kind).removeprefix("SAGA_EVENT_KIND_")
    parts = [f"{event.revision:>3} {time_text(event.event_time)} {state_of(event.state)} {kind}"]
    if event.step:
        parts.append(event.step)
    if event.attempt:
        parts.append(f"{_direction(event.direction)} {event.attempt}")
    if event.HasField("failure"):
        parts.append(f"({_words(event.failure)})")
    if event.actor or event.note:
        parts.append(f"by {event.actor or 'somebody'}: {event.note}")
    return " ".join(parts + [_command(command) for command in event.commands])


def _command(command: saga_pb2.SagaCommand) -> str:
    due = f" at {time_text(command.due_time)}" if command.HasField("due_time") else ""
    return f"-> {command.step} {_direction(command.direction)} {command.attempt}{due}"


def _direction(direction: saga_pb2.Direction) -> str:
    return saga_pb2.Direction.Name(direction).removeprefix("DIRECTION_").lower()


def _failure(failure: saga_pb2.Failure) -> str:
    return f"{failure.step}: {_words(failure)}" if failure.step else _words(failure)


def _words(failure: saga_pb2.Failure) -> str:
    name = failure.reason or failure.code
    return f"{name}: {failure.message}" if failure.message else name
