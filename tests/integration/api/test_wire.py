"""What a client sees on the wire: codes, reasons, violations, streams."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from coordinator.core.model import SagaState
from protos.saga.v1 import saga_pb2 as pb
from tests.integration.api.counter import Counter, open_counter
from tests.refusals import refused
from tests.unit.api.desk import problem, text
from tests.unit.engine.world import World

START = pb.StartSagaRequest(saga_id="saga-1", definition="story", input=text())
STRING_VALUE = "type.googleapis.com/google.protobuf.StringValue"


async def call(counter: Counter, rpc: str, request: Message) -> None:
    stub = counter.definitions if "Definition" in rpc else counter.sagas
    if rpc == "WatchSaga":
        await stub.WatchSaga(request).read()
    else:
        await getattr(stub, rpc)(request)


async def everything(counter: Counter) -> list[Message]:
    """All that could have changed."""
    return [
        await counter.sagas.ListSagas(pb.ListSagasRequest()),
        await counter.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id="saga-1")),
        await counter.definitions.ListDefinitions(pb.ListDefinitionsRequest()),
    ]


BAD_INPUT = [
    # StartSaga
    ("StartSaga", pb.StartSagaRequest(), "INVALID_REQUEST", ["definition", "input"]),
    (
        "StartSaga",
        pb.StartSagaRequest(saga_id="-a", definition="story", input=text()),
        "INVALID_REQUEST",
        ["saga_id"],
    ),
    (
        "StartSaga",
        pb.StartSagaRequest(saga_id="a" * 65, definition="story", input=text()),
        "INVALID_REQUEST",
        ["saga_id"],
    ),
    (
        "StartSaga",
        pb.StartSagaRequest(definition="story", definition_hash="f00", input=text()),
        "INVALID_REQUEST",
        ["definition_hash"],
    ),
    (
        "StartSaga",
        pb.StartSagaRequest(definition="story", input=text("x" * 262_145)),
        "INVALID_REQUEST",
        ["input"],
    ),
    (
        "StartSaga",
        pb.StartSagaRequest(
            definition="story", input=Any(type_url="type.googleapis.com/saga.v1.Saga")
        ),
        "INPUT_TYPE_MISMATCH",
        ["input"],
    ),
    (
        "StartSaga",
        pb.StartSagaRequest(
            definition="story", input=Any(type_url=STRING_VALUE, value=b"\xff\xff")
        ),
        "INPUT_MALFORMED",
        ["input"],
    ),
    # looking
    ("GetSaga", pb.GetSagaRequest(), "INVALID_REQUEST", ["saga_id"]),
    ("GetSaga", pb.GetSagaRequest(saga_id="a/b"), "INVALID_REQUEST", ["saga_id"]),
    ("ExplainSaga", pb.ExplainSagaRequest(saga_id="\u00fc"), "INVALID_REQUEST", ["saga_id"]),
    ("WatchSaga", pb.WatchSagaRequest(), "INVALID_REQUEST", ["saga_id"]),
    (
        "WatchSaga",
        pb.WatchSagaRequest(saga_id="saga-1", after_revision=-1),
        "INVALID_REQUEST",
        ["after_revision"],
    ),
    ("ListSagas", pb.ListSagasRequest(page_token="x"), "INVALID_REQUEST", ["page_token"]),
    ("ListSagas", pb.ListSagasRequest(page_size=-1), "INVALID_REQUEST", ["page_size"]),
    (
        "ListSagaEvents",
        pb.ListSagaEventsRequest(saga_id="saga-1", page_token="x"),
        "INVALID_REQUEST",
        ["page_token"],
    ),
    # verbs
    (
        "CancelSaga",
        pb.CancelSagaRequest(saga_id="saga-1"),
        "INVALID_REQUEST",
        ["reason"],
    ),
    ("RetrySaga", pb.RetrySagaRequest(), "INVALID_REQUEST", ["saga_id", "reason", "actor"]),
    (
        "SkipStep",
        pb.SkipStepRequest(saga_id="saga-1", step="c", reason="r", actor="ann"),
        "STEP_NOT_FOUND",
        ["step"],
    ),
    (
        "AbandonSaga",
        pb.AbandonSagaRequest(saga_id="saga-1", reason="r" * 1_025, actor="ann"),
        "INVALID_REQUEST",
        ["reason"],
    ),
    # definitions
    ("RegisterDefinition", pb.RegisterDefinitionRequest(), "INVALID_REQUEST", ["source"]),
    ("ValidateDefinition", pb.ValidateDefinitionRequest(), "INVALID_REQUEST", ["source"]),
    ("GetDefinition", pb.GetDefinitionRequest(), "INVALID_REQUEST", ["name"]),
    (
        "ListDefinitions",
        pb.ListDefinitionsRequest(page_token="x"),
        "INVALID_REQUEST",
        ["page_token"],
    ),
]


@pytest.mark.parametrize(("rpc", "request_", "reason", "fields"), BAD_INPUT)
async def test_bad_input_is_refused_field_by_field_and_changes_nothing(
    counter: Counter, rpc: str, request_: Message, reason: str, fields: list[str]
) -> None:
    await counter.sagas.StartSaga(START)
    before = await everything(counter)
    async with refused() as refusal:
        await call(counter, rpc, request_)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert refusal.fields == fields
    assert refusal.domain == "saga.v1"
    assert await everything(counter) == before


@pytest.mark.parametrize(
    ("rpc", "request_", "reason"),
    [
        ("GetSaga", pb.GetSagaRequest(saga_id="saga-2"), "SAGA_NOT_FOUND"),
        ("ExplainSaga", pb.ExplainSagaRequest(saga_id="saga-2"), "SAGA_NOT_FOUND"),
        ("WatchSaga", pb.WatchSagaRequest(saga_id="saga-2"), "SAGA_NOT_FOUND"),
        ("ListSagaEvents", pb.ListSagaEventsRequest(saga_id="saga-2"), "SAGA_NOT_FOUND"),
        ("CancelSaga", pb.CancelSagaRequest(saga_id="saga-2", reason="r"), "SAGA_NOT_FOUND"),
        (
            "StartSaga",
            pb.StartSagaRequest(definition="unheard-of", input=text()),
            "DEFINITION_NOT_FOUND",
        ),
        ("GetDefinition", pb.GetDefinitionRequest(name="unheard-of"), "DEFINITION_NOT_FOUND"),
    ],
)
async def test_what_does_not_exist_is_not_found(
    counter: Counter, rpc: str, request_: Message, reason: str
) -> None:
    await counter.sagas.StartSaga(START)
    before = await everything(counter)
    async with refused() as refusal:
        await call(counter, rpc, request_)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, reason)
    assert await everything(counter) == before


async def test_an_id_that_is_used_up_is_refused(counter: Counter) -> None:
    await counter.sagas.StartSaga(START)
    before = await everything(counter)
    other = pb.StartSagaRequest(saga_id="saga-1", definition="story", input=text("other"))
    async with refused() as refusal:
        await counter.sagas.StartSaga(other)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "SAGA_ID_REUSED")
    assert await everything(counter) == before


async def test_a_request_of_absurd_size_never_reaches_the_coordinator(counter: Counter) -> None:
    huge = pb.StartSagaRequest(definition="story", input=text("x" * (5 << 20)))
    async with refused() as refusal:
        await counter.sagas.StartSaga(huge)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_TOO_LARGE")
    assert (await counter.sagas.ListSagas(pb.ListSagasRequest())).sagas == []


async def test_a_verb_out_of_place_says_where_the_saga_is_and_where_it_is_legal(
    counter: Counter,
) -> None:
    await counter.sagas.StartSaga(START)
    async with refused() as refusal:
        await counter.sagas.RetrySaga(
            pb.RetrySagaRequest(saga_id="saga-1", reason="r", actor="ann")
        )
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "VERB_NOT_LEGAL",
    )
    assert refusal.metadata["state"] == "RUNNING"
    assert refusal.preconditions == ["allowed in: STUCK"]


async def test_a_refused_definition_says_where_it_is_wrong(counter: Counter) -> None:
    counter.desk.definitions.refused = [problem(1), problem(2)]
    async with refused() as refusal:
        await counter.definitions.RegisterDefinition(pb.RegisterDefinitionRequest(source="name: x"))
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "DEFINITION_INVALID",
    )
    assert refusal.fields == ["steps[1].request", "steps[2].request"]


async def test_a_database_that_is_away_is_unavailable_and_says_when_to_ask_again(
    counter: Counter,
) -> None:
    await counter.sagas.StartSaga(START)
    counter.desk.coordinator.journal.cut()
    for rpc, request in (
        ("StartSaga", START),
        ("GetSaga", pb.GetSagaRequest(saga_id="saga-1")),
        ("ListSagas", pb.ListSagasRequest()),
        ("ListSagaEvents", pb.ListSagaEventsRequest(saga_id="saga-1")),
        ("WatchSaga", pb.WatchSagaRequest(saga_id="saga-1")),
        ("CancelSaga", pb.CancelSagaRequest(saga_id="saga-1", reason="r")),
    ):
        async with refused() as refusal:
            await call(counter, rpc, request)
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.UNAVAILABLE,
            "JOURNAL_UNAVAILABLE",
        )
        assert refusal.retry_after_ms


async def test_a_full_coordinator_says_when_to_come_back(counter: Counter) -> None:
    for number in range(20):
        await counter.sagas.StartSaga(
            pb.StartSagaRequest(saga_id=f"saga-{number}", definition="story", input=text())
        )
    async with refused() as refusal:
        await counter.sagas.StartSaga(pb.StartSagaRequest(definition="story", input=text()))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert refusal.retry_after_ms


async def test_a_client_that_hangs_up_leaves_its_saga_running(counter: Counter) -> None:
    journal = counter.desk.coordinator.journal
    journal.hold()
    starting = counter.sagas.StartSaga(START)
    while not counter.desk.coordinator.engine._starts:
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    journal.let_go()
    await counter.desk.coordinator.answer("DO a 1")
    await counter.desk.coordinator.answer("DO b 1")
    await counter.desk.world.until(SagaState.COMPLETED)


async def test_a_verb_answers_before_its_clients_deadline(counter: Counter) -> None:
    await counter.sagas.StartSaga(START)
    await counter.desk.coordinator.kill()
    async with refused() as refusal:
        await counter.sagas.CancelSaga(
            pb.CancelSagaRequest(saga_id="saga-1", reason="r"), timeout=0.5
        )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "VERB_PENDING")


async def test_the_trace_of_a_client_goes_on_in_its_saga(counter: Counter) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    metadata = (("traceparent", f"00-{trace_id}-b7ad6b7169203331-01"),)
    await counter.sagas.StartSaga(START, metadata=metadata)
    sent = await counter.desk.coordinator.sent("DO a 1")
    assert sent.attempt.traceparent.startswith(f"00-{trace_id}-")
    assert "b7ad6b7169203331" not in sent.attempt.traceparent
    assert sent.attempt.traceparent.endswith("-01")


# --- streams ----------------------------------------------------------------------


async def test_a_stream_tells_a_saga_to_its_end(counter: Counter) -> None:
    await counter.sagas.StartSaga(START)
    stream = counter.sagas.WatchSaga(pb.WatchSagaRequest(saga_id="saga-1"))
    told = aiter(stream)
    assert (await anext(told)).event.kind == pb.SAGA_EVENT_KIND_STARTED
    await counter.desk.coordinator.answer("DO a 1")
    assert (await anext(told)).event.step == "a"
    await counter.desk.coordinator.answer("DO b 1")
    assert (await anext(told)).event.state == pb.SAGA_STATE_COMPLETED
    assert [response async for response in told] == []
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_stream_of_a_server_that_drains_is_resumed_at_another(
    counter: Counter, world: World
) -> None:
    async with open_counter(world, "two", counter.desk.definitions) as other:
        await counter.sagas.StartSaga(START)
        stream = counter.sagas.WatchSaga(pb.WatchSagaRequest(saga_id="saga-1"))
        seen = (await stream.read()).event.revision
        await counter.server.stop()
        assert await stream.code() is grpc.StatusCode.UNAVAILABLE
        resumed = other.sagas.WatchSaga(pb.WatchSagaRequest(saga_id="saga-1", after_revision=seen))
        await counter.desk.coordinator.answer("DO a 1")
        await counter.desk.coordinator.answer("DO b 1")
        assert [response.event.revision async for response in resumed] == [2, 3]
