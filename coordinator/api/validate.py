"""What is wrong with a request, all of it at once. Pure.

Violations say what is expected and never repeat what was sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeAlias

from coordinator.api import paging
from coordinator.journal.limits import MAX_REVISION, storable_text
from mesh.errors import FieldViolation
from mesh.step import SAGA_ID_PATTERN, SAGA_STEP_PATTERN
from mesh.validation import text_violations
from protos.saga.v1 import saga_pb2 as pb

MAX_INPUT_BYTES = 256 * 1024
MAX_SAGAS = 1_000
"""In one message of StartSagas."""
MAX_SOURCE_BYTES = 256 * 1024
MAX_REASON = 1_024
MAX_KEY = 1_024
MAX_BATCH_ID = 60
"""A saga's id is added to it, and what comes of it is a request id."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""They would steer the terminal of whoever reads the history; tabs and line ends may be."""
_HASH = re.compile(r"[0-9a-f]{64}")
_STATES = frozenset(pb.SagaState.values()) - {pb.SAGA_STATE_UNSPECIFIED}
_VERBS = tuple(verb for verb in pb.SagaVerb.values() if verb != pb.SAGA_VERB_UNSPECIFIED)

VerbRequest: TypeAlias = (
    pb.CancelSagaRequest | pb.RetrySagaRequest | pb.SkipStepRequest | pb.AbandonSagaRequest
)


def start_violations(request: pb.StartSagaRequest) -> Iterator[FieldViolation]:
    """Everything that keeps StartSaga from being tried."""
    if request.saga_id:
        yield from saga_id_violations(request.saga_id)
    yield from version_violations("definition", request.definition, request.definition_hash)
    if not request.HasField("input"):
        yield FieldViolation("input", "must be set, to the input that the definition takes")
    elif len(request.input.value) > MAX_INPUT_BYTES:
        yield FieldViolation("input", f"must have at most {MAX_INPUT_BYTES} bytes")


def start_many_violations(request: pb.StartSagasRequest) -> Iterator[FieldViolation]:
    """What keeps a message of StartSagas from being looked at."""
    if len(request.sagas) > MAX_SAGAS:
        yield FieldViolation("sagas", f"must be at most {MAX_SAGAS} in one message")


def start_one_of_many_violations(request: pb.StartSagaRequest) -> Iterator[FieldViolation]:
    """As `start_violations`, for a saga that is reported by its id."""
    if not request.saga_id:
        yield from saga_id_violations(request.saga_id)
    yield from start_violations(request)


def saga_id_violations(saga_id: str) -> Iterator[FieldViolation]:
    """What is wrong with the id of a saga."""
    if not SAGA_ID_PATTERN.fullmatch(saga_id):
        yield FieldViolation("saga_id", f"must match {SAGA_ID_PATTERN.pattern}")


def version_violations(field: str, name: str, content_hash: str) -> Iterator[FieldViolation]:
    """What is wrong with a definition's name (in `field`) and the hash of one of its versions."""
    yield from _name_violations(field, name)
    if content_hash and not _HASH.fullmatch(content_hash):
        yield FieldViolation("definition_hash", f"must match {_HASH.pattern}")


def _name_violations(field: str, name: str) -> Iterator[FieldViolation]:
    if not _NAME.fullmatch(name):
        yield FieldViolation(field, f"must match {_NAME.pattern}")


def list_sagas_violations(request: pb.ListSagasRequest) -> Iterator[FieldViolation]:
    """What keeps a page of sagas from being read."""
    yield from paging.page_violations(request, paging.SAGA_PLACE)
    yield from _filter_violations("", request)


def _filter_violations(
    place: str, sagas: pb.ListSagasRequest | pb.SagaFilter
) -> Iterator[FieldViolation]:
    if sagas.definition:
        yield from _name_violations(f"{place}definition", sagas.definition)
    for index, state in enumerate(sagas.states):
        if state not in _STATES:
            yield FieldViolation(f"{place}states[{index}]", "must be a state of a saga")
    for key, value in sagas.keys.items():
        if len(key) > MAX_KEY or len(value) > MAX_KEY or not storable_text(key, value):
            yield FieldViolation(f"{place}keys", f"must have at most {MAX_KEY} characters, no NUL")


def watch_violations(request: pb.WatchSagaRequest) -> Iterator[FieldViolation]:
    """What keeps a saga from being watched."""
    yield from saga_id_violations(request.saga_id)
    if not 0 <= request.after_revision <= MAX_REVISION:
        yield FieldViolation("after_revision", f"must be 0 to {MAX_REVISION}")


def list_events_violations(request: pb.ListSagaEventsRequest) -> Iterator[FieldViolation]:
    """What keeps a page of events from being read."""
    yield from saga_id_violations(request.saga_id)
    yield from paging.page_violations(request, paging.EVENT_PLACE)


def verb_violations(request: VerbRequest) -> Iterator[FieldViolation]:
    """What is wrong with what is asked of a saga; operators say who they are, clients may."""
    yield from saga_id_violations(request.saga_id)
    yield from _reason_violations(request.reason)
    if request.actor or not isinstance(request, pb.CancelSagaRequest):
        yield from text_violations("actor", request.actor)
    if request.request_id:
        yield from text_violations("request_id", request.request_id)
    if isinstance(request, pb.SkipStepRequest):
        yield from _step_violations(request.step)
    if not 0 <= request.revision <= MAX_REVISION:
        yield FieldViolation("revision", f"must be 0 to {MAX_REVISION}")


def steer_violations(request: pb.SteerSagasRequest) -> Iterator[FieldViolation]:
    """What is wrong with what is asked of many sagas."""
    if request.verb not in _VERBS:
        yield FieldViolation("verb", f"must be one of {', '.join(map(pb.SagaVerb.Name, _VERBS))}")
    if not (request.filter.definition or request.filter.states or request.filter.keys):
        yield FieldViolation("filter", "must have at least one condition")
    yield from _filter_violations("filter.", request.filter)
    if request.verb == pb.SAGA_VERB_SKIP:
        yield from _step_violations(request.step)
    elif request.step:
        yield FieldViolation("step", "must be empty: only SAGA_VERB_SKIP takes a step")
    yield from _reason_violations(request.reason)
    yield from text_violations("actor", request.actor)
    if len(request.request_id) > MAX_BATCH_ID or not request.request_id.isprintable():
        yield FieldViolation("request_id", f"must have at most {MAX_BATCH_ID} printable characters")


def _reason_violations(reason: str) -> Iterator[FieldViolation]:
    if not reason.strip() or len(reason) > MAX_REASON or _CONTROL.search(reason):
        yield FieldViolation(
            "reason", f"must have 1 to {MAX_REASON} characters, and no control characters"
        )


def _step_violations(step: str) -> Iterator[FieldViolation]:
    if not SAGA_STEP_PATTERN.fullmatch(step):
        yield FieldViolation("step", f"must match {SAGA_STEP_PATTERN.pattern}")


def list_definitions_violations(request: pb.ListDefinitionsRequest) -> Iterator[FieldViolation]:
    """What keeps a page of definitions from being read."""
    yield from paging.page_violations(request, paging.NAME_PLACE)


def source_violations(source: str) -> Iterator[FieldViolation]:
    """What is wrong with the text of a definition before it is read."""
    if not source.strip() or len(source.encode()) > MAX_SOURCE_BYTES:
        yield FieldViolation("source", f"must be YAML of 1 to {MAX_SOURCE_BYTES} bytes")
