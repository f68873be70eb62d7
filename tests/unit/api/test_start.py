from __future__ import annotations

import asyncio
import gc

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.wrappers_pb2 import Int64Value
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from coordinator.core.model import SagaState
from mesh.errors import AlreadyExists, InvalidRequest, NotFound, Overloaded, Retry
from protos.saga.v1 import saga_pb2 as pb
from tests.builders import definition
from tests.unit.api.desk import Desk, KnownDefinitions, caller, compiled, text
from tests.unit.engine.world import World


async def test_a_started_saga_is_on_disk_when_it_is_answered(desk: Desk) -> None:
    saga = await desk.start()
    assert (saga.saga_id, saga.definition, saga.state) == (
        "saga-1",
        "story",
        pb.SAGA_STATE_RUNNING,
    )
    stored = await desk.world.saga()
    assert stored.revision == saga.revision == 1
    assert stored.keys == {"text": "in"}


async def test_a_saga_without_an_id_gets_a_new_one_each_time(desk: Desk) -> None:
    assert (await desk.start("")).saga_id == "made-1"
    assert (await desk.start("")).saga_id == "made-2"


async def test_the_same_request_again_is_the_same_saga_even_when_it_has_ended(desk: Desk) -> None:
    await desk.start()
    again = await desk.start()
    assert (again.saga_id, again.revision) == ("saga-1", 1)
    await desk.coordinator.answer("DO a 1")
    await desk.coordinator.answer("DO b 1")
    await desk.world.until(SagaState.COMPLETED)
    assert (await desk.start()).state == pb.SAGA_STATE_COMPLETED
    assert await desk.list_ids() == ["saga-1"]


async def test_the_same_request_is_the_same_saga_after_a_newer_version(desk: Desk) -> None:
    first = await desk.start()
    newer = desk.know(compiled("story", "c", revision=2))
    again = await desk.start()
    assert again.definition_hash == first.definition_hash != newer.hash
    assert (await desk.start("saga-2")).definition_hash == newer.hash


async def test_a_newer_version_that_takes_other_input_does_not_lose_the_saga(desk: Desk) -> None:
    await desk.start()
    broken = definition("a", broken=frozenset({"a"}))
    desk.know(compiled("story", revision=2, story=broken))
    assert (await desk.start()).saga_id == "saga-1"
    with pytest.raises(InvalidRequest) as refusal:
        await desk.start("saga-2")
    assert refusal.value.reason == "REQUEST_NOT_BUILDABLE"


async def test_two_at_once_are_one_saga(desk: Desk) -> None:
    one, two = await asyncio.gather(desk.start(), desk.start())
    assert one.saga_id == two.saga_id
    assert (await desk.coordinator.sent("DO a 1")).attempt.saga_id == "saga-1"
    assert desk.coordinator.participants.waiting == 0


async def test_two_instances_at_once_start_one_saga(world: World, desk: Desk) -> None:
    other = Desk(world, await world.coordinator("two"), desk.definitions)
    one, two = await asyncio.gather(desk.start(), other.start())
    assert one.create_time == two.create_time
    assert await desk.list_ids() == ["saga-1"]


@pytest.mark.parametrize("difference", ["input", "definition", "definition_hash", "type"])
async def test_the_same_id_for_something_else_is_refused(desk: Desk, difference: str) -> None:
    await desk.start()
    desk.know(compiled("other", "a"))
    newer = desk.know(compiled("story", "c", revision=2))
    request = pb.StartSagaRequest(saga_id="saga-1", definition="story", input=text())
    if difference == "input":
        request.input.CopyFrom(text("other"))
    elif difference == "definition":
        request.definition = "other"
    elif difference == "definition_hash":
        request.definition_hash = newer.hash
    else:
        request.input.Pack(Int64Value(value=1))
    with pytest.raises(AlreadyExists) as refusal:
        await desk.sagas.StartSaga(request, caller())
    assert refusal.value.reason == "SAGA_ID_REUSED"
    assert refusal.value.metadata == {"saga_id": "saga-1"}
    assert (await desk.get()).revision == 1


async def test_an_older_version_is_run_when_it_is_asked_for(desk: Desk) -> None:
    (older,) = desk.definitions.versions
    desk.know(compiled("story", "c", revision=2))
    request = pb.StartSagaRequest(
        saga_id="saga-1", definition="story", definition_hash=older.hash, input=text()
    )
    response = await desk.sagas.StartSaga(request, caller())
    assert response.saga.definition_hash == older.hash
    assert [step.name for step in response.saga.steps] == ["a", "b"]


