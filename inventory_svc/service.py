"""The business API of stock: set it, read it, list it, ship it."""

from __future__ import annotations

from typing_extensions import override

from inventory_svc import paging
from inventory_svc.store import Stock, StockStore
from inventory_svc.validation import list_stock_violations, set_stock_violations
from mesh.barrier.mongo_shipping import Shipping
from mesh.errors import NotFound
from mesh.paging import size
from mesh.validation import refuse_if_any, text_violations
from protos.inventory.v1 import inventory_pb2, inventory_pb2_grpc


class InventoryService(inventory_pb2_grpc.InventoryServiceServicer):
    """Answers InventoryService."""

    def __init__(self, store: StockStore, shipping: Shipping) -> None:
        self._store = store
        self._shipping = shipping

    @override
    async def SetStock(
        self, request: inventory_pb2.SetStockRequest, context: object
    ) -> inventory_pb2.SetStockResponse:
        """Set how many of a product are available; creates it.

        Raises:
            InvalidRequest: product_id or available.
        """
        refuse_if_any(set_stock_violations(request))
        await self._store.set_available(request.product_id, request.available)
        stock = await self._existing(request.product_id)
        return inventory_pb2.SetStockResponse(stock=_to_proto(stock))

    @override
    async def GetStock(
        self, request: inventory_pb2.GetStockRequest, context: object
    ) -> inventory_pb2.GetStockResponse:
        """Read the stock of one product.

        Raises:
            InvalidRequest: product_id.
            NotFound: PRODUCT_NOT_FOUND.
        """
        refuse_if_any(text_violations("product_id", request.product_id))
        stock = await self._existing(request.product_id)
        return inventory_pb2.GetStockResponse(stock=_to_proto(stock))

    @override
    async def ListStock(
        self, request: inventory_pb2.ListStockRequest, context: object
    ) -> inventory_pb2.ListStockResponse:
        """List all products, by product_id.

        Raises:
            InvalidRequest: page_size or page_token.
        """
        refuse_if_any(list_stock_violations(request))
        limit = size(request.page_size)
        found = await self._store.page(paging.read_token(request.page_token), limit + 1)
        page, more = found[:limit], len(found) > limit
        return inventory_pb2.ListStockResponse(
            stock=map(_to_proto, page),
            next_page_token=paging.make_token(page[-1].product_id) if more else "",
        )

    @override
    async def ShipStock(
        self, request: inventory_pb2.ShipStockRequest, context: object
    ) -> inventory_pb2.ShipStockResponse:
        """Record that what is held for an order has left; the warehouse asks, after it has shipped.

        Raises:
            InvalidRequest: order_id.
            NotFound: RESERVATION_NOT_FOUND.
            NotNow: STOCK_NOT_RESERVED.
        """
        refuse_if_any(text_violations("order_id", request.order_id))
        shipped = await self._shipping.ship(request.order_id)
        return inventory_pb2.ShipStockResponse(
            items=[
                inventory_pb2.StockItem(product_id=product, quantity=quantity)
                for product, quantity in sorted(shipped.items())
            ]
        )

    async def _existing(self, product_id: str) -> Stock:
        stock = await self._store.get(product_id)
        if stock is None:
            raise NotFound(
                "PRODUCT_NOT_FOUND",
                f"there is no product {product_id}",
                resource_type="inventory.v1.Stock",
                name=product_id,
            )
        return stock


def _to_proto(stock: Stock) -> inventory_pb2.Stock:
    return inventory_pb2.Stock(
        product_id=stock.product_id, available=stock.available, reserved=stock.reserved
    )
