"""What the databases and the provider themselves say, read past every service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from pymongo import MongoClient

from local.mesh import MONGODB_DATABASE, Mesh
from local.sandbox import Charge, Sandbox


@dataclass(frozen=True, slots=True)
class Stock:
    """One product: how many can be sold, and how many are held for orders."""

    available: int
    reserved: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Everything that is written down about one order."""

    order: tuple[str, int] | None
    """State and total in minor units; None when there is no such order."""
    charges: tuple[Charge, ...]
    shipments: tuple[str, ...]
    """State of each."""
    stock: Mapping[str, Stock]


async def read_books(mesh: Mesh, order_id: str, saga_id: str, products: Iterable[str]) -> Books:
    """Read all stores about one order."""
    orders = await _rows(
        mesh.dsn("order"), "select state, total_minor from orders where order_id = %s", order_id
    )
    shipments = await _rows(
        mesh.dsn("fulfillment"), "select state from shipment where order_id = %s", order_id
    )
    return Books(
        order=next(iter(orders), None),
        charges=tuple(await Sandbox(mesh.sandbox_url).charges(saga_id)),
        shipments=tuple(state for (state,) in shipments),
        stock=await read_stock(mesh, products),
    )


async def read_stock(mesh: Mesh, products: Iterable[str]) -> dict[str, Stock]:
    """Read the stock of some products."""
    return await asyncio.to_thread(_stock, mesh.mongodb.uri, list(products))


def _stock(uri: str, products: list[str]) -> dict[str, Stock]:
    with MongoClient[dict[str, Any]](uri) as client:
        found = client[MONGODB_DATABASE].stock.find({"_id": {"$in": products}})
        return {each["_id"]: Stock(each["available"], each["reserved"]) for each in found}


async def _rows(dsn: str, query: LiteralString, key: str) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        return await (await connection.execute(query, [key])).fetchall()
