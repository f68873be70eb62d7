from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta

import pytest
from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from mesh.barrier.purge import purge, purging
from mesh.barrier.rules import BarrierState
from mesh.barrier.tables import barrier, create_barrier, drop_barrier
from mesh.step import MAX_MESSAGE_BYTES

REQUEST = {"request": b"r", "request_sha256": hashlib.sha256(b"r").digest()}
RESPONSE = {"response": b""}
REJECTION = {"rejection": b"s"}
ROW = {"saga_id": "saga-1", "step": "create_order", "service": "order.v1.CreateOrder"}

POSSIBLE: list[Mapping[str, object]] = [
    {"state": "DOING", **REQUEST},
    {"state": "DONE", **REQUEST, **RESPONSE},
    {"state": "REJECTED", **REQUEST, **REJECTION},
    {"state": "COMPENSATING", **REQUEST},
    {"state": "COMPENSATING", **REQUEST, **RESPONSE},
    {"state": "COMPENSATED"},
    {"state": "COMPENSATED", **REQUEST},
    {"state": "COMPENSATED", **REQUEST, **RESPONSE},
    {"state": "COMPENSATED", **REQUEST, **REJECTION},
]
IMPOSSIBLE: list[Mapping[str, object]] = [
    {"state": "PENDING", **REQUEST},
    {"state": "DOING"},
    {"state": "DOING", **REQUEST, **RESPONSE},
    {"state": "DOING", **REQUEST, **REJECTION},
    {"state": "DONE", **REQUEST},
    {"state": "DONE", **RESPONSE},
    {"state": "DONE", **REQUEST, **RESPONSE, **REJECTION},
    {"state": "REJECTED", **REQUEST},
    {"state": "REJECTED", **REQUEST, **RESPONSE},
    {"state": "REJECTED", **REJECTION},
    {"state": "COMPENSATING"},
    {"state": "COMPENSATING", **REQUEST, **REJECTION},
    {"state": "COMPENSATED", **RESPONSE},
    {"state": "COMPENSATED", **REJECTION},
    {"state": "COMPENSATED", **REQUEST, **RESPONSE, **REJECTION},
    {"state": "DOING", "request": b"r"},
    {"state": "DOING", "request": b"r", "request_sha256": b"short"},
    {"state": "DOING", **REQUEST, "request": b"r" * (MAX_MESSAGE_BYTES + 1)},
    {"state": "DONE", **REQUEST, "response": b"r" * (MAX_MESSAGE_BYTES + 1)},
    {"state": "DOING", **REQUEST, "saga_id": "saga:1"},
    {"state": "DOING", **REQUEST, "step": "CreateOrder"},
    {"state": "DOING", **REQUEST, "stage": -1},
]


@pytest.mark.parametrize("values", POSSIBLE, ids=str)
async def test_a_possible_row_can_be_stored(
    engine: AsyncEngine, values: Mapping[str, object]
) -> None:
    async with engine.begin() as connection:
        await connection.execute(insert(barrier).values({**ROW, **values}))


async def test_no_impossible_row_can_be_stored(engine: AsyncEngine) -> None:
    for values in IMPOSSIBLE:
        async with engine.connect() as connection:
            with pytest.raises(DBAPIError, match="check constraint"):
                await connection.execute(insert(barrier).values({**ROW, **values}))


async def test_one_step_of_a_saga_has_one_row(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(insert(barrier).values({**ROW, **POSSIBLE[0]}))
        with pytest.raises(DBAPIError, match="unique constraint"):
            await connection.execute(insert(barrier).values({**ROW, **POSSIBLE[5]}))


async def test_the_table_can_be_dropped_and_created_again(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(drop_barrier)
        await connection.run_sync(create_barrier)


async def store_aged(engine: AsyncEngine, age: timedelta) -> None:
    """One row of every state, last touched so long ago."""
    async with engine.begin() as connection:
        for values in (POSSIBLE[0], POSSIBLE[1], POSSIBLE[2], POSSIBLE[3], POSSIBLE[5]):
            saga_id = f"{values['state']}-{age.days}"
            await connection.execute(insert(barrier).values({**ROW, **values, "saga_id": saga_id}))
            aged = update(barrier).where(barrier.c.saga_id == saga_id)
            await connection.execute(aged.values(update_time=func.now() - age))


async def states_left(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        rows = await connection.execute(select(barrier.c.saga_id).order_by(barrier.c.saga_id))
        return list(rows.scalars())


async def test_a_purge_keeps_what_may_still_be_needed(engine: AsyncEngine) -> None:
    for age in (29, 31, 399, 401):
        await store_aged(engine, timedelta(days=age))

    deleted = await purge(engine, done_retention=timedelta(days=400), batch=2)

    kept = await states_left(engine)
    ages = {
        state: [days for days in (29, 31, 399, 401) if f"{state}-{days}" in kept]
        for state in BarrierState
    }
    assert ages == {
        BarrierState.DOING: [29, 31, 399, 401],
        BarrierState.DONE: [29, 31, 399],
        BarrierState.REJECTED: [29],
        BarrierState.COMPENSATING: [29, 31, 399, 401],
        BarrierState.COMPENSATED: [29],
    }
    assert deleted == 7


async def test_a_purge_passes_over_rows_in_use(engine: AsyncEngine) -> None:
    await store_aged(engine, timedelta(days=401))
    async with engine.connect() as user:
        await user.execute(
            select(barrier).where(barrier.c.state == BarrierState.DONE).with_for_update()
        )
        assert await purge(engine, done_retention=timedelta(days=400)) == 2
    assert await purge(engine, done_retention=timedelta(days=400)) == 1


async def test_a_service_purges_in_the_background(engine: AsyncEngine) -> None:
    await store_aged(engine, timedelta(days=401))

    async with purging(engine, done_retention=timedelta(days=400), every=timedelta(seconds=0.01)):
        while len(await states_left(engine)) > 2:
            pass
