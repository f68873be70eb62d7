"""How a stream ends, and what it tells before."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.core.model import SagaState
from mesh.errors import InvalidRequest, Retry
from tests.unit.api.desk import Desk
from tests.unit.api.start_sagas.client import RUNNING, Client, Connect, start


async def test_a_stream_that_asks_for_nothing_ends_at_once(client: Client) -> None:
    client.send()
    client.half_close()
    await client.stream
    assert client.told == []


async def test_too_many_sagas_in_one_message_end_the_stream(desk: Desk, client: Client) -> None:
    desk.coordinator.journal.hold()
    client.send(start("saga-1", wait=True))
    client.send(*(start(f"many-{number}") for number in range(1_001)))
    await asyncio.sleep(0.1)
    desk.coordinator.journal.let_go()
    with pytest.raises(InvalidRequest) as refusal:
        await client.stream
    assert [violation.field for violation in refusal.value.violations] == ["sagas"]
    assert client.reports == [("saga-1", RUNNING)]
    assert await desk.list_ids() == ["saga-1"]


async def test_garbage_ends_the_stream_after_what_was_begun_is_told(
    desk: Desk, client: Client
) -> None:
    client.send(start("saga-1", wait=True))
    client.send_garbage()
    with pytest.raises(InvalidRequest) as refusal:
        await client.stream
    assert refusal.value.reason == "REQUEST_UNREADABLE"
    assert client.reports == [("saga-1", RUNNING)]
    assert len(desk.coordinator.engine.ends) == 0


@pytest.mark.parametrize("half_closed", [False, True])
async def test_a_drain_ends_the_stream_once_it_has_told_what_is_on_disk(
    connect: Connect, desk: Desk, client: Client, *, half_closed: bool
) -> None:
    desk.coordinator.journal.hold()
    client.send(start("saga-1", wait=True))
    if half_closed:
        client.half_close()
    await asyncio.sleep(0.1)
    desk.sagas.drain()
    client.send(start("saga-2"))
    await asyncio.sleep(0.1)
    assert not client.stream.done()
    desk.coordinator.journal.let_go()
    with pytest.raises(Retry) as refusal:
        await client.stream
    assert refusal.value.reason == "DRAINING"
    assert client.reports == [("saga-1", RUNNING)]
    assert await desk.list_ids() == ["saga-1"]
    with pytest.raises(Retry):
        await connect(desk).stream


async def test_a_client_that_goes_away_leaves_its_sagas_running(desk: Desk, client: Client) -> None:
    desk.coordinator.journal.hold()
    client.send(start("saga-1", wait=True))
    await asyncio.sleep(0.1)
    client.stream.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client.stream
    desk.coordinator.journal.let_go()
    await desk.coordinator.answer("DO a 1")
    assert len(desk.coordinator.engine.ends) == 0
    await desk.coordinator.answer("DO b 1")
    await desk.world.until(SagaState.COMPLETED)
    assert client.told == []
