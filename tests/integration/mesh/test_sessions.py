"""Sessions at hand: kept while they are sound, and never when they may not be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import psycopg
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mesh import sessions
from mesh.errors import Overloaded, Retry
from mesh.postgres import create_engine, session, transaction
from mesh.statement import Statement, ask
from tests.locks import waiting

PID = Statement("pid", "SELECT pg_backend_pid()::bigint")
FAIL = Statement("fail", "SELECT 1 / %(by)s", {"by": "bigint"})
LOCK = Statement("lock", "SELECT pg_advisory_xact_lock(1)")
BEGIN_BY_HAND = Statement("", "BEGIN")
OTHERS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
)


@pytest_asyncio.fixture
async def four(postgres_dsn: str) -> AsyncIterator[AsyncEngine]:
    """An engine of four sessions, of which two may be at hand."""
    engine = create_engine(postgres_dsn, pool_size=4)
    yield engine
    await engine.dispose()


async def pid(connection: AsyncConnection) -> bytes | None:
    ((row,),) = await ask(connection, PID())
    return row[0]


async def pid_of_next(engine: AsyncEngine) -> bytes | None:
    async with session(engine) as db:
        return await pid(db)


async def count_of_others(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int((await connection.execute(OTHERS)).scalar_one())


async def test_the_one_that_was_used_last_is_taken_first(four: AsyncEngine) -> None:
    async with session(four) as db:
        first = await pid(db)
        second = await pid_of_next(four)

    assert second != first
    assert await pid_of_next(four) == first
    assert await pid_of_next(four) == first


async def test_one_that_a_statement_has_failed_on_is_sound(four: AsyncEngine) -> None:
    async with session(four) as db:
        before = await pid(db)
        with pytest.raises(psycopg.errors.DivisionByZero):
            await ask(db, FAIL(by=0))

    assert await pid_of_next(four) == before


async def test_one_that_is_left_in_a_transaction_is_out_of_it_when_it_is_taken(
    four: AsyncEngine,
) -> None:
    async with session(four) as db:
        await db.execute(text("CREATE TABLE half ()"))
    async with session(four) as db:
        await ask(db, BEGIN_BY_HAND(), Statement("", "CREATE TABLE half ()")())
    async with session(four) as db:
        assert not db.in_transaction()
        ((row,),) = await ask(db, Statement("", "SELECT to_regclass('half')::text")())
        assert row == [None]


async def test_one_that_is_cancelled_while_it_is_asked_is_not_kept(four: AsyncEngine) -> None:
    async with transaction(four) as tx:
        await ask(tx, LOCK())
        asking = asyncio.create_task(_ask_for_the_lock(four))
        await waiting(four, 1)
        asking.cancel()
        await asyncio.sleep(0)
        asking.cancel()  # while the question is being given up
        with pytest.raises(asyncio.CancelledError):
            await asking
    for _ in range(3):
        await pid_of_next(four)


async def _ask_for_the_lock(engine: AsyncEngine) -> None:
    async with session(engine) as db:
        await ask(db, LOCK())


async def test_one_that_ended_while_it_was_idle_is_replaced_also_when_all_have(
    four: AsyncEngine, engine: AsyncEngine
) -> None:
    async with session(four), session(four):
        pass
    async with engine.connect() as connection:
        await connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    async with session(four) as one, session(four) as other:
        assert await pid(one) != await pid(other)
    assert await count_of_others(engine) == 2


async def test_half_of_the_sessions_are_left_to_transactions(
    four: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "PATIENCE_SECONDS", 0.02)
    async with AsyncExitStack() as taken:
        for _ in range(2):
            await taken.enter_async_context(session(four))
        with pytest.raises(Overloaded) as busy:
            async with session(four):
                pass
        assert busy.value.reason == "DATABASE_BUSY"
        async with transaction(four), transaction(four) as tx:
            await ask(tx, PID())


async def test_who_waits_for_a_session_gets_it_in_turn(four: AsyncEngine) -> None:
    got: list[int] = []
    async with session(four), session(four):
        pass

    async def take(number: int) -> None:
        async with session(four):
            got.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(take(number) for number in range(9)))

    assert got == list(range(9))


async def test_who_gives_up_waiting_takes_no_place(four: AsyncEngine) -> None:
    async with session(four), session(four):
        waiter = asyncio.create_task(pid_of_next(four))
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
    async with session(four) as one, session(four) as other:
        assert await pid(one) != await pid(other)


async def test_a_place_is_free_again_when_there_was_no_session_to_be_had() -> None:
    away = create_engine("postgresql://postgres@127.0.0.1:1/nowhere", pool_size=2)

    for _ in range(3):
        with pytest.raises(Retry):
            await pid_of_next(away)


async def test_the_only_session_of_a_pool_is_lent_and_not_kept(postgres_dsn: str) -> None:
    engine = create_engine(postgres_dsn, pool_size=1)
    for _ in range(2):
        await pid_of_next(engine)
        async with transaction(engine) as tx:
            await ask(tx, PID())
    await engine.dispose()


async def test_when_the_engine_is_disposed_of_none_stays_open(
    four: AsyncEngine, engine: AsyncEngine
) -> None:
    async with session(four):
        await pid_of_next(four)
    assert await count_of_others(engine) == 2

    await four.dispose()

    assert await count_of_others(engine) == 0


async def test_an_engine_that_is_used_again_opens_new_ones(
    four: AsyncEngine, engine: AsyncEngine
) -> None:
    before = await pid_of_next(four)
    await four.dispose()

    after = await pid_of_next(four)

    assert after not in {None, before}
    assert await pid_of_next(four) == after
    assert await count_of_others(engine) == 1
