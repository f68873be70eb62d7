"""The promises of the demo: five orders, each checked in the databases and at the provider."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from local.demo import play
from local.mesh import Mesh
from local.sandbox import Sandbox
from local.scenarios import SCENARIOS, VISA, Scenario
from local.screen import Screen
from local.shop import Shop, order_request
from protos.order.v1 import order_pb2
from protos.saga.v1 import saga_pb2


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.title[:3])
async def test_the_promise_of_an_order_holds(scenario: Scenario, mesh: Mesh, shop: Shop) -> None:
    said = io.StringIO()
    screen = Screen(Console(file=said))
    assert await play(scenario, mesh, shop, screen), said.getvalue()


async def test_an_order_is_pending_until_its_saga_ends(shop: Shop, sandbox: Sandbox) -> None:
    await sandbox.slow_down(500)
    placed = await shop.place({"coffee": 1}, VISA)
    assert (await shop.order(placed.order_id)).state == order_pb2.ORDER_STATE_PENDING
    async for _ in shop.watch(placed.saga_id):
        pass
    assert (await shop.order(placed.order_id)).state == order_pb2.ORDER_STATE_CONFIRMED


async def test_a_request_that_is_sent_twice_is_one_order(shop: Shop) -> None:
    request = order_request({"coffee": 1}, VISA)
    first = await shop.orders.PlaceOrder(request)
    assert await shop.orders.PlaceOrder(request) == first


async def test_events_of_a_saga_come_in_order_and_without_gaps(shop: Shop) -> None:
    placed = await shop.place({"coffee": 1, "mug": 1}, VISA)
    events = [event async for event in shop.watch(placed.saga_id)]
    assert [event.revision for event in events] == list(range(1, len(events) + 1))
    assert events[-1].state == saga_pb2.SAGA_STATE_COMPLETED
