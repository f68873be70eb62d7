"""What a stream tells of starts: each once it is on disk, or refused as StartSaga would."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2

from coordinator.core.model import SagaState
from mesh.errors import MeshError, to_status
from protos.saga.v1 import saga_pb2 as pb
from tests.builders import definition
from tests.unit.api.desk import Desk, caller, compiled
from tests.unit.api.start_sagas.client import COMPLETED, RUNNING, Client, Connect, reason_of, start
from tests.unit.engine.world import World


async def test_a_start_is_told_once_it_is_on_disk(desk: Desk, client: Client) -> None:
    desk.coordinator.journal.hold()
    client.send(start("saga-1"), start("saga-2"))
    client.send(start("saga-3"))
    await asyncio.sleep(1)
    assert client.reports == []
    desk.coordinator.journal.let_go()
    assert await client.hears(3) == [(f"saga-{number}", RUNNING) for number in (1, 2, 3)]
    assert sorted(await desk.list_ids()) == ["saga-1", "saga-2", "saga-3"]


async def test_what_is_ready_together_is_told_together_and_meanwhile_gathers(
    desk: Desk, client: Client
) -> None:
    client.reads.clear()
    client.send(start("saga-1"))
    await desk.coordinator.sent("DO a 1")
    client.send(*(start(f"saga-{number}") for number in range(2, 40)))
    await asyncio.sleep(1)
    client.reads.set()
    await client.hears(39)
    assert [len(message.reports) for message in client.told] == [1, 38]


async def test_a_version_that_is_not_at_hand_is_asked_for(desk: Desk, client: Client) -> None:
    desk.definitions.forgetful = True
    client.send(start("saga-1"), start("saga-2"))
    assert sorted(await client.hears(2)) == [("saga-1", RUNNING), ("saga-2", RUNNING)]


async def test_a_saga_that_exists_is_told_as_it_is(desk: Desk, client: Client) -> None:
    await desk.start("saga-1")
    await desk.coordinator.answer("DO a 1")
    await desk.coordinator.answer("DO b 1")
    await desk.world.until(SagaState.COMPLETED)
    await desk.start("saga-2")
    client.send(start("saga-1", wait=True), start("saga-2"))
    assert sorted(await client.hears(2)) == [("saga-1", COMPLETED), ("saga-2", RUNNING)]
    client.half_close()
    await client.stream
    assert len(client.reports) == 2


async def test_one_id_twice_in_a_stream_is_one_saga_told_twice(desk: Desk, client: Client) -> None:
    client.send(start("saga-1"), start("saga-1"), start("saga-1", "other"))
    await client.hears(3)
    assert Counter(client.reports) == {("saga-1", RUNNING): 2, ("saga-1", 0): 1}
    assert await desk.list_ids() == ["saga-1"]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (start("no id!", definition="No Name", definition_hash="12"), "INVALID_REQUEST"),
        (start("saga-9", definition="unheard-of"), "DEFINITION_NOT_FOUND"),
        (start("saga-9", definition_hash="0" * 64), "DEFINITION_NOT_FOUND"),
        (start("saga-9", input=any_pb2.Any(type_url="x/x.Y")), "INPUT_TYPE_MISMATCH"),
        (start("saga-9", "x" * 300_000), "INVALID_REQUEST"),
        (start("saga-9", definition="broken"), "REQUEST_NOT_BUILDABLE"),
        (start("saga-1", "other"), "SAGA_ID_REUSED"),
    ],
)
async def test_a_refusal_is_what_start_saga_answers(
    desk: Desk, client: Client, request_: pb.StartSagaRequest, reason: str
) -> None:
    desk.know(compiled("broken", story=definition("a", broken=frozenset({"a"}))))
    await desk.start("saga-1")
    with pytest.raises(MeshError) as refusal:
        await desk.sagas.StartSaga(request_, caller())
    client.send(request_, start("saga-2"))
    while len(client.reports) < 2:
        await asyncio.sleep(0.001)
    (refused,) = [it for message in client.told for it in message.reports if not it.state]
    assert reason_of(refused) == reason
    assert refused.saga_id == request_.saga_id
    assert refused.refusal == to_status(refusal.value, domain="saga.v1")
    assert sorted(await desk.list_ids()) == ["saga-1", "saga-2"]


async def test_a_bug_that_one_start_meets_is_its_answer_and_the_stream_goes_on(
    desk: Desk, client: Client
) -> None:
    def fail(_: bytes) -> dict[str, str]:
        raise ZeroDivisionError

    desk.know(replace(compiled("buggy"), keys_of=fail))
    client.send(start("saga-1", definition="buggy"), start("saga-2"))
    client.half_close()
    async with asyncio.timeout(10):
        await client.stream

    assert Counter(client.reports) == {("saga-1", 0): 1, ("saga-2", RUNNING): 1}


async def test_a_saga_without_an_id_is_refused(client: Client) -> None:
    client.send(start(""))
    violations = error_details_pb2.BadRequest()
    assert (await client.refusal()).refusal.details[1].Unpack(violations)
    assert [it.field for it in violations.field_violations] == ["saga_id"]


@pytest.mark.parametrize("why", ["OVERLOADED", "DRAINING", "JOURNAL_UNAVAILABLE"])
async def test_what_cannot_be_taken_now_says_when_to_ask_again(
    connect: Connect, desk: Desk, world: World, why: str
) -> None:
    if why == "OVERLOADED":
        desk = Desk(world, await world.coordinator("full", max_sagas=0), desk.definitions)
    elif why == "DRAINING":
        await desk.coordinator.engine.drain()
    else:
        desk.coordinator.journal.cut()
    client = connect(desk)
    client.send(start())
    refused, delay = await client.refusal(), error_details_pb2.RetryInfo()
    assert reason_of(refused) == why
    assert refused.refusal.details[1].Unpack(delay)
    assert delay.retry_delay.ToMilliseconds() > 0
    client.half_close()
    await client.stream


async def test_a_start_that_takes_too_long_is_told_as_not_known(desk: Desk, client: Client) -> None:
    desk.coordinator.journal.hold()
    client.send(start())
    assert reason_of(await client.refusal()) == "JOURNAL_UNAVAILABLE"
    desk.coordinator.journal.let_go()
    await desk.coordinator.sent("DO a 1")
    client.send(start())
    assert (await client.hears(2))[1] == ("saga-1", RUNNING)
