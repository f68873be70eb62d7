"""Two-phase commit, as it is done right: prepare both, write the decision down, commit both.

    python -m bench.two_phase.prepared --orders DSN --inventory DSN --log DSN --in-flight 64

places orders until it is killed. Without the decision on disk a coordinator that comes back could
not tell what to do with what it finds prepared: `recover` commits what was decided, and rolls back
the rest.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Self

import psycopg
from psycopg import AsyncConnection

from bench.two_phase.orders import TAKE_STOCK, WRITE_ORDER, Databases, Order, customers

DECISIONS = "CREATE TABLE decision (gid text PRIMARY KEY)"
_DECIDE = "INSERT INTO decision VALUES (%s)"
_DECIDED = "SELECT gid FROM decision"


class TwoPhaseCommit:
    """One caller with its three sessions; `async with` connects."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._orders = await self._connect(self._databases.orders)
        self._inventory = await self._connect(self._databases.inventory)
        self._log = await self._connect(self._databases.log)
        await self._log.set_autocommit(True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _connect(self, dsn: str) -> AsyncConnection:
        return await self._stack.enter_async_context(await AsyncConnection.connect(dsn))

    async def place(self, order: Order) -> None:
        """Place an order: both databases have it when this returns."""
        await asyncio.gather(
            _prepare(self._orders, order, WRITE_ORDER), _prepare(self._inventory, order, TAKE_STOCK)
        )
        await self._log.execute(_DECIDE, (order.order_id,))
        await asyncio.gather(self._orders.tpc_commit(), self._inventory.tpc_commit())


async def _prepare(connection: AsyncConnection, order: Order, statement: str) -> None:
    await connection.tpc_begin(order.order_id)
    await connection.execute(statement.encode(), order.values())
    await connection.tpc_prepare()


async def recover(databases: Databases) -> int:
    """What a coordinator does when it is back: end all that is prepared; returns how many."""
    async with await AsyncConnection.connect(databases.log) as log:
        decided = {str(gid) for (gid,) in await (await log.execute(_DECIDED)).fetchall()}
    ended = 0
    for dsn in (databases.orders, databases.inventory):
        async with await AsyncConnection.connect(dsn) as connection:
            for xid in await connection.tpc_recover():
                if xid.gtrid in decided:
                    await connection.tpc_commit(xid)
                else:
                    await connection.tpc_rollback(xid)
                ended += 1
    return ended


async def _place_all(databases: Databases, orders: Iterator[Order]) -> None:
    async with TwoPhaseCommit(databases) as caller:
        for order in orders:
            await caller.place(order)


async def _main(told: argparse.Namespace) -> None:
    databases = Databases(told.orders, told.inventory, told.log)
    orders = customers()
    await asyncio.gather(*(_place_all(databases, orders) for _ in range(told.in_flight)))


async def create_log(dsn: str) -> None:
    """Make the table of decisions."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute(DECISIONS)


if __name__ == "__main__":
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("orders", "inventory", "log"):
        flags.add_argument(f"--{name}", required=True, metavar="DSN")
    flags.add_argument("--in-flight", type=int, default=1)
    asyncio.run(_main(flags.parse_args()))
