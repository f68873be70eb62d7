"""After a run: the warehouse ships what was sold, and reconciliation has the last word."""

from __future__ import annotations

from contextlib import suppress

import grpc.aio

from local.books import read_stock
from local.mesh import Mesh
from local.shop import Shop
from protos.inventory.v1 import inventory_pb2
from protos.saga.v1 import saga_pb2
from tests.chaos.plans import FIRST_STOCK
from tests.chaos.records import Orphan, Reconciliation, Record, StoredSaga, StoredStock

_SHIP_SECONDS, _RECONCILE_SECONDS = 10.0, 120.0


async def ship(mesh: Mesh, shop: Shop, stored: list[Record]) -> list[StoredStock]:
    """Let the warehouse ship every completed order; returns the stock before and after."""
    products = list(FIRST_STOCK)
    before = await read_stock(mesh, products)
    for saga in stored:
        if isinstance(saga, StoredSaga) and saga.state == "COMPLETED":
            request = inventory_pb2.ShipStockRequest(order_id=saga.order_id)
            with suppress(grpc.aio.AioRpcError):  # what is not shipped shows in the stock
                await shop.inventory.ShipStock(request, timeout=_SHIP_SECONDS)
    after = await read_stock(mesh, products)
    return [
        StoredStock(
            product=product,
            available=before[product].available,
            reserved=before[product].reserved,
            available_after=after[product].available,
            reserved_after=after[product].reserved,
        )
        for product in products
    ]


async def reconcile(shop: Shop) -> list[Record]:
    """What the coordinator finds when it compares its journal with the participants' effects."""
    found: list[Record] = []
    request = saga_pb2.ReconcileEffectsRequest()
    with suppress(grpc.aio.AioRpcError):  # a reconciliation without its end shows in the history
        async for message in shop.sagas.ReconcileEffects(request, timeout=_RECONCILE_SECONDS):
            if message.HasField("orphan"):
                found.append(_orphan(message.orphan))
            else:
                summary = message.summary
                found.append(
                    Reconciliation(
                        effects=summary.effects,
                        orphans=summary.orphans,
                        unreachable=list(summary.unreachable),
                    )
                )
    return found


def _orphan(orphan: saga_pb2.Orphan) -> Orphan:
    kind = saga_pb2.OrphanKind.Name(orphan.kind).removeprefix("ORPHAN_KIND_")
    return Orphan(
        participant=orphan.participant, saga_id=orphan.saga_id, step=orphan.step, kind=kind
    )
