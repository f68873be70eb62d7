"""Queries on `orders` and `order_item`, each inside the transaction it is given."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from order_svc.order import Item, Order, OrderState, Purchase
from order_svc.tables import order_item, orders

_UNSETTLED = {OrderState.PENDING, OrderState.CANCELLED}


async def create(
    tx: AsyncConnection, purchase: Purchase, *, place_time: datetime | None = None
) -> bool:
    """Write an order down as PENDING; False, and nothing is written, when its id is taken.

    `place_time` is when the customer placed it; None for now.
    """
    insert = pg.insert(orders).values(
        order_id=purchase.order_id,
        saga_id=purchase.saga_id,
        customer_id=purchase.customer_id,
        currency=purchase.currency,
        total_minor=purchase.total.minor_units,
        state=OrderState.PENDING,
        create_time=sa.func.now() if place_time is None else place_time,
    )
    created = await tx.execute(insert.on_conflict_do_nothing().returning(orders.c.order_id))
    if created.one_or_none() is None:
        return False
    await tx.execute(sa.insert(order_item), list(_item_rows(purchase)))
    return True


def _item_rows(purchase: Purchase) -> Iterable[dict[str, object]]:
    for line, item in enumerate(purchase.items, start=1):
        yield {
            "order_id": purchase.order_id,
            "line": line,
            "product_id": item.product_id,
            "quantity": item.quantity,
            "unit_price_minor": item.unit_price,
        }


async def get(tx: AsyncConnection, order_id: str) -> Order | None:
    """One order; None when there is none."""
    found = await _with_items(tx, sa.select(orders).where(orders.c.order_id == order_id))
    return found[0] if found else None


async def page(tx: AsyncConnection, before: str, customer_id: str, limit: int) -> Sequence[Order]:
    """Orders below `before`, newest first; an empty `customer_id` means all customers."""
    query = sa.select(orders).where(orders.c.order_id < before)
    if customer_id:
        query = query.where(orders.c.customer_id == customer_id)
    return await _with_items(tx, query.order_by(orders.c.order_id.desc()).limit(limit))


async def move(
    tx: AsyncConnection, order_id: str, sources: Collection[OrderState], target: OrderState
) -> bool:
    """Move an order from one of some states to another; False when it is in none of them."""
    return await _change(tx, order_id, sources, state=target, update_time=sa.func.now())


async def explain(tx: AsyncConnection, order_id: str, failure_reason: str) -> bool:
    """Store why a CANCELLED order was cancelled; False when there is no such order."""
    return await _change(tx, order_id, {OrderState.CANCELLED}, failure_reason=failure_reason)


async def abandon(tx: AsyncConnection, order_id: str, failure_reason: str) -> bool:
    """Say that nobody works on an order any more, wherever it is; False when there is none."""
    return await _change(
        tx,
        order_id,
        set(OrderState),
        state=OrderState.ABANDONED,
        failure_reason=failure_reason,
        update_time=sa.func.now(),
    )


async def _change(
    tx: AsyncConnection, order_id: str, sources: Collection[OrderState], **values: object
) -> bool:
    changed = await tx.execute(
        sa.update(orders)
        .where(orders.c.order_id == order_id, orders.c.state.in_(sources))
        .values(values)
        .returning(orders.c.order_id)
    )
    return changed.one_or_none() is not None


async def _with_items(tx: AsyncConnection, query: sa.Select[*tuple[object, ...]]) -> list[Order]:
    rows = (await tx.execute(query)).mappings().all()
    items = await _items(tx, [row["order_id"] for row in rows])
    return [_order(row, items[row["order_id"]]) for row in rows]


async def _items(tx: AsyncConnection, order_ids: Sequence[str]) -> Mapping[str, list[Item]]:
    found = await tx.execute(
        sa.select(order_item)
        .where(order_item.c.order_id.in_(order_ids))
        .order_by(order_item.c.order_id, order_item.c.line)
    )
    items: defaultdict[str, list[Item]] = defaultdict(list)
    for row in found:
        item = Item(
            product_id=row.product_id, quantity=row.quantity, unit_price=row.unit_price_minor
        )
        items[row.order_id].append(item)
    return items


def _order(row: sa.RowMapping, items: Sequence[Item]) -> Order:
    state = OrderState(row["state"])
    return Order(
        purchase=Purchase(
            order_id=row["order_id"],
            saga_id=row["saga_id"],
            customer_id=row["customer_id"],
            currency=row["currency"],
            items=tuple(items),
        ),
        state=state,
        failure_reason=row["failure_reason"],
        unsettled=state in _UNSETTLED and not row["failure_reason"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )
