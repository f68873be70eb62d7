from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta

import pytest
from sqlalchemy import delete, func, insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from mesh.barrier.purge import purge, purging
from mesh.barrier.rules import BarrierState
from mesh.barrier.tables import barrier, create_barrier, drop_barrier, renew_barrier
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
    {"state": "DOING", **REQUEST, "saga_id": "s" * 64, "step": "s" * 48},
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
    {"state": "DOING", **REQUEST, "saga_id": "-saga"},
    {"state": "DOING", **REQUEST, "saga_id": "s" * 65},
    {"state": "DOING", **REQUEST, "saga_id": ""},
    {"state": "DOING", **REQUEST, "saga_id": "saga\n"},
    {"state": "DOING", **REQUEST, "step": "CreateOrder"},
    {"state": "DOING", **REQUEST, "step": "s" * 49},
    {"state": "DOING", **REQUEST, "step": ""},
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


EARLIER = """
    ALTER TABLE barrier DROP CONSTRAINT barrier_possible,
      ADD CONSTRAINT of_an_operator CHECK (step <> 'forbidden'),
      ADD CONSTRAINT barrier_state CHECK
        (state IN ('DOING', 'DONE', 'REJECTED', 'COMPENSATING', 'COMPENSATED')),
      ADD CONSTRAINT barrier_saga_id CHECK (saga_id ~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$'),
      ADD CONSTRAINT barrier_step CHECK (step ~ '^[a-z][a-z0-9_]{0,47}$'),
      ADD CONSTRAINT barrier_request_sha256 CHECK
        ((request IS NULL) = (request_sha256 IS NULL)),
      ADD CONSTRAINT barrier_sha256_length CHECK (octet_length(request_sha256) = 32),
      ADD CONSTRAINT barrier_request_size CHECK (octet_length(request) <= 1048576),
      ADD CONSTRAINT barrier_response_size CHECK (octet_length(response) <= 1048576),
      ADD CONSTRAINT barrier_has_request CHECK (request IS NOT NULL
        OR (state = 'COMPENSATED' AND response IS NULL AND rejection IS NULL)),
      ADD CONSTRAINT barrier_has_outcome CHECK (CASE state
        WHEN 'DOING' THEN response IS NULL AND rejection IS NULL
        WHEN 'DONE' THEN response IS NOT NULL AND rejection IS NULL
        WHEN 'REJECTED' THEN response IS NULL AND rejection IS NOT NULL
        WHEN 'COMPENSATING' THEN rejection IS NULL
        ELSE response IS NULL OR rejection IS NULL END),
      ADD CONSTRAINT barrier_stage CHECK (stage >= 0);
    DROP FUNCTION barrier_is_possible
"""
"""What a table is like that the first release has made."""


@pytest.fixture
async def earlier(engine: AsyncEngine) -> AsyncEngine:
    """A table of the first release, with rows of every kind in it."""
    async with engine.begin() as connection:
        await connection.execute(text(EARLIER))
        for number, values in enumerate(POSSIBLE):
            row = {**ROW, **values, "saga_id": f"earlier-{number}"}
            await connection.execute(insert(barrier).values(row))
    return engine


async def test_a_table_of_an_earlier_release_is_renewed_with_the_rows_that_are_in_it(
    earlier: AsyncEngine,
) -> None:
    async with earlier.begin() as connection:
        for _ in range(2):
            await connection.run_sync(renew_barrier)
        changed = await connection.execute(update(barrier).values(update_time=func.now()))
        assert changed.rowcount == len(POSSIBLE)
        for values in POSSIBLE:
            await connection.execute(insert(barrier).values({**ROW, **values}))
            await connection.execute(delete(barrier).where(barrier.c.saga_id == "saga-1"))


async def test_a_table_of_an_earlier_release_refuses_the_same_rows_once_it_is_renewed(
    earlier: AsyncEngine,
) -> None:
    await test_no_impossible_row_can_be_stored(earlier)
    async with earlier.begin() as connection:
        await connection.run_sync(renew_barrier)

    await test_no_impossible_row_can_be_stored(earlier)


async def test_checks_that_are_not_ours_outlive_a_renewal(earlier: AsyncEngine) -> None:
    async with earlier.begin() as connection:
        await connection.run_sync(renew_barrier)
        found = await connection.run_sync(
            lambda sync: inspect(sync).get_check_constraints("barrier")
        )

    assert {check["name"] for check in found} == {"barrier_possible", "of_an_operator"}


async def test_a_table_of_an_earlier_release_can_be_dropped(earlier: AsyncEngine) -> None:
    async with earlier.begin() as connection:
        await connection.run_sync(drop_barrier)


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
