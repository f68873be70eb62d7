"""Operators' verbs on the wire: refused with exact words and nothing changed, at any instance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from copy import deepcopy
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from msgspec.structs import replace

from coordinator.api.validate import VerbRequest
from coordinator.core.model import FailureKind, RetryPolicy, SagaState
from coordinator.journal.base import StoredSaga
from protos.saga.v1 import saga_pb2 as pb
from tests.builders import definition
from tests.integration.api.counter import Counter, open_counter
from tests.refusals import refused
from tests.unit.api.desk import compiled, text
from tests.unit.engine.world import World, failed

ONCE = RetryPolicy(max_attempts=1)
VERBS: dict[str, VerbRequest] = {
    "CancelSaga": pb.CancelSagaRequest(saga_id="saga-1", reason="told to", actor="ann"),
    "RetrySaga": pb.RetrySagaRequest(saga_id="saga-1", reason="told to", actor="ann"),
    "SkipStep": pb.SkipStepRequest(saga_id="saga-1", step="a", reason="told to", actor="ann"),
    "AbandonSaga": pb.AbandonSagaRequest(saga_id="saga-1", reason="told to", actor="ann"),
}
STUCK = pb.SagaFilter(states=[pb.SAGA_STATE_STUCK])


@pytest.fixture
async def counter(counter: Counter) -> Counter:
    """It also knows `brittle`, whose first compensation that fails is the last."""
    steps = definition("a", "b").steps
    brittle = replace(
        definition("a", "b"), steps=tuple(replace(s, compensation_retry=ONCE) for s in steps)
    )
    counter.desk.know(compiled("brittle", story=brittle))
    return counter


@pytest.fixture
async def other(counter: Counter, world: World) -> AsyncIterator[Counter]:
    """A second coordinator on the same journal."""
    async with open_counter(world, "two", counter.desk.definitions) as other:
        yield other


async def stick(counter: Counter, saga_id: str = "saga-1") -> pb.Saga:
    """Bring a saga to STUCK: b was rejected, and a cannot be undone."""
    request = pb.StartSagaRequest(saga_id=saga_id, definition="brittle", input=text())
    await counter.sagas.StartSaga(request)
    await counter.desk.coordinator.answer("DO a 1")
    await counter.desk.coordinator.answer("DO b 1", failed(FailureKind.REJECTED))
    await counter.desk.coordinator.answer("COMPENSATE a 1", failed())
    await counter.desk.world.until(SagaState.STUCK, saga_id)
    return await get(counter, saga_id)


async def get(counter: Counter, saga_id: str = "saga-1") -> pb.Saga:
    saga: pb.Saga = (await counter.sagas.GetSaga(pb.GetSagaRequest(saga_id=saga_id))).saga
    return saga


async def in_journal(counter: Counter, *request_ids: str) -> list[object]:
    """All of the journal that a verb could change."""
    reader = counter.desk.world.reader
    stored: list[StoredSaga | None] = [await reader.load("saga-1")]
    return [*stored, *[await reader.verb_outcome(request_id) for request_id in request_ids]]


def steering(**changes: Any) -> pb.SteerSagasRequest:  # noqa: ANN401 - the message's fields
    by_default = {"verb": pb.SAGA_VERB_RETRY, "filter": STUCK, "reason": "told to", "actor": "ann"}
    return pb.SteerSagasRequest(request_id="batch-1", **{**by_default, **changes})


def changed(rpc: str, **changes: str | int) -> VerbRequest:
    request = deepcopy(VERBS[rpc])
    for name, value in changes.items():
        setattr(request, name, value)
    return request


async def ask(counter: Counter, rpc: str, request: Message) -> None:
    if rpc == "SteerSagas":
        await counter.sagas.SteerSagas(request).read()
    else:
        await getattr(counter.sagas, rpc)(request)


# --- bad input --------------------------------------------------------------------


@pytest.mark.parametrize("rpc", VERBS)
async def test_a_verb_on_a_finished_saga_is_refused_and_changes_nothing(
    counter: Counter, rpc: str
) -> None:
    request = pb.StartSagaRequest(saga_id="saga-1", definition="story", input=text())
    await counter.sagas.StartSaga(request)
    await counter.desk.coordinator.answer("DO a 1")
    await counter.desk.coordinator.answer("DO b 1")
    await counter.desk.world.until(SagaState.COMPLETED)
    before = await in_journal(counter)
    async with refused() as refusal:
        await ask(counter, rpc, VERBS[rpc])
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert (refusal.reason, refusal.domain) == ("VERB_NOT_LEGAL", "saga.v1")
    assert refusal.message == f"{rpc} is not legal for a saga that is COMPLETED"
    assert (refusal.metadata["state"], refusal.metadata["verb"]) == ("COMPLETED", rpc)
    allowed = "RUNNING, STUCK" if rpc == "CancelSaga" else "STUCK"
    assert refusal.preconditions == [f"allowed in: {allowed}"]
    assert await in_journal(counter) == before


@pytest.mark.parametrize("rpc", VERBS)
async def test_a_verb_for_another_revision_is_refused_and_changes_nothing(
    counter: Counter, rpc: str
) -> None:
    revision = (await stick(counter)).revision
    before = await in_journal(counter, "r-1")
    async with refused() as refusal:
        await ask(counter, rpc, changed(rpc, revision=revision - 1, request_id="r-1"))
    assert (refusal.code, refusal.reason, refusal.domain) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "SAGA_CHANGED",
        "saga.v1",
    )
    assert refusal.metadata == {
        "saga_id": "saga-1",
        "state": "STUCK",
        "revision": str(revision),
        "expected_revision": str(revision - 1),
    }
    assert refusal.preconditions == [f"revision {revision - 1} was expected; look again"]
    assert await in_journal(counter, "r-1") == before


MEGABYTE = "r" * 1_000_000
BAD_INPUT: list[tuple[str, Message, str, list[str]]] = [
    *(
        (rpc, changed(rpc, reason=reason), "INVALID_REQUEST", ["reason"])
        for rpc in VERBS
        for reason in ("", "  ", MEGABYTE)
    ),
    ("SkipStep", changed("SkipStep", step="unknown"), "STEP_NOT_FOUND", ["step"]),
    *(
        ("SteerSagas", request, "INVALID_REQUEST", [field])
        for request, field in (
            (steering(reason=""), "reason"),
            (steering(reason=MEGABYTE), "reason"),
            (steering(actor=""), "actor"),
            (steering(verb=0), "verb"),
            (steering(verb=99), "verb"),
            (steering(filter=pb.SagaFilter()), "filter"),
            (steering(filter={"states": [77]}), "filter.states[0]"),
            (steering(step="a"), "step"),
            (steering(verb=pb.SAGA_VERB_SKIP), "step"),
        )
    ),
]


@pytest.mark.parametrize(("rpc", "request_", "reason", "fields"), BAD_INPUT)
async def test_a_verb_that_makes_no_sense_is_refused_and_changes_nothing(
    counter: Counter, rpc: str, request_: Message, reason: str, fields: list[str]
) -> None:
    await stick(counter)
    before = await in_journal(counter, "batch-1/saga-1")
    async with refused() as refusal:
        await ask(counter, rpc, request_)
    assert (refusal.code, refusal.domain) == (grpc.StatusCode.INVALID_ARGUMENT, "saga.v1")
    assert (refusal.reason, refusal.fields) == (reason, fields)
    assert await in_journal(counter, "batch-1/saga-1") == before


@pytest.mark.parametrize(
    "request_",
    [
        steering(filter=pb.SagaFilter(definition="unheard-of")),
        steering(filter=pb.SagaFilter(keys={"text": "unheard of"})),
        steering(filter=pb.SagaFilter(definition="unheard-of"), dry_run=True),
    ],
)
async def test_a_filter_that_matches_nothing_is_told_so_and_changes_nothing(
    counter: Counter, request_: pb.SteerSagasRequest
) -> None:
    await stick(counter)
    before = await in_journal(counter, "batch-1/saga-1")
    async with refused() as refusal:
        await ask(counter, "SteerSagas", request_)
    assert (refusal.code, refusal.domain) == (grpc.StatusCode.NOT_FOUND, "saga.v1")
    assert refusal.reason == "NO_SAGA_MATCHES"
    assert await in_journal(counter, "batch-1/saga-1") == before


@pytest.mark.parametrize("rpc", ["RetrySaga", "SteerSagas"])
async def test_a_reason_over_four_mebibytes_is_refused_with_its_size(
    counter: Counter, rpc: str
) -> None:
    await stick(counter)
    before = await in_journal(counter)
    huge = "r" * (5 << 20)
    request = steering(reason=huge) if rpc == "SteerSagas" else changed(rpc, reason=huge)
    async with refused() as refusal:
        await ask(counter, rpc, request)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_TOO_LARGE")
    assert refusal.fields == ["request"]
    assert await in_journal(counter) == before


async def test_a_reason_that_grpc_itself_refuses_to_read_changes_nothing(
    counter: Counter,
) -> None:
    await stick(counter)
    before = await in_journal(counter)
    absurd = changed("RetrySaga", reason="r" * (17 << 20))
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await counter.sagas.RetrySaga(absurd)
    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in (refusal.value.details() or "")
    assert await in_journal(counter) == before


async def test_a_verb_that_there_is_not_is_unimplemented(counter: Counter) -> None:
    unheard = counter.channel.unary_unary("/saga.v1.SagaService/ForgetSaga", bytes, bytes)
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await unheard(b"")
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED


# --- any instance -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("rpc", "state"),
    [
        ("RetrySaga", pb.SAGA_STATE_COMPENSATING),
        ("SkipStep", pb.SAGA_STATE_COMPENSATED),
        ("AbandonSaga", pb.SAGA_STATE_ABANDONED),
        ("SteerSagas", pb.SAGA_STATE_COMPENSATING),
    ],
)
async def test_a_verb_asked_elsewhere_reaches_the_owner_and_is_kept_with_who_and_why(
    counter: Counter, other: Counter, rpc: str, state: pb.SagaState
) -> None:
    await stick(counter)
    await ask(other, rpc, steering() if rpc == "SteerSagas" else VERBS[rpc])
    assert (await get(other)).state == state
    history = await other.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id="saga-1"))
    (asked,) = [event for event in history.events if event.actor]
    assert (asked.actor, asked.note) == ("ann", "told to")


async def test_a_saga_is_watched_read_and_explained_where_it_does_not_run(
    counter: Counter, other: Counter
) -> None:
    stuck = await stick(counter)
    stream = other.sagas.WatchSaga(
        pb.WatchSagaRequest(saga_id="saga-1", after_revision=stuck.revision)
    )
    assert await get(other) == stuck
    answer = await other.sagas.ExplainSaga(pb.ExplainSagaRequest(saga_id="saga-1"))
    assert list(answer.legal_verbs) == ["RetrySaga", "SkipStep", "AbandonSaga"]
    await counter.sagas.AbandonSaga(VERBS["AbandonSaga"])
    (told,) = [response.event async for response in stream]
    assert (told.kind, told.actor) == (pb.SAGA_EVENT_KIND_ABANDONED, "ann")


async def test_of_two_operators_at_two_instances_one_wins(counter: Counter, other: Counter) -> None:
    await stick(counter)
    answers = await asyncio.gather(
        counter.sagas.SkipStep(VERBS["SkipStep"]),
        other.sagas.AbandonSaga(changed("AbandonSaga", request_id="bobs", actor="bob")),
        return_exceptions=True,
    )
    (lost,) = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert lost.code() is grpc.StatusCode.FAILED_PRECONDITION
    history = await counter.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id="saga-1"))
    assert len([event for event in history.events if event.actor]) == 1


# --- batches ----------------------------------------------------------------------


async def test_a_dry_run_leaves_no_trace_in_the_journal(counter: Counter) -> None:
    await stick(counter)
    before = await in_journal(counter, "batch-1/saga-1")
    told = [answer async for answer in counter.sagas.SteerSagas(steering(dry_run=True))]
    assert [(it.saga_id, it.result) for it in told] == [("saga-1", pb.STEER_RESULT_WOULD_ASK)]
    assert await in_journal(counter, "batch-1/saga-1") == before


async def test_a_batch_that_a_drain_cuts_short_goes_on_elsewhere(
    counter: Counter, other: Counter
) -> None:
    for number in range(3):
        await stick(counter, f"saga-{number}")
    counter.desk.coordinator.journal.hold()  # nothing is decided
    stream = counter.sagas.SteerSagas(steering())
    while await counter.desk.world.reader.verb_outcome("batch-1/saga-0") is None:
        await asyncio.sleep(0.01)
    await counter.server.stop()
    async with refused() as refusal:
        await stream.read()
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    counter.desk.coordinator.journal.let_go()
    for number in range(3):
        await counter.desk.world.until(SagaState.COMPENSATING, f"saga-{number}")
    async with refused() as nothing_left:
        await other.sagas.SteerSagas(steering()).read()
    assert nothing_left.reason == "NO_SAGA_MATCHES"


async def test_a_client_that_hangs_up_leaves_what_it_has_asked_to_be_decided(
    counter: Counter,
) -> None:
    await stick(counter)
    counter.desk.coordinator.journal.hold()
    stream = counter.sagas.SteerSagas(steering())
    while await counter.desk.world.reader.verb_outcome("batch-1/saga-1") is None:
        await asyncio.sleep(0.01)
    stream.cancel()
    counter.desk.coordinator.journal.let_go()
    await counter.desk.world.until(SagaState.COMPENSATING)
