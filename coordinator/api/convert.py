"""From the coordinator's values to the messages of saga.v1."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.any_pb2 import Any
from google.protobuf.timestamp_pb2 import Timestamp

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
from coordinator.core.model import Direction, Failure, SagaState, Step, StepState
from coordinator.core.saga import Saga, StepProgress
from coordinator.definitions.base import (
    CompiledDefinition,
    DefinitionProblem,
    DefinitionWarning,
)
from coordinator.engine.gate import Condition
from coordinator.journal.base import Entry, StoredSaga
from coordinator.journal.verbs import VerbKind
from protos.saga.v1 import saga_pb2 as pb

SAGA_STATES: Mapping[SagaState, pb.SagaState] = {
    SagaState.RUNNING: pb.SAGA_STATE_RUNNING,
    SagaState.COMPENSATING: pb.SAGA_STATE_COMPENSATING,
    SagaState.STUCK: pb.SAGA_STATE_STUCK,
    SagaState.COMPLETED: pb.SAGA_STATE_COMPLETED,
    SagaState.COMPENSATED: pb.SAGA_STATE_COMPENSATED,
    SagaState.ABANDONED: pb.SAGA_STATE_ABANDONED,
}
STEP_STATES: Mapping[StepState, pb.StepState] = {
    StepState.PENDING: pb.STEP_STATE_PENDING,
    StepState.DOING: pb.STEP_STATE_DOING,
    StepState.DONE: pb.STEP_STATE_DONE,
    StepState.REJECTED: pb.STEP_STATE_REJECTED,
    StepState.COMPENSATING: pb.STEP_STATE_COMPENSATING,
    StepState.COMPENSATED: pb.STEP_STATE_COMPENSATED,
    StepState.SKIPPED: pb.STEP_STATE_SKIPPED,
}
DIRECTIONS: Mapping[Direction, pb.Direction] = {
    Direction.DO: pb.DIRECTION_DO,
    Direction.COMPENSATE: pb.DIRECTION_COMPENSATE,
}
EVENT_KINDS: Mapping[type[Event], pb.SagaEventKind] = {
    Started: pb.SAGA_EVENT_KIND_STARTED,
    StepDone: pb.SAGA_EVENT_KIND_STEP_DONE,
    StepRejected: pb.SAGA_EVENT_KIND_STEP_REJECTED,
    AttemptFailed: pb.SAGA_EVENT_KIND_ATTEMPT_FAILED,
    Aborted: pb.SAGA_EVENT_KIND_ABORTED,
    StepCompensated: pb.SAGA_EVENT_KIND_STEP_COMPENSATED,
    Stuck: pb.SAGA_EVENT_KIND_STUCK,
    Retried: pb.SAGA_EVENT_KIND_RETRIED,
    StepSkipped: pb.SAGA_EVENT_KIND_STEP_SKIPPED,
    Abandoned: pb.SAGA_EVENT_KIND_ABANDONED,
}
VERBS: Mapping[pb.SagaVerb, VerbKind] = {
    pb.SAGA_VERB_CANCEL: VerbKind.CANCEL,
    pb.SAGA_VERB_RETRY: VerbKind.RETRY,
    pb.SAGA_VERB_SKIP: VerbKind.SKIP,
    pb.SAGA_VERB_ABANDON: VerbKind.ABANDON,
}
_STATE_OF = {message: state for state, message in SAGA_STATES.items()}
_TYPE_URL = "type.googleapis.com/"


def state_of(state: pb.SagaState) -> SagaState:
    """The state that a valid enum value means."""
    return _STATE_OF[state]


def saga_message(saga: Saga, input_type: str, *, now_ms: int) -> pb.Saga:
    """One saga with its steps and its input, whose type is given by its full name."""
    steps = zip(saga.definition.steps, saga.steps, strict=True)
    return pb.Saga(
        saga_id=saga.saga_id,
        definition=saga.definition.name,
        definition_hash=saga.definition.hash,
        state=SAGA_STATES[saga.state],
        revision=saga.revision,
        steps=[_step_message(step, progress, now_ms) for step, progress in steps],
        failure=failure_message(saga.failure),
        stuck=failure_message(saga.stuck),
        create_time=_time(saga.created_ms),
        update_time=_time(saga.updated_ms),
        deadline_time=_time(saga.deadline_ms),
        input=Any(type_url=_TYPE_URL + input_type, value=saga.input_bytes),
        keys=saga.keys,
    )


def _step_message(step: Step, progress: StepProgress, now_ms: int) -> pb.StepProgress:
    return pb.StepProgress(
        name=step.name,
        service=step.service,
        state=STEP_STATES[progress.state],
        attempt=progress.attempt,
        failure=failure_message(progress.failure),
        next_attempt_time=_time(progress.due_ms) if progress.due_ms > now_ms else None,
    )


def listed_saga_message(stored: StoredSaga) -> pb.Saga:
    """One saga as a list shows it."""
    return pb.Saga(
        saga_id=stored.saga_id,
        definition=stored.definition,
        definition_hash=stored.definition_hash,
        state=SAGA_STATES[stored.state],
        revision=stored.revision,
        create_time=_time(stored.created_ms),
        update_time=_time(stored.updated_ms),
        keys=stored.keys,
    )


def event_message(entry: Entry, after: Saga) -> pb.SagaEvent:
    """One event, with the saga as it was after it."""
    event = entry.event
    message = pb.SagaEvent(
        revision=entry.revision,
        event_time=_time(event.time_ms),
        kind=EVENT_KINDS[type(event)],
        failure=failure_message(_failure(event)),
        commands=[_command_message(call) for call in entry.commands],
        state=SAGA_STATES[after.state],
    )
    if isinstance(event, StepDone | StepRejected | AttemptFailed | StepCompensated):
        message.step, message.attempt = event.step, event.attempt
        message.direction = _direction(event)
    if isinstance(event, StepSkipped):
        message.step = event.step
    if isinstance(event, Aborted | Retried | StepSkipped | Abandoned):
        message.actor, message.note = event.actor, event.note
    return message


def _failure(event: Event) -> Failure | None:
    if isinstance(event, StepRejected | AttemptFailed | Aborted | Stuck):
        return event.failure
    return None


def _direction(event: StepDone | StepRejected | AttemptFailed | StepCompensated) -> pb.Direction:
    if event.attempt == 0:
        return pb.DIRECTION_UNSPECIFIED  # nothing was sent
    if isinstance(event, AttemptFailed):
        return DIRECTIONS[event.direction]
    undone = isinstance(event, StepCompensated)
    return pb.DIRECTION_COMPENSATE if undone else pb.DIRECTION_DO


def _command_message(call: Call) -> pb.SagaCommand:
    return pb.SagaCommand(
        step=call.step,
        direction=DIRECTIONS[call.direction],
        attempt=call.attempt,
        due_time=_time(call.due_ms),
    )


def failure_message(failure: Failure | None) -> pb.Failure | None:
    """A failure; None stays unset."""
    if failure is None:
        return None
    return pb.Failure(
        code=failure.code, reason=failure.reason, message=failure.message, step=failure.step
    )


def condition_message(condition: Condition) -> pb.ParticipantCondition:
    """How a participant does."""
    return pb.ParticipantCondition(
        participant=condition.participant,
        circuit=pb.CIRCUIT_STATE_OPEN if condition.open else pb.CIRCUIT_STATE_CLOSED,
        since_time=_time(condition.since_ms),
        waiting_calls=condition.waiting,
        calls_in_flight=condition.in_flight,
        failure=failure_message(condition.failure),
    )


def version_message(version: CompiledDefinition) -> pb.DefinitionVersion:
    """One version of a definition."""
    return pb.DefinitionVersion(
        name=version.name,
        definition_hash=version.hash,
        source=version.source,
        definition=pb.Definition.FromString(version.message),
        create_time=_time(version.created_ms),
    )


def problem_message(problem: DefinitionProblem) -> pb.DefinitionError:
    """One thing that is wrong with a definition."""
    return pb.DefinitionError(
        line=problem.line,
        column=problem.column,
        path=problem.path,
        reason=problem.reason,
        message=problem.message,
        excerpt=problem.excerpt,
    )


def warning_message(warning: DefinitionWarning) -> pb.DefinitionWarning:
    """One thing that is allowed but probably not meant."""
    return pb.DefinitionWarning(
        line=warning.line, column=warning.column, path=warning.path, message=warning.message
    )


def _time(time_ms: int) -> Timestamp | None:
    """Milliseconds since the epoch as a timestamp; 0 stays unset."""
    if not time_ms:
        return None
    return Timestamp(seconds=time_ms // 1_000, nanos=time_ms % 1_000 * 1_000_000)