async def test_a_hash_of_another_definition_is_unknown(desk: Desk) -> None:
    other = desk.know(compiled("other", "a"))
    request = pb.StartSagaRequest(definition="story", definition_hash=other.hash, input=text())
    with pytest.raises(NotFound) as refusal:
        await desk.sagas.StartSaga(request, caller())
    assert refusal.value.reason == "DEFINITION_NOT_FOUND"
    assert await desk.list_ids() == []


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (
            Any(type_url="type.googleapis.com/google.protobuf.StringValue", value=b"\xff"),
            "INPUT_MALFORMED",
        ),
        (Any(type_url="type.googleapis.com/google.protobuf.Empty"), "INPUT_TYPE_MISMATCH"),
        (Any(value=b"\n\x02in"), "INPUT_TYPE_MISMATCH"),
    ],
)
async def test_input_that_does_not_fit_starts_nothing(desk: Desk, given: Any, reason: str) -> None:
    request = pb.StartSagaRequest(saga_id="saga-1", definition="story", input=given)
    with pytest.raises(InvalidRequest) as refusal:
        await desk.sagas.StartSaga(request, caller())
    assert refusal.value.reason == reason
    assert [violation.field for violation in refusal.value.violations] == ["input"]
    assert await desk.list_ids() == []


async def test_everything_wrong_with_a_request_is_said_at_once(desk: Desk) -> None:
    request = pb.StartSagaRequest(
        saga_id="no id!", definition="No Name", definition_hash="12", input=text("x" * 300_000)
    )
    with pytest.raises(InvalidRequest) as refusal:
        await desk.sagas.StartSaga(request, caller())
    fields = [violation.field for violation in refusal.value.violations]
    assert fields == ["saga_id", "definition", "definition_hash", "input"]
    assert "x" * 10 not in refusal.value.message


async def test_a_journal_that_is_away_is_worth_a_retry(desk: Desk) -> None:
    desk.coordinator.journal.cut()
    with pytest.raises(Retry) as refusal:
        await desk.start()
    assert refusal.value.reason == "JOURNAL_UNAVAILABLE"


async def test_a_coordinator_that_drains_takes_nothing_new(desk: Desk) -> None:
    await desk.coordinator.engine.drain()
    with pytest.raises(Retry) as refusal:
        await desk.start()
    assert refusal.value.reason == "DRAINING"


async def test_a_full_coordinator_says_so(world: World) -> None:
    desk = Desk(world, await world.coordinator(max_sagas=1), KnownDefinitions())
    desk.know(compiled("story", "a"))
    await desk.start("saga-1")
    with pytest.raises(Overloaded) as refusal:
        await desk.start("saga-2")
    assert refusal.value.reason == "OVERLOADED"
    assert await desk.list_ids() == ["saga-1"]


async def test_a_client_that_goes_away_does_not_stop_its_saga(desk: Desk) -> None:
    desk.coordinator.journal.hold()
    started = asyncio.create_task(desk.start())
    await asyncio.sleep(0.1)
    started.cancel()
    with pytest.raises(asyncio.CancelledError):
        await started
    desk.coordinator.journal.let_go()
    await desk.coordinator.answer("DO a 1")
    await desk.coordinator.answer("DO b 1")
    await desk.world.until(SagaState.COMPLETED)


async def test_a_start_that_fails_when_its_client_has_gone_is_no_error_of_ours(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.coordinator.journal.hold()
    started = asyncio.create_task(desk.start())
    await asyncio.sleep(0.1)
    started.cancel()
    with pytest.raises(asyncio.CancelledError):
        await started
    await asyncio.sleep(6)  # past the time that a start may wait for the disk
    gc.collect()  # asyncio tells of unheard exceptions when it forgets their tasks
    assert not caplog.records


async def test_the_span_of_the_start_is_the_trace_of_the_saga(desk: Desk) -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("StartSaga") as span:
        await desk.start()
    started = span.get_span_context()
    trace_id = trace.format_trace_id(started.trace_id)
    span_id = trace.format_span_id(started.span_id)
    assert (await desk.world.saga()).traceparent.startswith(f"00-{trace_id}-{span_id}-")


async def test_a_start_without_a_trace_is_not_traced(desk: Desk) -> None:
    await desk.start()
    assert (await desk.world.saga()).traceparent == ""
