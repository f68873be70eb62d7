"""Everything the coordinator's API says no with.

What is wrong with a request in itself is in `validate.py`; here is what stands against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from typing_extensions import override

from coordinator.core.model import RequestNotBuildable
from coordinator.core.saga import Saga
from coordinator.core.transitions import LEGAL_VERBS
from coordinator.definitions.base import DefinitionProblem, DefinitionRefused, InputRefused
from coordinator.engine.errors import Draining
from coordinator.engine.errors import Overloaded as EngineOverloaded
from coordinator.journal.base import (
    JournalBusy,
    JournalUnavailable,
    RevisionConflict,
    UnreadableHistory,
)
from coordinator.journal.verbs import VerbKind
from mesh.errors import (
    AlreadyExists,
    FieldViolation,
    InvalidRequest,
    MeshError,
    NotFound,
    NotNow,
    Overloaded,
    RecordMissing,
    Retry,
)

RPCS = {
    VerbKind.CANCEL: "CancelSaga",
    VerbKind.RETRY: "RetrySaga",
    VerbKind.SKIP: "SkipStep",
    VerbKind.ABANDON: "AbandonSaga",
}

_TRANSLATED = (
    JournalUnavailable,
    RevisionConflict,
    Draining,
    EngineOverloaded,
    InputRefused,
    RequestNotBuildable,
    DefinitionRefused,
    UnreadableHistory,
)
_ROOM_FOR_PROBLEMS = 2_400
"""Bytes of violations that surely fit into the details of an answer."""


class DefinitionNotRunnable(MeshError):
    """A stored definition does not compile in this release."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class HistoryNotReadable(MeshError):
    """A stored history that this release cannot read."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class SagaChanged(MeshError):
    """A verb was for a saga as it is no more."""

    code = grpc.StatusCode.FAILED_PRECONDITION

    @override
    def details(self) -> Iterable[Message]:
        """One `PreconditionFailure`."""
        subject = f"revision {self.metadata['revision']}"
        expected = f"revision {self.metadata['expected_revision']} was expected; look again"
        violation = error_details_pb2.PreconditionFailure.Violation(
            type="REVISION", subject=subject, description=expected
        )
        yield error_details_pb2.PreconditionFailure(violations=[violation])


@contextmanager
def translated() -> Iterator[None]:
    """Turn what journal, engine and definitions refuse with into what a client understands."""
    try:
        yield
    except _TRANSLATED as error:
        raise in_words(error) from None


def in_words(error: Exception) -> Exception:
    """What a client understands of an error; the error itself when nobody is meant to."""
    match error:
        case JournalBusy():
            words = "every session for reading the coordinator's database is taken; ask later"
            error = Overloaded("JOURNAL_BUSY", words)
        case JournalUnavailable():
            words = "the coordinator's database is away; asking again is safe"
            error = Retry("JOURNAL_UNAVAILABLE", words)
        case RevisionConflict():
            error = Retry("SAGA_CONTENDED", "the saga is being started elsewhere; ask again")
        case Draining():
            error = Retry("DRAINING", "this coordinator is shutting down; ask again")
        case EngineOverloaded():
            error = Overloaded("OVERLOADED", str(error), retry_after_ms=error.retry_after_ms)
        case InputRefused():
            error = InvalidRequest([FieldViolation("input", error.message)], reason=error.reason)
        case RequestNotBuildable():
            violation = FieldViolation("input", str(error))
            error = InvalidRequest([violation], reason="REQUEST_NOT_BUILDABLE")
        case DefinitionRefused():
            words = f"stored by another release: {error.problems[0].message}"
            error = DefinitionNotRunnable("DEFINITION_NOT_RUNNABLE", words)
        case UnreadableHistory():
            words = f"stored by a newer release, or damaged: {error}"
            error = HistoryNotReadable("HISTORY_NOT_READABLE", words)
    return error


def saga_not_found(saga_id: str) -> NotFound:
    """There is no such saga."""
    return NotFound(
        "SAGA_NOT_FOUND",
        f"there is no saga {saga_id}",
        resource_type="saga.v1.Saga",
        name=saga_id,
    )


def definition_not_found(name: str, content_hash: str) -> NotFound:
    """There is no such definition, or it has no such version."""
    version = f" with hash {content_hash}" if content_hash else ""
    refusal = NotFound(
        "DEFINITION_NOT_FOUND",
        f"there is no definition {name}{version}",
        resource_type="saga.v1.Definition",
        name=name,
    )
    refusal.metadata["definition_hash"] = content_hash
    return refusal


def definition_missing(saga_id: str, content_hash: str) -> RecordMissing:
    """The version that a saga is pinned to is not in the store."""
    return RecordMissing(
        "DEFINITION_MISSING",
        f"saga {saga_id} is pinned to definition {content_hash}, which is not stored",
        metadata={"saga_id": saga_id, "definition_hash": content_hash},
    )


def saga_id_reused(saga_id: str) -> AlreadyExists:
    """The saga that exists runs another definition or was given another input."""
    return AlreadyExists(
        "SAGA_ID_REUSED",
        f"saga {saga_id} exists with another definition or another input",
        metadata={"saga_id": saga_id},
    )


def request_id_reused(request_id: str) -> AlreadyExists:
    """The request id belongs to another verb."""
    return AlreadyExists(
        "REQUEST_ID_REUSED",
        f"request_id {request_id} was used for something else",
        metadata={"request_id": request_id},
    )


def verb_not_legal(kind: VerbKind, saga: Saga, explanation: str = "") -> NotNow:
    """The verb is not legal now; says in which states it is."""
    why = explanation or f"{RPCS[kind]} is not legal for a saga that {_standing(kind, saga)}"
    allowed = [s.value for s, verbs in LEGAL_VERBS.items() if kind.value in verbs]
    refusal = NotNow("VERB_NOT_LEGAL", why, state=saga.state.value, allowed=allowed)
    refusal.metadata["verb"] = RPCS[kind]
    return refusal


def _standing(kind: VerbKind, saga: Saga) -> str:
    """What keeps a verb from being legal: the state, or else the direction."""
    if kind.value not in LEGAL_VERBS[saga.state]:
        return f"is {saga.state.value}"
    return "was not aborted" if saga.failure is None else "was aborted already"


def saga_changed(saga: Saga, expected_revision: int) -> SagaChanged:
    """The saga has another revision than the verb is for."""
    state, revision = saga.state.value, str(saga.revision)
    return SagaChanged(
        "SAGA_CHANGED",
        f"saga {saga.saga_id} is {state} at revision {revision} and not at"
        f" {expected_revision} any more; look again and decide again",
        metadata={
            "saga_id": saga.saga_id,
            "state": state,
            "revision": revision,
            "expected_revision": str(expected_revision),
        },
    )


def no_saga_matches(definition: str) -> NotFound:
    """A filter finds nothing; whatever was to happen to what it finds has not happened."""
    return NotFound(
        "NO_SAGA_MATCHES",
        "no saga matches the filter; nothing was changed",
        resource_type="saga.v1.Saga",
        name=definition,
    )


def verb_pending(request_id: str) -> Retry:
    """The saga's owner has not decided yet."""
    return Retry(
        "VERB_PENDING",
        f"it is posted, and the saga's owner has not decided yet; ask again as {request_id}",
        metadata={"request_id": request_id},
    )


def step_not_found(steps: Sequence[str]) -> InvalidRequest:
    """The saga's definition has no such step."""
    expected = f"must be one of {', '.join(steps)}"
    return InvalidRequest([FieldViolation("step", expected)], reason="STEP_NOT_FOUND")


def definition_invalid(problems: Sequence[DefinitionProblem]) -> InvalidRequest:
    """A definition that cannot be registered, with as many problems as fit an answer."""
    violations: list[FieldViolation] = []
    room = _ROOM_FOR_PROBLEMS
    for problem in problems:
        violation = _violation(problem)
        room -= len(violation.description.encode())
        if room < 0 and violations:
            left = len(problems) - len(violations)
            violations.append(FieldViolation("source", f"{left} more, see ValidateDefinition"))
            break
        violations.append(violation)
    return InvalidRequest(violations, reason="DEFINITION_INVALID")


def _violation(problem: DefinitionProblem) -> FieldViolation:
    place = f"line {problem.line}, column {problem.column}"
    text = f"{place}: {problem.reason}: {problem.message}\n{problem.excerpt}"
    return FieldViolation(problem.path or "source", text[:1_000])
