"""Stock as people see it, in the documents that the barrier reserves in.

A document without `available` is no product; see `mesh.barrier.mongo_operations`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import AsyncMongoClient

from mesh.barrier.mongo import Database, database_errors, durable
from mesh.barrier.mongo_operations import STOCK, Document

_SEEN = {"available": 1, "reserved": 1}
_PRODUCT = {"available": {"$exists": True}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """The stock of one product."""

    product_id: str
    available: int
    reserved: int


class StockStore:
    """Reads and sets stock. Everything raises Retry while the database is away."""

    def __init__(self, database: Database) -> None:
        self._stock = durable(database)[STOCK]

    async def set_available(self, product_id: str, available: int) -> None:
        """Set how many can be reserved from now on; what is reserved stays. Creates the product."""
        with database_errors():
            await self._stock.update_one(
                {"_id": product_id},
                {
                    "$set": {"available": available},
                    "$setOnInsert": {"reserved": 0, "reservations": {}},
                },
                upsert=True,
            )

    async def get(self, product_id: str) -> Stock | None:
        """The stock of one product; None when there is no such product."""
        with database_errors():
            found = await self._stock.find_one({"_id": product_id, **_PRODUCT}, _SEEN)
        return None if found is None else _stock(found)

    async def page(self, after: str, limit: int) -> Sequence[Stock]:
        """At most `limit` products whose ids come after this one, in order of their UTF-8."""
        with database_errors():
            found = self._stock.find({"_id": {"$gt": after}, **_PRODUCT}, _SEEN)
            return [_stock(document) async for document in found.sort("_id", 1).limit(limit)]


def connect(uri: str) -> AsyncMongoClient[dict[str, Any]]:
    """A client that connects on first use and gives up on a silent server within seconds.

    It retries no write by itself: the barrier reads what became of one.
    """
    return AsyncMongoClient(
        uri,
        appname="inventory",
        retryWrites=False,
        connectTimeoutMS=5_000,
        serverSelectionTimeoutMS=5_000,
        socketTimeoutMS=10_000,
    )


def ready(client: AsyncMongoClient[dict[str, Any]]) -> Callable[[], Awaitable[None]]:
    """A readiness probe for `mesh.server.Server`: raises while there is no server to write to."""

    async def probe() -> None:
        with database_errors():
            await client.admin.command("ping")

    return probe


def _stock(document: Document) -> Stock:
    return Stock(
        product_id=document["_id"],
        available=document["available"],
        reserved=document["reserved"],
    )
