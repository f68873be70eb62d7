"""The steps of an order: written down, and confirmed.

The effect of each is one statement, which the barrier makes and records in one.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy.ext.asyncio import AsyncConnection

from mesh import money
from mesh.barrier.at_once import AtOnce, AtOnceStep
from mesh.errors import RecordMissing, Rejected
from mesh.step import StepCall
from mesh.validation import reject_if_any
from order_svc import placements, store
from order_svc.order import OrderState, read_purchase
from order_svc.validation import create_order_violations, order_id_violations
from protos.order.v1 import order_pb2


class CreateOrder(AtOnceStep[order_pb2.CreateOrderRequest, order_pb2.CreateOrderResponse]):
    """Writes the order down as PENDING and computes what the customer is charged."""

    service = "order.v1.CreateOrder"

    def at_once(
        self, call: StepCall, request: order_pb2.CreateOrderRequest
    ) -> AtOnce[order_pb2.CreateOrderResponse]:
        """Create the order.

        Raises:
            Rejected: ORDER_INVALID.
        """
        reject_if_any("ORDER_INVALID", create_order_violations(request))
        purchase = read_purchase(request, call.saga_id)
        response = order_pb2.CreateOrderResponse(total=money.to_proto(purchase.total))
        return AtOnce(response, store.creating(purchase))

    async def refusal(
        self, call: StepCall, request: order_pb2.CreateOrderRequest, tx: AsyncConnection
    ) -> Rejected:
        """ORDER_ID_TAKEN: the id belongs to another saga."""
        return Rejected(
            "ORDER_ID_TAKEN",
            f"order {request.order_id} belongs to another saga",
            metadata={"order_id": request.order_id},
        )

    async def compensate(
        self,
        call: StepCall,
        request: order_pb2.CreateOrderRequest,
        response: order_pb2.CreateOrderResponse,
        tx: AsyncConnection,
    ) -> None:
        """Cancel the order; the sweep then learns from the coordinator why."""
        live = {OrderState.PENDING, OrderState.CONFIRMED}
        await _undo(tx, request.order_id, live, OrderState.CANCELLED)
        await placements.reopen(tx, request.order_id)


class ConfirmOrder(AtOnceStep[order_pb2.ConfirmOrderRequest, order_pb2.ConfirmOrderResponse]):
    """Tells the customer that the order stands."""

    service = "order.v1.ConfirmOrder"

    def at_once(
        self, call: StepCall, request: order_pb2.ConfirmOrderRequest
    ) -> AtOnce[order_pb2.ConfirmOrderResponse]:
        """Make a PENDING order CONFIRMED.

        Raises:
            Rejected: ORDER_NOT_PENDING, there cannot be such an order.
        """
        if any(order_id_violations(request.order_id)):
            raise Rejected("ORDER_NOT_PENDING", "there is no order with such an id")
        return AtOnce(order_pb2.ConfirmOrderResponse(), store.confirming(request.order_id))

    async def refusal(
        self, call: StepCall, request: order_pb2.ConfirmOrderRequest, tx: AsyncConnection
    ) -> Rejected:
        """ORDER_NOT_PENDING, also when there is no such order."""
        order = await store.get(tx, request.order_id)
        state = "UNKNOWN" if order is None else order.state
        return Rejected(
            "ORDER_NOT_PENDING",
            f"order {request.order_id} is {state}, not PENDING",
            metadata={"order_id": request.order_id, "state": state},
        )

    async def compensate(
        self,
        call: StepCall,
        request: order_pb2.ConfirmOrderRequest,
        response: order_pb2.ConfirmOrderResponse,
        tx: AsyncConnection,
    ) -> None:
        """Take the confirmation back."""
        await _undo(tx, request.order_id, {OrderState.CONFIRMED}, OrderState.PENDING)
        await placements.reopen(tx, request.order_id)


async def _undo(
    tx: AsyncConnection, order_id: str, sources: Collection[OrderState], target: OrderState
) -> None:
    if await store.move(tx, order_id, sources, target):
        return
    if await store.get(tx, order_id) is None:
        raise RecordMissing(
            "ORDER_MISSING",
            f"order {order_id} was written down and is gone",
            metadata={"order_id": order_id},
        )
