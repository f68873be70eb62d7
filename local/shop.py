"""A customer and an operator of the mesh: its public API, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import grpc
import grpc.aio
from google.type import money_pb2
from uuid_utils import uuid7

from protos.inventory.v1 import inventory_pb2, inventory_pb2_grpc
from protos.order.v1 import order_pb2, order_pb2_grpc
from protos.saga.v1 import saga_pb2, saga_pb2_grpc

CURRENCY = "EUR"
CATALOGUE = {"coffee": 1250, "filter": 390, "mug": 899, "grinder": 12900}
"""What one of each product costs, in cents."""

FIRST_STOCK = {"coffee": 100, "filter": 100, "mug": 100, "grinder": 0}
"""How many there are when a mesh is new; grinders are out of stock."""

Cart = Mapping[str, int]
"""How many of each product."""

_RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
)
_CALL_SECONDS = 30.0


class Shop:
    """The services as a client sees them. Calls wait for a service that is not there yet."""

    def __init__(self, channel: Callable[[str], grpc.aio.Channel]) -> None:
        self.orders = order_pb2_grpc.OrderServiceStub(channel("order"))
        self.inventory = inventory_pb2_grpc.InventoryServiceStub(channel("inventory"))
        coordinator = channel("coordinator")
        self.sagas = saga_pb2_grpc.SagaServiceStub(coordinator)
        self.definitions = saga_pb2_grpc.DefinitionServiceStub(coordinator)

    async def place(self, cart: Cart, card: str) -> order_pb2.PlaceOrderResponse:
        """Place an order; its saga is at work when this returns."""
        answer: order_pb2.PlaceOrderResponse = await self.orders.PlaceOrder(
            order_request(cart, card), wait_for_ready=True, timeout=_CALL_SECONDS
        )
        return answer

    async def order(self, order_id: str) -> order_pb2.Order:
        """Look an order up."""
        request = order_pb2.GetOrderRequest(order_id=order_id)
        answer: order_pb2.GetOrderResponse = await self.orders.GetOrder(
            request, wait_for_ready=True, timeout=_CALL_SECONDS
        )
        return answer.order

    async def saga(self, saga_id: str) -> saga_pb2.Saga:
        """Look a saga up."""
        request = saga_pb2.GetSagaRequest(saga_id=saga_id)
        answer: saga_pb2.GetSagaResponse = await self.sagas.GetSaga(
            request, wait_for_ready=True, timeout=_CALL_SECONDS
        )
        return answer.saga

    async def watch(self, saga_id: str) -> AsyncGenerator[saga_pb2.SagaEvent, None]:
        """Every event of a saga up to its last one, also when the coordinator dies meanwhile."""
        seen = 0
        while True:
            request = saga_pb2.WatchSagaRequest(saga_id=saga_id, after_revision=seen)
            try:
                async for message in self.sagas.WatchSaga(request, wait_for_ready=True):
                    seen = message.event.revision
                    yield message.event
            except grpc.aio.AioRpcError as lost:
                if lost.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            else:
                return

    async def stock_up(self, available: Mapping[str, int]) -> None:
        """Set how many of each product there are to sell."""
        for product, quantity in available.items():
            request = inventory_pb2.SetStockRequest(product_id=product, available=quantity)
            await self.inventory.SetStock(request, wait_for_ready=True, timeout=_CALL_SECONDS)

    async def is_empty(self) -> bool:
        """Whether there is no product at all."""
        request = inventory_pb2.ListStockRequest(page_size=1)
        answer = await self.inventory.ListStock(request, wait_for_ready=True, timeout=_CALL_SECONDS)
        return not answer.stock


@asynccontextmanager
async def open_shop(address: Callable[[str], str]) -> AsyncIterator[Shop]:
    """Connect; `address` says where each service listens, as `Mesh.address` does."""
    channels: list[grpc.aio.Channel] = []

    def channel(name: str) -> grpc.aio.Channel:
        channels.append(grpc.aio.insecure_channel(address(name), options=_RECONNECT))
        return channels[-1]

    try:
        yield Shop(channel)
    finally:
        for opened in channels:
            await opened.close(None)


def order_request(cart: Cart, card: str) -> order_pb2.PlaceOrderRequest:
    """A new order, with a request id of its own."""
    return order_pb2.PlaceOrderRequest(
        request_id=str(uuid7()),
        customer_id="ada",
        items=[_item(product, quantity) for product, quantity in cart.items()],
        payment_method=card,
    )


def total(cart: Cart) -> int:
    """What the cart costs, in cents."""
    return sum(CATALOGUE[product] * quantity for product, quantity in cart.items())


def _item(product: str, quantity: int) -> order_pb2.OrderItem:
    units, cents = divmod(CATALOGUE[product], 100)
    price = money_pb2.Money(currency_code=CURRENCY, units=units, nanos=cents * 10_000_000)
    return order_pb2.OrderItem(product_id=product, quantity=quantity, unit_price=price)
