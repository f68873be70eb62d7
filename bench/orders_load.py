"""A load of orders for `full_mesh`: sagas by one StartSagas stream, or PlaceOrder as shops ask.

Every order has a customer of its own and products from a large catalogue. It speaks as the other
loads do; see `window`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.type import money_pb2
from uuid_utils import uuid7

from bench.peers.loop import Saga, run
from protos.order.v1 import order_pb2, order_pb2_grpc
from protos.saga.v1 import saga_pb2, saga_pb2_grpc

PRODUCTS = [f"product-{number}" for number in range(1_000)]

_COMPLETED = saga_pb2.SAGA_STATE_COMPLETED
_ENDED = frozenset({_COMPLETED, saga_pb2.SAGA_STATE_COMPENSATED, saga_pb2.SAGA_STATE_STUCK})
_PRICE = money_pb2.Money(currency_code="EUR", units=12, nanos=500_000_000)
_CARD = "pm_card_visa"


class WentWrong(Exception):
    """A saga did not end COMPLETED; says how."""


class Customers:
    """Each buys once: `lines` different products."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._numbers = itertools.count(1)
        self._chance = random.Random(1)  # noqa: S311 - no secret, the same orders every time

    def request(self) -> order_pb2.PlaceOrderRequest:
        """What a shop asks."""
        return order_pb2.PlaceOrderRequest(
            request_id=str(uuid7()), customer_id=f"customer-{next(self._numbers)}",
            items=self._items(), payment_method=_CARD,
        )  # fmt: skip

    def saga(self) -> saga_pb2.StartSagaRequest:
        """What the order service asks the coordinator, and the end as well."""
        placed = order_pb2.PlaceOrderInput(
            order_id=str(uuid7()), customer_id=f"customer-{next(self._numbers)}",
            items=self._items(), payment_method=_CARD,
        )  # fmt: skip
        wanted = AnyMessage()
        wanted.Pack(placed)
        return saga_pb2.StartSagaRequest(
            saga_id=str(uuid7()), definition="place-order", input=wanted, wait=True
        )

    def _items(self) -> list[order_pb2.OrderItem]:
        return [
            order_pb2.OrderItem(product_id=product, quantity=1, unit_price=_PRICE)
            for product in self._chance.sample(PRODUCTS, self._lines)
        ]


class StartSagas:
    """Sagas over one stream; what is asked for at the same moment goes out together."""

    def __init__(self, stub: saga_pb2_grpc.SagaServiceStub) -> None:
        self._stub = stub
        self._wanted: list[saga_pb2.StartSagaRequest] = []
        self._asked = asyncio.Event()
        self._ends: dict[str, asyncio.Future[saga_pb2.SagaReport]] = {}

    async def run(self, request: saga_pb2.StartSagaRequest) -> None:
        """Ask for a saga and wait for its end."""
        end = asyncio.get_running_loop().create_future()
        self._ends[request.saga_id] = end
        self._wanted.append(request)
        self._asked.set()
        report = await end
        if report.state != _COMPLETED:
            raise WentWrong(str(report))

    async def serve(self) -> None:
        """Send and hear until cancelled."""
        async for answer in self._stub.StartSagas(self._requests()):
            for report in answer.reports:
                if report.state in _ENDED or report.HasField("refusal"):
                    self._ends.pop(report.saga_id).set_result(report)

    async def _requests(self) -> AsyncIterator[saga_pb2.StartSagasRequest]:
        while True:
            await self._asked.wait()
            self._asked.clear()
            wanted, self._wanted = self._wanted, []
            yield saga_pb2.StartSagasRequest(sagas=wanted)


@asynccontextmanager
async def _by_stream(channel: grpc.aio.Channel, customers: Customers) -> AsyncIterator[Saga]:
    stream = StartSagas(saga_pb2_grpc.SagaServiceStub(channel))
    serving = asyncio.create_task(stream.serve())
    yield lambda: stream.run(customers.saga())
    serving.cancel()


@asynccontextmanager
async def _by_shop(
    channel: grpc.aio.Channel, shop: grpc.aio.Channel, customers: Customers
) -> AsyncIterator[Saga]:
    orders, sagas = order_pb2_grpc.OrderServiceStub(shop), saga_pb2_grpc.SagaServiceStub(channel)

    async def place() -> None:
        placed = await orders.PlaceOrder(customers.request())
        state = 0
        async for message in sagas.WatchSaga(saga_pb2.WatchSagaRequest(saga_id=placed.saga_id)):
            state = message.event.state
        if state != _COMPLETED:
            raise WentWrong(f"{placed.saga_id} ended as {state}")

    yield place


async def _main(told: argparse.Namespace) -> None:
    customers = Customers(told.lines)
    async with (
        grpc.aio.insecure_channel(told.coordinator) as coordinator,
        grpc.aio.insecure_channel(told.order) as order,
        _by_shop(coordinator, order, customers)
        if told.shop
        else _by_stream(coordinator, customers) as saga,
    ):
        await run(saga, told)


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--coordinator", required=True, help="its address")
    flags.add_argument("--order", required=True, help="address of the order service")
    flags.add_argument("--shop", action="store_true", help="by PlaceOrder and WatchSaga")
    flags.add_argument("--lines", type=int, required=True, help="products of an order")
    flags.add_argument("--in-flight", type=int, required=True)
    flags.add_argument("--warm", type=float, required=True, help="seconds")
    flags.add_argument("--for", dest="seconds", type=float, required=True)
    asyncio.run(_main(flags.parse_args()))
