"""A coordinator is killed while orders are in flight: what it leaves behind, and for how long."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator

import grpc.aio
import msgspec
import psycopg
from psycopg import sql
from uuid_utils import uuid7

from bench.two_phase.load import Throughput, measure
from bench.two_phase.orders import PLENTY, TAKE_STOCK, Order, ask, customers
from bench.two_phase.prepared import recover
from bench.two_phase.world import LEASE_SECONDS, Coordinator, SagaCaller, Sagas, World
from local.processes import Process
from local.until import until

IN_FLIGHT = 64
OTHERS = 16
LOCK_TIMEOUT_S = 5

_UNDER_LOAD = 300
"""Orders after which the coordinator is killed."""
_TRIES = 5
_PATIENCE_S = 60
_SETTLED_S = 0.2
"""After a kill: the participants have answered what they were asked."""
_PREPARED = "SELECT count(*) FROM pg_prepared_xacts"
_LOCKS = "SELECT count(*) FROM pg_locks WHERE pid IS NULL"
"""Held by no session: by prepared transactions."""
_LOCKED_ROWS = """
WITH free AS (SELECT FROM stock FOR UPDATE SKIP LOCKED)
SELECT (SELECT count(*) FROM stock) - (SELECT count(*) FROM free)
"""
_A_LOCKED_PRODUCT = """
WITH free AS (SELECT product_id FROM stock FOR UPDATE SKIP LOCKED)
SELECT product_id FROM stock EXCEPT SELECT product_id FROM free LIMIT 1
"""
_PLACED = "SELECT count(*) FROM orders"
_TAKEN = "SELECT sum(%s - available)::bigint FROM stock"
_A_PRODUCT = "SELECT product_id FROM orders WHERE order_id = ANY(%s) LIMIT 1"
_UNFINISHED = "SELECT saga_id FROM saga.saga WHERE state IN ('RUNNING', 'COMPENSATING')"


class TwoPhaseCrash(msgspec.Struct, frozen=True, kw_only=True):
    """What is left when nobody commits what is prepared."""

    prepared_orders: int
    """Transactions, in the database of orders."""
    prepared_inventory: int
    locks: int
    """In pg_locks of both servers, held by no session."""
    stock_rows_locked: int
    waited_s: float
    """A second transaction on one of them: until its lock_timeout."""
    stock_rows_locked_after_restart: int
    """Of the inventory's server: prepared transactions are on disk."""
    ended: int
    """By the coordinator's recovery, once it was started by hand."""
    recovery_ms: float


class SagaCrash(msgspec.Struct, frozen=True, kw_only=True):
    """What is left when another coordinator takes over."""

    unfinished: int
    """Sagas."""
    orders_without_stock: int
    """Visible to everybody in the meantime."""
    locks: int
    """Held by no session, as above."""
    stock_rows_locked: int
    same_product_ms: float
    """Another order of a product of one of them."""
    others: Throughput
    """Orders of `OTHERS` other callers for as long as the lease of the dead one lasts."""
    taken_over_s: float
    """From the kill until all of them have ended."""


async def crash_two_phase(world: World) -> TwoPhaseCrash:
    """Kill a coordinator of ours that does two-phase commit.

    Raises:
        RuntimeError: it was never caught in the middle.
    """
    for _ in range(_TRIES):
        await _place_until_killed(world)
        locked = await ask(world.two_phase.inventory, _LOCKED_ROWS)
        if locked:
            return await _left(world, locked)
        await recover(world.two_phase)
    raise RuntimeError("whenever it was killed, nothing was prepared")


async def _place_until_killed(world: World) -> None:
    databases = world.two_phase
    before = await ask(databases.orders, _PLACED)
    dsns = [f"--{name}={getattr(databases, name)}" for name in ("orders", "inventory", "log")]
    module = "bench.two_phase.prepared"
    command = [sys.executable, "-m", module, *dsns, f"--in-flight={IN_FLIGHT}"]

    async def busy() -> bool:
        return await ask(databases.orders, _PLACED) > before + _UNDER_LOAD

    log = world.folder / "logs" / "two-phase.log"
    coordinator = Process("two-phase", command, log=log, ready=busy)
    await coordinator.start()
    await coordinator.kill()


