"""What the databases and the provider say when a run is over, read past every service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row
from pymongo import MongoClient

from local.mesh import MONGODB_DATABASE, Mesh
from local.sandbox import Sandbox
from mesh.barrier.mongo_operations import BARRIER
from protos.journal.v1 import journal_pb2
from tests.chaos.records import (
    LedgerLine,
    Record,
    StoredBarrier,
    StoredEvent,
    StoredOrder,
    StoredPlacement,
    StoredSaga,
    StoredShipment,
)

_DIRECTIONS = {1: "DO", 2: "COMPENSATE"}


async def read_stores(mesh: Mesh) -> list[Record]:
    """Everything but the stock."""
    return [
        *await _journal(mesh),
        *await _orders(mesh),
        *await _shipments(mesh),
        *await _barriers(mesh),
        *[
            LedgerLine(saga_id=charge.saga_id, captured=charge.captured, refunded=charge.refunded)
            for charge in await Sandbox(mesh.sandbox_url).charges()
        ],
    ]


async def _journal(mesh: Mesh) -> list[Record]:
    sagas = await rows(
        mesh.dsn("coordinator"),
        "select saga_id, state, coalesce(keys ->> 'order_id', '') as order_id from saga.saga",
    )
    events = await rows(
        mesh.dsn("coordinator"),
        "select saga_id, revision, kind, step, attempt, payload, commands"
        " from saga.saga_event order by saga_id, revision",
    )
    return [*(StoredSaga(**saga) for saga in sagas), *(_event(event) for event in events)]


def _event(row: dict[str, Any]) -> StoredEvent:
    payload, commands = row.pop("payload"), row.pop("commands")
    reason = journal_pb2.Event.FromString(payload).failure.reason
    return StoredEvent(**row, reason=reason, commands=list(_commands(commands)))


def _commands(stored: bytes) -> Iterator[tuple[str, str, int]]:
    for call in journal_pb2.Commands.FromString(stored).calls:
        yield call.step, _DIRECTIONS[call.direction], call.attempt


async def _orders(mesh: Mesh) -> list[Record]:
    orders = await rows(
        mesh.dsn("order"),
        "select order_id::text, saga_id, state, total_minor as total,"
        " jsonb_object_agg(product_id, quantity) as cart"
        " from orders join order_item using (order_id) group by order_id",
    )
    placements = await rows(mesh.dsn("order"), "select order_id::text, saga_id from placement")
    return [
        *(StoredOrder(**order) for order in orders),
        *(StoredPlacement(**placement) for placement in placements),
    ]


async def _shipments(mesh: Mesh) -> list[Record]:
    found = await rows(mesh.dsn("fulfillment"), "select order_id, saga_id, state from shipment")
    return [StoredShipment(**shipment) for shipment in found]


async def _barriers(mesh: Mesh) -> list[Record]:
    found: list[Record] = []
    for name in ("order", "payment", "fulfillment"):
        stored = await rows(mesh.dsn(name), "select saga_id, step, state from barrier")
        found += [StoredBarrier(participant=name, **row) for row in stored]
    return found + await asyncio.to_thread(_mongo_barriers, mesh.mongodb.uri)


def _mongo_barriers(uri: str) -> list[Record]:
    with MongoClient[dict[str, Any]](uri) as client:
        documents = list(client[MONGODB_DATABASE][BARRIER].find({}, {"state": 1}))
    return [
        StoredBarrier(
            participant="inventory",
            saga_id=str(document["_id"]).partition(":")[0],
            step=str(document["_id"]).partition(":")[2],
            state=document["state"],
        )
        for document in documents
    ]


async def rows(dsn: str, query: LiteralString, *arguments: object) -> list[dict[str, Any]]:
    """Rows by column name."""
    async with await psycopg.AsyncConnection.connect(
        dsn, connect_timeout=2, row_factory=dict_row
    ) as connection:
        return await (await connection.execute(query, arguments)).fetchall()
