"""Several coordinators on one database: one dies, freezes, or goes, and its sagas run elsewhere.

A participant that is killed makes sagas wait; one that is paused holds their calls in the air.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, LiteralString

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf import any_pb2
from uuid_utils import uuid7

from local.mesh import Mesh
from local.ports import Ports
from local.sandbox import Sandbox
from local.scenarios import VISA
from local.shop import Shop, open_shop, order_request
from local.until import until
from mesh.errors import Refusal, read_refusal
from protos.order.v1 import order_pb2
from protos.saga.v1 import saga_pb2
from tests.chaos.stores import rows
from tests.e2e.receiver import SERVER, Receiver

FIRST, SECOND = "coordinator", "coordinator-2"
FIRST_INSTANCE, SECOND_INSTANCE = "coordinator-1", "coordinator-2"
LEASE_SECONDS = 3.0
CHARGE = "payment.v1.ChargePayment/Do"

PATIENT = """
name: patient-order
input: order.v1.PlaceOrderInput
steps:
- name: create_order
  service: order.v1.CreateOrder
  request: |
    order.v1.CreateOrderRequest{
      order_id: input.order_id, customer_id: input.customer_id, items: input.items}
  retry: {initial_interval: 8s, max_interval: 8s}
"""
"""An order that waits in memory when the order service is away, not long enough to be parked."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(new_folder: Callable[[], Path], receiver: Receiver) -> AsyncIterator[Mesh]:
    """A mesh with two coordinators."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        mesh = Mesh(new_folder(), Ports.free(), coordinators=2, lease_seconds=LEASE_SECONDS)
    async with mesh:
        async with open_shop(mesh.address) as shop:
            await shop.stock_up({"coffee": 100_000})
        yield mesh


@pytest_asyncio.fixture
async def shops(pair: Mesh) -> AsyncIterator[tuple[Shop, Shop]]:
    """The public API at the first coordinator and at the second, with everything up."""
    for process in pair.services.values():
        process.resume()
    fallen = (process.start() for process in pair.services.values() if process.pid is None)
    await asyncio.gather(*fallen)
    async with at_each(pair) as shops:
        yield shops


@asynccontextmanager
async def at_each(mesh: Mesh) -> AsyncIterator[tuple[Shop, Shop]]:
    def at(coordinator: str) -> Callable[[str], str]:
        return lambda name: mesh.address(coordinator if name == "coordinator" else name)

    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(open_shop(at(name))) for name in (FIRST, SECOND)
        ]
        yield first, second


def start_request(saga_id: str, definition: str = "place-order") -> saga_pb2.StartSagaRequest:
    order = order_request({"coffee": 1}, VISA)
    packed = any_pb2.Any()
    packed.Pack(
        order_pb2.PlaceOrderInput(
            order_id=str(uuid7()),
            customer_id=order.customer_id,
            items=order.items,
            payment_method=order.payment_method,
        )
    )
    return saga_pb2.StartSagaRequest(saga_id=saga_id, definition=definition, input=packed)


async def start(shop: Shop, count: int, definition: str = "place-order") -> list[str]:
    """Start so many sagas and return their ids."""
    saga_ids = [str(uuid7()) for _ in range(count)]
    at_once = asyncio.Semaphore(64)

    async def one(saga_id: str) -> None:
        async with at_once:
            await shop.sagas.StartSaga(start_request(saga_id, definition), timeout=30)

    await asyncio.gather(*(one(saga_id) for saga_id in saga_ids))
    return saga_ids


async def journal(mesh: Mesh, query: LiteralString, *arguments: object) -> list[dict[str, Any]]:
    return await rows(mesh.dsn("coordinator"), query, *arguments)


async def owners(mesh: Mesh, saga_ids: Sequence[str]) -> set[str]:
    query = "select distinct owner from saga.saga where saga_id = any(%s)"
    return {row["owner"] for row in await journal(mesh, query, list(saga_ids))}


def owned_by(mesh: Mesh, instance: str, saga_ids: Sequence[str]) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return await owners(mesh, saga_ids) == {instance}

    return check


async def states(mesh: Mesh, saga_ids: Sequence[str]) -> Counter[str]:
    query = "select state from saga.saga where saga_id = any(%s)"
    return Counter(row["state"] for row in await journal(mesh, query, list(saga_ids)))


async def wait_until_completed(mesh: Mesh, saga_ids: Sequence[str], seconds: float = 30) -> None:
    async def check() -> bool:
        return await states(mesh, saga_ids) == {"COMPLETED": len(saga_ids)}

    assert await until(check, seconds=seconds), await states(mesh, saga_ids)


async def wait_until_charging(mesh: Mesh, saga_ids: Sequence[str]) -> None:
    query = (
        "select count(*) from saga.saga_event"
        " where saga_id = any(%s) and kind = 'STEP_DONE' and step = 'reserve_stock'"
    )

    async def check() -> bool:
        return await journal(mesh, query, list(saga_ids)) == [{"count": len(saga_ids)}]

    assert await until(check, seconds=20)


async def epoch(mesh: Mesh, instance: str) -> int:
    query = "select epoch from saga.instance where instance_id = %s"
    found = await journal(mesh, query, instance)
    return int(found[0]["epoch"]) if found else 0


async def assert_done_once(mesh: Mesh, saga_ids: Sequence[str]) -> None:
    """Every effect is there, and each of them once, at the participants themselves."""
    charges = await Sandbox(mesh.sandbox_url).charges()
    paid = Counter(charge.saga_id for charge in charges if charge.captured)
    found = await rows(mesh.dsn("fulfillment"), "select saga_id from shipment")
    shipped = Counter(row["saga_id"] for row in found)
    assert {(paid[saga_id], shipped[saga_id]) for saga_id in saga_ids} == {(1, 1)}


async def test_sagas_of_a_killed_coordinator_run_elsewhere_within_five_seconds(
    pair: Mesh, shops: tuple[Shop, Shop]
) -> None:
    pair.services["payment"].pause()
    saga_ids = await start(shops[0], 30)
    await wait_until_charging(pair, saga_ids)
    await pair.services[FIRST].kill()
    assert await until(owned_by(pair, SECOND_INSTANCE, saga_ids), seconds=5)
    pair.services["payment"].resume()
    await wait_until_completed(pair, saga_ids)
    await assert_done_once(pair, saga_ids)


async def test_a_paused_coordinator_finds_itself_fenced_and_rejoins_with_a_new_epoch(
    pair: Mesh, shops: tuple[Shop, Shop], receiver: Receiver
) -> None:
    await pair.services["payment"].kill()  # so that the sagas are between two attempts
    saga_ids = await start(shops[0], 10)
    await wait_until_charging(pair, saga_ids)
    before = await epoch(pair, FIRST_INSTANCE)
    pair.services[FIRST].pause()
    assert await until(owned_by(pair, SECOND_INSTANCE, saga_ids), seconds=5)
    await pair.services["payment"].start()
    await wait_until_completed(pair, saga_ids)
    assert await until(charged_once(receiver, saga_ids), seconds=15)  # spans come in batches
    written = await history(pair, saga_ids)

    pair.services[FIRST].resume()

    async def rejoined() -> bool:
        return await epoch(pair, FIRST_INSTANCE) > before

    assert await until(rejoined, seconds=10)
    assert await shops[0].sagas.StartSaga(start_request("rejoined"), timeout=10)
    await wait_until_completed(pair, ["rejoined"])  # by now what was to be sent has been sent
    assert await until(charged_once(receiver, ["rejoined"]), seconds=15)
    assert await history(pair, saga_ids) == written
    assert charges_asked(receiver, saga_ids) == len(saga_ids)
    await assert_done_once(pair, saga_ids)


async def history(mesh: Mesh, saga_ids: Sequence[str]) -> list[dict[str, Any]]:
    query = "select * from saga.saga_event where saga_id = any(%s) order by saga_id, revision"
    return await journal(mesh, query, list(saga_ids))


def charges_asked(receiver: Receiver, saga_ids: Sequence[str]) -> int:
    """How often the payment service was called for these sagas."""
    spans = (span for saga_id in saga_ids for span in receiver.of_saga(saga_id))
    return sum((span.name, span.kind) == (CHARGE, SERVER) for span in spans)


def charged_once(receiver: Receiver, saga_ids: Sequence[str]) -> Callable[[], Awaitable[bool]]:
    """Whether the payment service has told of one call for each of these sagas."""

    async def told() -> bool:
        return charges_asked(receiver, saga_ids) == len(saga_ids)

    return told


async def test_a_coordinator_that_is_told_to_go_hands_its_sagas_over_at_once(
    pair: Mesh, shops: tuple[Shop, Shop]
) -> None:
    await pair.services["payment"].kill()
    saga_ids = await start(shops[0], 10)
    await wait_until_charging(pair, saga_ids)
    os.kill(pair.services[FIRST].pid or 0, signal.SIGTERM)
    assert await until(owned_by(pair, SECOND_INSTANCE, saga_ids), seconds=LEASE_SECONDS / 2)
    await pair.services["payment"].start()
    await wait_until_completed(pair, saga_ids)


async def test_a_saga_answers_at_every_instance(pair: Mesh, shops: tuple[Shop, Shop]) -> None:
    pair.services["payment"].pause()
    for here, there in (shops, reversed(shops)):
        (saga_id,) = await start(here, 1)
        await wait_until_charging(pair, [saga_id])
        again = await there.saga(saga_id)
        assert again == await here.saga(saga_id)
        assert again.state == saga_pb2.SAGA_STATE_RUNNING
        cancel = saga_pb2.CancelSagaRequest(saga_id=saga_id, reason="no", actor="ada")
        watching = asyncio.create_task(watched(there, saga_id))
        cancelled = await there.sagas.CancelSaga(cancel, timeout=10)
        assert cancelled.saga.state == saga_pb2.SAGA_STATE_COMPENSATING
        pair.services["payment"].resume()
        assert await watching == saga_pb2.SAGA_STATE_COMPENSATED
        pair.services["payment"].pause()


async def watched(shop: Shop, saga_id: str) -> int:
    """The state of the last event."""
    events = [event async for event in shop.watch(saga_id)]
    assert [event.revision for event in events] == list(range(1, len(events) + 1))
    return int(events[-1].state)


async def test_a_rolling_restart_under_load_loses_nothing_and_does_nothing_twice(
    pair: Mesh, shops: tuple[Shop, Shop]
) -> None:
    restarted, started, refusals = asyncio.Event(), list[str](), list[Refusal]()

    async def customer(shop: Shop) -> None:
        while not restarted.is_set():
            request = start_request(str(uuid7()))
            while not await is_started(shop, request, refusals):
                await asyncio.sleep((refusals[-1].retry_after_ms or 50) / 1_000)
            started.append(request.saga_id)
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as tasks:
        for shop in shops:
            tasks.create_task(customer(shop))
        for name in (FIRST, SECOND):
            await pair.services[name].stop()
            await pair.services[name].start()
        restarted.set()
    await wait_until_completed(pair, started)
    await assert_done_once(pair, started)
    assert {refusal.code for refusal in refusals} == {grpc.StatusCode.UNAVAILABLE}
    # Whoever answers says when to come back; nobody answers at a port where nobody listens.
    answered = [refusal for refusal in refusals if refusal.reason]
    assert all(refusal.retry_after_ms for refusal in answered)


async def is_started(
    shop: Shop, request: saga_pb2.StartSagaRequest, refusals: list[Refusal]
) -> bool:
    try:
        await shop.sagas.StartSaga(request, timeout=10)
    except grpc.aio.AioRpcError as error:
        trailing: Any = error.trailing_metadata()
        refusals.append(read_refusal(error.code(), error.details() or "", trailing or ()))
        return False
    return True


async def test_the_takeover_of_many_sagas_does_not_hold_up_new_ones(
    pair: Mesh, shops: tuple[Shop, Shop]
) -> None:
    first, second = shops
    await second.definitions.RegisterDefinition(
        saga_pb2.RegisterDefinitionRequest(source=PATIENT), timeout=30
    )
    await pair.services["order"].kill()
    saga_ids = await start(first, 2_000, "patient-order")
    await pair.services[FIRST].kill()
    taken = asyncio.create_task(until(owned_by(pair, SECOND_INSTANCE, saga_ids), seconds=15))
    waits = []
    while not taken.done():
        asked_at = time.monotonic()
        await start(second, 1)
        waits.append(time.monotonic() - asked_at)
        await asyncio.sleep(0.02)
    assert await taken
    assert sorted(waits)[len(waits) // 2] < 0.2
    assert max(waits) < 1.5
