"""Queries on `placement`: what PlaceOrder has promised, and what is still owed for it.

Time is the database's, so that it is one for all instances of this service. Where a transaction
changes both an order and its placement, it changes the order first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from mesh.statement import Statement, ask
from order_svc.order import Order, OrderState, Purchase, read_purchase
from order_svc.tables import placement
from protos.order.v1 import order_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What PlaceOrder has promised: an order id and the saga that will work on it."""

    request_sha: bytes
    """SHA-256 of the request's deterministic bytes."""
    order_id: str
    saga_id: str
    input: bytes
    """The serialised PlaceOrderInput that the saga is started with."""
    place_time: datetime
    start_time: datetime | None
    """When the coordinator first answered that it has the saga; None until then."""

    @property
    def purchase(self) -> Purchase:
        """What the customer buys."""
        return read_purchase(order_pb2.PlaceOrderInput.FromString(self.input), self.saga_id)

    @property
    def order(self) -> Order:
        """The order as it is promised, until its saga creates it."""
        return Order(
            purchase=self.purchase,
            state=OrderState.PENDING,
            failure_reason="",
            unsettled=self.start_time is not None,
            create_time=self.place_time,
            update_time=self.place_time,
        )


_COLUMNS = (
    placement.c.request_sha,
    placement.c.order_id,
    placement.c.saga_id,
    placement.c.input,
    placement.c.place_time,
    placement.c.start_time,
)
_ADD = Statement(
    "add_placement",
    """
    INSERT INTO placement
      (request_id, request_sha, order_id, saga_id, customer_id, input, due_time)
    VALUES (%(request_id)s, %(request_sha)s, %(order_id)s::uuid, %(saga_id)s, %(customer_id)s,
            %(input)s, now() + %(grace_ms)s * interval '1 millisecond')
    ON CONFLICT (request_id) DO NOTHING
    RETURNING (extract(epoch FROM place_time) * 1000000)::bigint
    """,
    {
        "request_id": "text",
        "request_sha": "bytea",
        "order_id": "text",
        "saga_id": "text",
        "customer_id": "text",
        "input": "bytea",
        "grace_ms": "bigint",
    },
)
_MARK_STARTED = Statement(
    "mark_placement_started",
    """
    UPDATE placement SET start_time = now()
    WHERE order_id = %(order_id)s::uuid AND start_time IS NULL
    """,
    {"order_id": "text"},
)
_SETTLE = Statement(
    "settle_placement",
    "UPDATE placement SET due_time = NULL WHERE order_id = %(order_id)s::uuid",
    {"order_id": "text"},
)


async def add(
    db: AsyncConnection,
    *,
    request_id: str,
    request_sha: bytes,
    saga_id: str,
    saga_input: order_pb2.PlaceOrderInput,
    grace: timedelta,
) -> Placement:
    """Write a placement, or read the one that has this `request_id` already.

    Whoever writes it starts its saga; the sweep does it after `grace`.
    """
    packed = saga_input.SerializeToString(deterministic=True)
    question = _ADD(
        request_id=request_id,
        request_sha=request_sha,
        order_id=saga_input.order_id,
        saga_id=saga_id,
        customer_id=saga_input.customer_id,
        input=packed,
        grace_ms=grace // timedelta(milliseconds=1),
    )
    (added,) = await ask(db, question)
    if not added:
        found = await _select(db, placement.c.request_id == request_id)
        return found[0]
    return Placement(
        request_sha=request_sha,
        order_id=saga_input.order_id,
        saga_id=saga_id,
        input=packed,
        place_time=_time(added[0][0]),
        start_time=None,
    )


def _time(microseconds: bytes | None) -> datetime:
    since = int.from_bytes(microseconds or b"")
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=since)


async def of_order(tx: AsyncConnection, order_id: str) -> Placement | None:
    """The placement that promised this order; None when there is none."""
    found = await _select(tx, placement.c.order_id == order_id)
    return found[0] if found else None


async def due(tx: AsyncConnection, limit: int) -> Sequence[Placement]:
    """Placements for which something is owed by now, longest due first."""
    is_due = placement.c.due_time <= sa.func.now()
    return await _select(tx, is_due, order_by=placement.c.due_time, limit=limit)


async def page(
    tx: AsyncConnection, before: str, customer_id: str, limit: int
) -> Sequence[Placement]:
    """Placements of orders below `before` that are still owed something, newest first.

    An empty `customer_id` means all customers.
    """
    wanted = [placement.c.due_time.is_not(None), placement.c.order_id < before]
    if customer_id:
        wanted.append(placement.c.customer_id == customer_id)
    return await _select(tx, *wanted, order_by=placement.c.order_id.desc(), limit=limit)


async def mark_started(db: AsyncConnection, order_id: str) -> None:
    """Remember that the coordinator has the saga."""
    await ask(db, _MARK_STARTED(order_id=order_id))


async def postpone(tx: AsyncConnection, order_id: str, delay: timedelta) -> bool:
    """Come back later to what is owed; False when nothing is any more.

    The delay grows by itself with every minute that the placement is old, to an hour at most: an
    outage leaves many of them.
    """
    minutes = sa.func.extract("epoch", sa.func.now() - placement.c.place_time) / 60
    longer = sa.func.least(delay * (1 + minutes), timedelta(hours=1))
    postponed = await tx.execute(
        sa.update(placement)
        .where(placement.c.order_id == order_id, placement.c.due_time.is_not(None))
        .values(due_time=sa.func.now() + longer)
        .returning(placement.c.order_id)
    )
    return postponed.one_or_none() is not None


async def settle(tx: AsyncConnection, order_id: str) -> None:
    """Nothing is owed any more."""
    await ask(tx, _SETTLE(order_id=order_id))


async def reopen(tx: AsyncConnection, order_id: str) -> None:
    """Something is owed again: the reason why the order was cancelled."""
    await tx.execute(
        sa.update(placement).where(placement.c.order_id == order_id).values(due_time=sa.func.now())
    )


async def _select(
    tx: AsyncConnection,
    *wanted: sa.ColumnElement[bool],
    order_by: sa.ColumnElement[object] | None = None,
    limit: int | None = None,
) -> Sequence[Placement]:
    query = sa.select(*_COLUMNS).where(*wanted).order_by(order_by).limit(limit)
    found = await tx.execute(query)
    return [Placement(**row) for row in found.mappings()]
