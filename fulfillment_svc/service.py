"""The business API of shipments: read one, and hear from the warehouse that it has left."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine
from typing_extensions import override

from fulfillment_svc import store
from fulfillment_svc.shipment import Shipment, ShipmentState, to_proto
from fulfillment_svc.validation import confirm_shipment_violations, get_shipment_violations
from mesh.errors import AlreadyExists, NotFound, NotNow
from mesh.postgres import transaction
from mesh.validation import refuse_if_any
from protos.fulfillment.v1 import fulfillment_pb2, fulfillment_pb2_grpc


class FulfillmentService(fulfillment_pb2_grpc.FulfillmentServiceServicer):
    """Answers FulfillmentService."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @override
    async def GetShipment(
        self, request: fulfillment_pb2.GetShipmentRequest, context: object
    ) -> fulfillment_pb2.GetShipmentResponse:
        """Read a shipment by its id, or the newest one of an order.

        Raises:
            InvalidRequest: not exactly one id, or a malformed one.
            NotFound: SHIPMENT_NOT_FOUND.
        """
        refuse_if_any(get_shipment_violations(request))
        async with transaction(self._engine) as tx:
            if request.shipment_id:
                found = await store.get(tx, request.shipment_id)
            else:
                found = await store.of_order(tx, request.order_id)
        shipment = _existing(found, request.shipment_id or f"of order {request.order_id}")
        return fulfillment_pb2.GetShipmentResponse(shipment=to_proto(shipment))

    @override
    async def ConfirmShipment(
        self, request: fulfillment_pb2.ConfirmShipmentRequest, context: object
    ) -> fulfillment_pb2.ConfirmShipmentResponse:
        """Note that a shipment has left; the same tracking code again changes nothing.

        Raises:
            InvalidRequest: a malformed id or tracking code.
            NotFound: SHIPMENT_NOT_FOUND.
            AlreadyExists: SHIPMENT_ALREADY_CONFIRMED, with another tracking code.
            NotNow: SHIPMENT_CANCELLED.
        """
        refuse_if_any(confirm_shipment_violations(request))
        async with transaction(self._engine) as tx:
            await store.ship(tx, request.shipment_id, request.tracking_code)
            found = await store.get(tx, request.shipment_id)
        shipment = _existing(found, request.shipment_id)
        _check_shipped(shipment, request.tracking_code)
        return fulfillment_pb2.ConfirmShipmentResponse(shipment=to_proto(shipment))


def _check_shipped(shipment: Shipment, tracking_code: str) -> None:
    if shipment.state is not ShipmentState.SHIPPED:
        raise NotNow(
            "SHIPMENT_CANCELLED",
            f"shipment {shipment.shipment_id} was called off",
            state=shipment.state,
            allowed=[ShipmentState.REQUESTED],
        )
    if shipment.tracking_code != tracking_code:
        raise AlreadyExists(
            "SHIPMENT_ALREADY_CONFIRMED",
            f"shipment {shipment.shipment_id} left with another tracking code",
            metadata={"shipment_id": shipment.shipment_id},
        )


def _existing(shipment: Shipment | None, name: str) -> Shipment:
    if shipment is None:
        raise NotFound(
            "SHIPMENT_NOT_FOUND",
            f"there is no shipment {name}",
            resource_type="fulfillment.v1.Shipment",
            name=name,
        )
    return shipment
