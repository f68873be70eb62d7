"""The step of a reservation: stock of every item of one order, or of none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from inventory_svc.validation import reserve_stock_violations
from mesh.barrier.mongo import Reservation
from mesh.barrier.mongo_algorithm import Shortage
from mesh.errors import Rejected
from mesh.step import StepCall
from mesh.validation import refuse_if_any
from protos.inventory.v1 import inventory_pb2


class ReserveStock(
    Reservation[inventory_pb2.ReserveStockRequest, inventory_pb2.ReserveStockResponse]
):
    """Holds stock for an order."""

    service = "inventory.v1.ReserveStock"

    def quantities(self, request: inventory_pb2.ReserveStockRequest) -> Mapping[str, int]:
        """How many of each product the lines ask for together.

        Raises:
            InvalidRequest: order_id or items.
        """
        refuse_if_any(reserve_stock_violations(request))
        quantities: Counter[str] = Counter()
        for item in request.items:
            quantities[item.product_id] += item.quantity
        return quantities

    def held_for(self, request: inventory_pb2.ReserveStockRequest) -> str:
        """The order, by which ShipStock asks for it."""
        return request.order_id

    def response(
        self, call: StepCall, request: inventory_pb2.ReserveStockRequest
    ) -> inventory_pb2.ReserveStockResponse:
        """The name under which the stock documents keep it."""
        return inventory_pb2.ReserveStockResponse(reservation_id=call.key)

    def rejection(self, shortage: Shortage) -> Rejected:
        """OUT_OF_STOCK or PRODUCT_NOT_FOUND."""
        if shortage.available is None:
            return Rejected(
                "PRODUCT_NOT_FOUND",
                f"there is no product {shortage.product}",
                metadata={"product_id": shortage.product},
            )
        return Rejected(
            "OUT_OF_STOCK",
            f"{shortage.quantity} of product {shortage.product} were asked for,"
            f" {shortage.available} are available",
            metadata={
                "product_id": shortage.product,
                "requested": str(shortage.quantity),
                "available": str(shortage.available),
            },
        )
