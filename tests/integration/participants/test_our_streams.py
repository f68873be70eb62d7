"""The coordinator and our own server: an answer is the same by both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from msgspec.structs import replace

from coordinator.core.model import Direction
from coordinator.participants.base import Attempt, Contract, Done, Failed
from coordinator.participants.grpc import GrpcParticipants
from coordinator.participants.reflection import ReflectedContracts
from mesh.server import Server
from mesh.settings import ServiceSettings
from protos.inventory.v1 import inventory_pb2
from tests.integration.mesh.step_stream.service import REFUSALS, Step
from tests.integration.participants.participant import DO, ask, until_streamed

Ways = tuple[GrpcParticipants, GrpcParticipants]


@pytest_asyncio.fixture
async def ways() -> AsyncIterator[Ways]:
    """Calls by themselves, and on a stream that was found by reflection."""
    settings = ServiceSettings(grpc_host="127.0.0.1", grpc_port=0, shutdown_grace_seconds=0)
    server = Server(settings)
    server.add_step(Step())
    await server.start()
    targets = {"inventory": f"127.0.0.1:{server.port}"}
    alone, streamed = GrpcParticipants(targets, streams=False), GrpcParticipants(targets)
    heard = await ReflectedContracts(targets).fetch()
    for participants in (alone, streamed):
        participants.route(answer for answer in heard if isinstance(answer, Contract))
    await until_streamed(streamed)
    yield alone, streamed
    await alone.close()
    await streamed.close()
    await server.stop()


def attempt(order_id: str, direction: Direction) -> Attempt:
    request = inventory_pb2.ReserveStockRequest(order_id=order_id)
    undone = inventory_pb2.ReserveStockCompensation(request=request)
    return replace(
        DO,
        service="inventory.v1.ReserveStock",
        step="reserve_stock",
        direction=direction,
        request=(request if direction is Direction.DO else undone).SerializeToString(),
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
    )


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("order_id", [*REFUSALS, "fail", "fine"])
async def test_an_answer_is_the_same_by_both_ways(
    ways: Ways, order_id: str, direction: Direction
) -> None:
    alone, streamed = [await ask(way, attempt(order_id, direction)) for way in ways]
    assert alone == streamed
    assert isinstance(alone, Done if order_id == "fine" else Failed)
    assert ways[1].ways[0].streamed == 1


async def test_a_request_that_cannot_be_read_is_refused_alike(ways: Ways) -> None:
    unreadable = replace(attempt("fine", Direction.DO), request=b"\xff\xff")
    alone, streamed = [await ask(way, unreadable) for way in ways]
    assert alone == streamed


async def test_a_call_whose_time_is_up_is_answered_alike(ways: Ways) -> None:
    short = replace(attempt("wait", Direction.DO), timeout_ms=50)
    alone, streamed = [await ask(way, short) for way in ways]
    assert alone == streamed
