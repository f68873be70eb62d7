"""Queries on `shipment` and `shipment_item`, each inside the transaction it is given."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from fulfillment_svc.shipment import Item, Shipment, ShipmentState
from fulfillment_svc.tables import shipment, shipment_item
from mesh.barrier.at_once import Effect, EffectStatement

_CREATE = EffectStatement(
    "create_shipment",
    """
    effect AS (
      INSERT INTO shipment (shipment_id, order_id, saga_id, state)
      VALUES (%(shipment_id)s::uuid, %(order_id)s, %(saga_id)s, 'REQUESTED')
      RETURNING shipment_id
    ), lines AS (
      INSERT INTO shipment_item (shipment_id, line, product_id, quantity)
      SELECT effect.shipment_id, line, item ->> 0, (item ->> 1)::integer
      FROM effect, jsonb_array_elements(%(items)s::jsonb) WITH ORDINALITY AS items (item, line)
    )
    """,
    dict.fromkeys(("shipment_id", "order_id", "saga_id", "items"), "text"),
)


def creating(shipment_id: str, order_id: str, saga_id: str, items: Iterable[Item]) -> Effect:
    """Write a shipment down as REQUESTED."""
    lines = [[item.product_id, item.quantity] for item in items]
    return _CREATE(
        shipment_id=shipment_id, order_id=order_id, saga_id=saga_id, items=json.dumps(lines)
    )


async def get(tx: AsyncConnection, shipment_id: str) -> Shipment | None:
    """One shipment by its id; None when there is none."""
    return await _one(tx, sa.select(shipment).where(shipment.c.shipment_id == shipment_id))


async def of_order(tx: AsyncConnection, order_id: str) -> Shipment | None:
    """The newest shipment of one order; None when there is none."""
    newest = shipment.c.shipment_id.desc()
    wanted = sa.select(shipment).where(shipment.c.order_id == order_id)
    return await _one(tx, wanted.order_by(newest).limit(1))


async def ship(tx: AsyncConnection, shipment_id: str, tracking_code: str) -> bool:
    """A REQUESTED shipment has left; False, and nothing changes, in any other state."""
    return await _leave_requested(
        tx, shipment_id, state=ShipmentState.SHIPPED, tracking_code=tracking_code
    )


async def cancel(tx: AsyncConnection, shipment_id: str) -> bool:
    """Call a REQUESTED shipment off; False, and nothing changes, in any other state."""
    return await _leave_requested(tx, shipment_id, state=ShipmentState.CANCELLED)


async def _leave_requested(tx: AsyncConnection, shipment_id: str, **values: str) -> bool:
    changed = await tx.execute(
        sa.update(shipment)
        .where(shipment.c.shipment_id == shipment_id, shipment.c.state == ShipmentState.REQUESTED)
        .values(update_time=sa.func.now(), **values)
        .returning(shipment.c.shipment_id)
    )
    return changed.one_or_none() is not None


async def _one(tx: AsyncConnection, query: sa.Select[*tuple[object, ...]]) -> Shipment | None:
    row = (await tx.execute(query)).mappings().one_or_none()
    if row is None:
        return None
    items = await _items(tx, row["shipment_id"])
    state = ShipmentState(row["state"])
    return Shipment(**{**row, "state": state, "items": tuple(items)})


async def _items(tx: AsyncConnection, shipment_id: str) -> Sequence[Item]:
    found = await tx.execute(
        sa.select(shipment_item.c.product_id, shipment_item.c.quantity)
        .where(shipment_item.c.shipment_id == shipment_id)
        .order_by(shipment_item.c.line)
    )
    return [Item(**row) for row in found.mappings()]
