"""The business API of orders: promise one, read one, list them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from hashlib import sha256

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from typing_extensions import override

from mesh.errors import AlreadyExists, NotFound, Retry
from mesh.paging import size
from mesh.postgres import session, transaction
from mesh.validation import refuse_if_any
from order_svc import paging, placements, store
from order_svc.coordinator import Coordinator, CoordinatorRefused
from order_svc.order import Order, to_proto
from order_svc.placements import Placement
from order_svc.sweep import Sweep, learn
from order_svc.validation import (
    list_orders_violations,
    order_id_violations,
    place_order_violations,
)
from protos.order.v1 import order_pb2, order_pb2_grpc

_log = structlog.stdlib.get_logger()


class OrderService(order_pb2_grpc.OrderServiceServicer):
    """Answers OrderService.

    `new_id` makes UUIDv7s. A placement whose saga has not started after `grace` is the sweep's.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        coordinator: Coordinator,
        sweep: Sweep,
        *,
        new_id: Callable[[], str],
        grace: timedelta = timedelta(seconds=10),
    ) -> None:
        self._engine = engine
        self._coordinator = coordinator
        self._sweep = sweep
        self._new_id = new_id
        self._grace = grace

    @override
    async def PlaceOrder(
        self, request: order_pb2.PlaceOrderRequest, context: object
    ) -> order_pb2.PlaceOrderResponse:
        """Promise an order, start its saga and answer.

        Raises:
            InvalidRequest: with every field that is wrong; nothing was written.
            AlreadyExists: REQUEST_ID_REUSED.
            Retry: the coordinator is away; the promise stays, and the same request goes on with it.
            CoordinatorRefused: the deployment needs mending; the promise stays.
        """
        refuse_if_any(place_order_violations(request))
        placement = await self._promise(request)
        if placement.start_time is None:
            await self._coordinator.start(placement.saga_id, placement.input)
            self._sweep.coordinator_answered()
            async with session(self._engine) as db:
                await placements.mark_started(db, placement.order_id)
        return order_pb2.PlaceOrderResponse(order_id=placement.order_id, saga_id=placement.saga_id)

    async def _promise(self, request: order_pb2.PlaceOrderRequest) -> Placement:
        request_sha = sha256(request.SerializeToString(deterministic=True)).digest()
        saga_input = order_pb2.PlaceOrderInput(
            order_id=self._new_id(),
            customer_id=request.customer_id,
            items=request.items,
            payment_method=request.payment_method,
        )
        async with session(self._engine) as db:
            placement = await placements.add(
                db,
                request_id=request.request_id,
                request_sha=request_sha,
                saga_id=self._new_id(),
                saga_input=saga_input,
                grace=self._grace,
            )
        if placement.request_sha != request_sha:
            raise AlreadyExists(
                "REQUEST_ID_REUSED",
                f"request_id {request.request_id} was used for another order",
                metadata={"request_id": request.request_id},
            )
        return placement

    @override
    async def GetOrder(
        self, request: order_pb2.GetOrderRequest, context: object
    ) -> order_pb2.GetOrderResponse:
        """Read one order, with the reason of a cancellation where the coordinator can be asked.

        Raises:
            InvalidRequest: not an order id.
            NotFound: ORDER_NOT_FOUND.
        """
        refuse_if_any(order_id_violations(request.order_id))
        order = await self._find(request.order_id)
        if order.unsettled:
            order = await self._ask(order)
        return order_pb2.GetOrderResponse(order=to_proto(order))

    async def _find(self, order_id: str) -> Order:
        async with transaction(self._engine) as tx:
            if order := await store.get(tx, order_id):
                return order
            if placement := await placements.of_order(tx, order_id):
                return placement.order
        raise NotFound(
            "ORDER_NOT_FOUND",
            f"there is no order {order_id}",
            resource_type="order.v1.Order",
            name=order_id,
        )

    async def _ask(self, order: Order) -> Order:
        try:
            saga = await self._coordinator.look(order.purchase.saga_id)
        except (Retry, CoordinatorRefused) as unheard:
            _log.info("order.unsettled", saga_id=order.purchase.saga_id, reason=unheard.reason)
            return order
        order_id = order.purchase.order_id
        async with transaction(self._engine) as tx:
            await learn(tx, order_id, saga)
        return await self._find(order_id)

    @override
    async def ListOrders(
        self, request: order_pb2.ListOrdersRequest, context: object
    ) -> order_pb2.ListOrdersResponse:
        """List orders and promised orders as they are stored, newest first.

        Raises:
            InvalidRequest: page_size, page_token or customer_id.
        """
        refuse_if_any(list_orders_violations(request))
        limit = size(request.page_size)
        newest = await self._newest(request, limit + 1)
        return paging.response([to_proto(order) for order in newest], limit)

    async def _newest(self, request: order_pb2.ListOrdersRequest, limit: int) -> Sequence[Order]:
        """Promises are read first, so that one which becomes an order meanwhile is not missed."""
        before = paging.read_token(request.page_token)
        async with transaction(self._engine) as tx:
            promised = await placements.page(tx, before, request.customer_id, limit)
            stored = await store.page(tx, before, request.customer_id, limit)
        orders = {
            order.purchase.order_id: order
            for order in (*(placement.order for placement in promised), *stored)
        }
        return [orders[order_id] for order_id in sorted(orders, reverse=True)[:limit]]
