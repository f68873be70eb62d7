"""Queries on `orders` and `order_item`, each inside the transaction it is given."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from mesh.barrier.at_once import Effect, EffectStatement
from mesh.statement import Statement, ask
from order_svc.order import Item, Order, OrderState, Purchase
from order_svc.tables import order_item, orders

_UNSETTLED = {OrderState.PENDING, OrderState.CANCELLED}

_CREATE = EffectStatement(
    "create_order",
    """
    promised AS (
      SELECT saga_id, place_time FROM placement WHERE order_id = %(order_id)s::uuid
    ), effect AS (
      INSERT INTO orders (order_id, saga_id, customer_id, currency, total_minor, state, create_time)
      SELECT %(order_id)s::uuid, %(saga_id)s, %(customer_id)s, %(currency)s, %(total_minor)s,
             'PENDING', coalesce((SELECT place_time FROM promised), now())
      WHERE NOT EXISTS (SELECT FROM promised WHERE saga_id <> %(saga_id)s)
      ON CONFLICT DO NOTHING
      RETURNING order_id
    ), lines AS (
      INSERT INTO order_item (order_id, line, product_id, quantity, unit_price_minor)
      SELECT effect.order_id, line, item ->> 0, (item ->> 1)::integer, (item ->> 2)::bigint
      FROM effect, jsonb_array_elements(%(items)s::jsonb) WITH ORDINALITY AS items (item, line)
    )
    """,
    {
        "order_id": "text",
        "saga_id": "text",
        "customer_id": "text",
        "currency": "text",
        "total_minor": "bigint",
        "items": "text",
    },
)
_CONFIRM = EffectStatement(
    "confirm_order",
    """
    effect AS (
      UPDATE orders SET state = 'CONFIRMED', update_time = now()
      WHERE order_id = %(order_id)s::uuid AND state = 'PENDING'
      RETURNING true
    ), settled AS (
      UPDATE placement SET due_time = NULL
      WHERE order_id = %(order_id)s::uuid AND EXISTS (SELECT FROM effect)
    )
    """,
    {"order_id": "text"},
)
_MOVE = Statement(
    "move_order",
    """
    UPDATE orders SET state = %(target)s, update_time = now()
    WHERE order_id = %(order_id)s::uuid AND state = ANY (string_to_array(%(sources)s, ','))
    RETURNING true
    """,
    dict.fromkeys(("order_id", "sources", "target"), "text"),
)


def creating(purchase: Purchase) -> Effect:
    """Write an order down as PENDING since it was placed.

    Not made when its id is taken or is promised to another saga.
    """
    lines = [[item.product_id, item.quantity, item.unit_price] for item in purchase.items]
    return _CREATE(
        order_id=purchase.order_id,
        saga_id=purchase.saga_id,
        customer_id=purchase.customer_id,
        currency=purchase.currency,
        total_minor=purchase.total.minor_units,
        items=json.dumps(lines),
    )


async def create(tx: AsyncConnection, purchase: Purchase) -> bool:
    """Do `creating`; False when it is not made."""
    (created,) = await ask(tx, creating(purchase).alone())
    return bool(created)


def confirming(order_id: str) -> Effect:
    """Make a PENDING order CONFIRMED, for which nothing is owed any more.

    Not made when it is not PENDING.
    """
    return _CONFIRM(order_id=order_id)


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
    (moved,) = await ask(tx, _MOVE(order_id=order_id, sources=",".join(sources), target=target))
    return bool(moved)


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
