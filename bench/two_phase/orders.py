"""The order that both ways place: a row in one database, stock taken in another.

Both send the same two statements; what else they send is what they are.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from uuid_utils import uuid7

PRODUCTS = 1_000
PLENTY = 1_000_000_000

ORDERS = "CREATE TABLE orders (order_id text PRIMARY KEY, product_id text NOT NULL)"
STOCK = """
CREATE TABLE stock (product_id text PRIMARY KEY, available bigint NOT NULL CHECK (available >= 0))
WITH (fillfactor = 50)
"""
_FILL = "INSERT INTO stock SELECT 'product-' || n, %s FROM generate_series(0, %s - 1) AS n"

WRITE_ORDER = "INSERT INTO orders VALUES (%(order_id)s, %(product_id)s)"
TAKE_STOCK = "UPDATE stock SET available = available - 1 WHERE product_id = %(product_id)s"


@dataclass(frozen=True, slots=True)
class Databases:
    """DSNs: the two that an order is about, and the one in which its coordinator keeps its log."""

    orders: str
    inventory: str
    log: str


@dataclass(frozen=True, slots=True)
class Order:
    """One of one product."""

    order_id: str
    product_id: str

    def values(self) -> dict[str, str]:
        """For both statements."""
        return {"order_id": self.order_id, "product_id": self.product_id}


def customers(products: int = PRODUCTS) -> Iterator[Order]:
    """Orders of so many products, the same ones every time, without an end."""
    chance = random.Random(1)  # noqa: S311 - no secret
    for _ in itertools.count():
        yield Order(str(uuid7()), f"product-{chance.randrange(products)}")


async def create(databases: Databases) -> None:
    """Make the tables of both databases, and the stock."""
    async with await psycopg.AsyncConnection.connect(databases.orders) as connection:
        await connection.execute(ORDERS)
    async with await psycopg.AsyncConnection.connect(databases.inventory) as connection:
        await connection.execute(STOCK)
        await connection.execute(_FILL, (PLENTY, PRODUCTS))


async def ask(dsn: str, query: str, *values: int) -> int:
    """The one number that a query gives."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        row = await (await connection.execute(query.encode(), values)).fetchone()
    return int(row[0]) if row else 0
