"""The step of a shipment: requested, and called off while the goods are still here."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.ext.asyncio import AsyncConnection

from fulfillment_svc import store
from fulfillment_svc.shipment import Item, ShipmentState
from fulfillment_svc.validation import request_shipment_violations
from mesh.barrier.at_once import AtOnce, AtOnceStep
from mesh.errors import NotNow, RecordMissing
from mesh.step import StepCall
from mesh.validation import reject_if_any
from protos.fulfillment.v1 import fulfillment_pb2


class RequestShipment(
    AtOnceStep[fulfillment_pb2.RequestShipmentRequest, fulfillment_pb2.RequestShipmentResponse]
):
    """Asks the warehouse to send the goods of one order; `new_id` makes UUIDv7s."""

    service = "fulfillment.v1.RequestShipment"

    def __init__(self, *, new_id: Callable[[], str]) -> None:
        self._new_id = new_id

    def at_once(
        self, call: StepCall, request: fulfillment_pb2.RequestShipmentRequest
    ) -> AtOnce[fulfillment_pb2.RequestShipmentResponse]:
        """Request the shipment.

        Raises:
            Rejected: SHIPMENT_INVALID.
        """
        reject_if_any("SHIPMENT_INVALID", request_shipment_violations(request))
        items = [Item(product_id=i.product_id, quantity=i.quantity) for i in request.items]
        shipment_id = self._new_id()
        response = fulfillment_pb2.RequestShipmentResponse(shipment_id=shipment_id)
        return AtOnce(response, store.creating(shipment_id, request.order_id, call.saga_id, items))

    async def compensate(
        self,
        call: StepCall,
        request: fulfillment_pb2.RequestShipmentRequest,
        response: fulfillment_pb2.RequestShipmentResponse,
        tx: AsyncConnection,
    ) -> None:
        """Call the shipment off.

        Raises:
            NotNow: SHIPMENT_ALREADY_SENT; no try can succeed, somebody has to fetch the goods.
            RecordMissing: SHIPMENT_MISSING.
        """
        if await store.cancel(tx, response.shipment_id):
            return
        shipment = await store.get(tx, response.shipment_id)
        metadata = {"shipment_id": response.shipment_id}
        if shipment is None:
            message = f"shipment {response.shipment_id} was requested and is gone"
            raise RecordMissing("SHIPMENT_MISSING", message, metadata=metadata)
        if shipment.state is ShipmentState.SHIPPED:
            raise NotNow(
                "SHIPMENT_ALREADY_SENT",
                f"shipment {shipment.shipment_id} has left the warehouse",
                state=shipment.state,
                allowed=[ShipmentState.REQUESTED],
            )