async def _left(world: World, locked: int) -> TwoPhaseCrash:
    orders, inventory = world.two_phase.orders, world.two_phase.inventory
    prepared = await ask(orders, _PREPARED), await ask(inventory, _PREPARED)
    locks = await ask(orders, _LOCKS) + await ask(inventory, _LOCKS)
    waited = await _wait_for_a_locked_row(inventory)
    await world.inventory.stop()
    await world.inventory.start()
    after_restart = await ask(inventory, _LOCKED_ROWS)
    begun = time.perf_counter()
    ended = await recover(world.two_phase)
    return TwoPhaseCrash(
        prepared_orders=prepared[0],
        prepared_inventory=prepared[1],
        locks=locks,
        stock_rows_locked=locked,
        waited_s=waited,
        stock_rows_locked_after_restart=after_restart,
        ended=ended,
        recovery_ms=(time.perf_counter() - begun) * 1e3,
    )


async def _wait_for_a_locked_row(dsn: str) -> float:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        row = await (await connection.execute(_A_LOCKED_PRODUCT.encode())).fetchone()
        product = row[0] if row else ""
        timeout = sql.Literal(f"{LOCK_TIMEOUT_S}s")
        await connection.execute(sql.SQL("SET lock_timeout = {}").format(timeout))
        begun = time.perf_counter()
        try:
            await connection.execute(TAKE_STOCK.encode(), {"product_id": product})
        except psycopg.errors.LockNotAvailable:
            return time.perf_counter() - begun
    raise RuntimeError("the row was not locked")


async def crash_saga(world: World, sagas: Sagas) -> SagaCrash:
    """Kill the coordinator that all orders go to; a second one is there."""
    first, second = sagas.coordinators
    async with SagaCaller(second.address) as caller:
        await caller.place(next(customers()))  # it is connected
        await _load_until_killed(world, first)
        killed = time.perf_counter()
        await asyncio.sleep(_SETTLED_S)
        left = await _unfinished(world)
        orders, inventory = world.saga.orders, world.saga.inventory
        visible = await ask(orders, _PLACED) - await ask(inventory, _TAKEN, PLENTY)
        locks = await ask(orders, _LOCKS) + await ask(inventory, _LOCKS)
        locked = await ask(inventory, _LOCKED_ROWS)
        async with asyncio.TaskGroup() as tasks:
            ended = tasks.create_task(_ended(world, left))
            same_product_ms = await _place_the_same(world, caller, left)
            others = await _others(second)
    return SagaCrash(
        unfinished=len(left),
        orders_without_stock=visible,
        locks=locks,
        stock_rows_locked=locked,
        same_product_ms=same_product_ms,
        others=others,
        taken_over_s=ended.result() - killed,
    )


async def _load_until_killed(world: World, coordinator: Coordinator) -> None:
    enough = await ask(world.saga.orders, _PLACED) + _UNDER_LOAD

    async def busy() -> bool:
        return await ask(world.saga.orders, _PLACED) > enough

    orders = customers()
    async with SagaCaller(coordinator.address) as caller:
        loops = [asyncio.create_task(_place_all(caller, orders)) for _ in range(IN_FLIGHT)]
        await until(busy, seconds=_PATIENCE_S)
        await coordinator.process.kill()
        ends = await asyncio.gather(*loops, return_exceptions=True)
    if odd := [end for end in ends if not isinstance(end, grpc.aio.AioRpcError)]:
        raise RuntimeError(f"callers have not heard that nobody is there: {odd}")


async def _place_all(caller: SagaCaller, orders: Iterator[Order]) -> None:
    for order in orders:
        await caller.place(order)


async def _unfinished(world: World) -> frozenset[str]:
    async with await psycopg.AsyncConnection.connect(world.saga.log) as connection:
        found = await (await connection.execute(_UNFINISHED.encode())).fetchall()
    return frozenset(str(saga_id) for (saga_id,) in found)


async def _ended(world: World, saga_ids: frozenset[str]) -> float:
    """When none of them is unfinished any more."""

    async def all_ended() -> bool:
        return not saga_ids & await _unfinished(world)

    if not await until(all_ended, seconds=_PATIENCE_S):
        raise RuntimeError("sagas were not taken over")
    return time.perf_counter()


async def _place_the_same(world: World, caller: SagaCaller, saga_ids: frozenset[str]) -> float:
    """Order what one of these sagas is about; how long that took, in ms."""
    async with await psycopg.AsyncConnection.connect(world.saga.orders) as connection:
        found = await connection.execute(_A_PRODUCT.encode(), (list(saga_ids),))
        row = await found.fetchone()
    begun = time.perf_counter()
    await caller.place(Order(str(uuid7()), str(row[0]) if row else "product-0"))
    return (time.perf_counter() - begun) * 1e3


async def _others(coordinator: Coordinator) -> Throughput:
    callers = [SagaCaller(coordinator.address) for _ in range(OTHERS)]
    return await measure(callers, customers(), LEASE_SECONDS)
