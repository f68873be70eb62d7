"""Statements asked past SQLAlchemy: in its transactions, outside of them, and in trouble."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from mesh.errors import Conflict, Retry
from mesh.postgres import create_engine, session, transaction
from mesh.statement import COMMIT, Statement, ask, is_begun, session_of

KEEP = Statement(
    "keep", "INSERT INTO kept VALUES (%(name)s, %(size)s)", {"name": "text", "size": "bigint"}
)
FIND = Statement("find", "SELECT name, size FROM kept ORDER BY name")
DIVIDE = Statement("divide", "SELECT 1 / %(by)s", {"by": "bigint"})
SOON = Statement("", "SET LOCAL lock_timeout = '20ms'")
WAITING = Statement(
    "waiting", "SELECT true FROM pg_locks WHERE relation = 'kept'::regclass AND NOT granted"
)
END_SESSION = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture(autouse=True)
async def _kept(engine: AsyncEngine) -> None:
    async with transaction(engine) as tx:
        await tx.execute(text("CREATE TABLE kept (name text PRIMARY KEY, size bigint)"))


async def kept(engine: AsyncEngine) -> list[str | None]:
    async with session(engine) as db:
        (found,) = await ask(db, FIND())
    return [None if name is None else name.decode() for name, _ in found]


async def test_what_is_prepared_outlives_what_sqlalchemy_repeats_and_takes_back(
    engine: AsyncEngine,
) -> None:
    async with engine.connect() as connection:
        for _ in range(10):  # from the fifth time on psycopg would prepare it
            await connection.execute(text("SELECT 1"))
        await ask(connection, KEEP(name="never", size=0), FIND())
        await connection.rollback()
        assert (await ask(connection, FIND())) == [[]]
        await ask(connection, KEEP(name="a", size=1), COMMIT)

    assert await kept(engine) == ["a"]


async def test_what_is_asked_sees_what_is_committed_whatever_the_database_would_have_by_default(
    engine: AsyncEngine, postgres_dsn: str
) -> None:
    name = urlsplit(postgres_dsn).path[1:]
    strict = text(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    async with transaction(engine) as tx:
        await tx.execute(strict)
    level = Statement("level", "SELECT current_setting('transaction_isolation')")
    other = create_engine(postgres_dsn)

    for open_one in (session, transaction):
        async with open_one(other) as db:
            assert await ask(db, level()) == [[[b"read committed"]]]
    await other.dispose()


async def test_values_come_back_as_they_were_sent(engine: AsyncEngine) -> None:
    async with transaction(engine) as tx:
        _, found = await ask(tx, KEEP(name="ä", size=-7), FIND())

    assert found == [["ä".encode(), (-7).to_bytes(8, signed=True)]]


async def test_a_question_and_sqlalchemy_are_in_one_transaction(engine: AsyncEngine) -> None:
    async with engine.connect() as connection, connection.begin() as begun:
        await ask(connection, KEEP(name="a", size=1))
        await connection.execute(text("INSERT INTO kept VALUES ('b', 2)"))
        await begun.rollback()

    assert await kept(engine) == []


async def test_commit_ends_the_transaction_in_the_same_round_trip(engine: AsyncEngine) -> None:
    async with transaction(engine) as tx:
        await ask(tx, KEEP(name="a", size=1), COMMIT)

        assert not is_begun(tx)
        assert await kept(engine) == ["a"]


async def test_what_is_refused_takes_its_round_trip_with_it(engine: AsyncEngine) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        async with session(engine) as db:
            await ask(db, KEEP(name="a", size=1), DIVIDE(by=0))

    assert await kept(engine) == []


async def test_a_session_goes_on_after_a_refusal_with_what_it_has_prepared(
    engine: AsyncEngine,
) -> None:
    async with session(engine) as db:
        for _ in range(2):
            with pytest.raises(psycopg.errors.DivisionByZero):
                await ask(db, DIVIDE(by=0), KEEP(name="never", size=0))
        await ask(db, DIVIDE(by=1), KEEP(name="a", size=1))

    assert await kept(engine) == ["a"]


async def test_a_question_that_is_given_up_leaves_a_session_of_use(postgres_dsn: str) -> None:
    engine = create_engine(postgres_dsn, pool_size=2)
    lock = Statement("lock", "LOCK TABLE kept")
    async with transaction(engine) as other:
        await ask(other, lock())
        async with session(engine) as db:
            waiting = asyncio.create_task(ask(db, KEEP(name="a", size=1)))
            while await ask(other, WAITING()) == [[]]:
                await asyncio.sleep(0.005)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await ask(db, DIVIDE(by=1))
    assert await kept(engine) == []
    await engine.dispose()


async def test_who_is_cancelled_again_while_a_question_is_given_up_is_cancelled(
    postgres_dsn: str,
) -> None:
    engine = create_engine(postgres_dsn, pool_size=2)
    asked: asyncio.Future[psycopg.AsyncConnection] = asyncio.get_running_loop().create_future()

    async def wait_for_a_lock() -> None:
        async with transaction(engine) as tx:
            asked.set_result(session_of(tx))
            await ask(tx, KEEP(name="a", size=2))

    async with transaction(engine) as other:
        await ask(other, KEEP(name="a", size=1))
        waiting = asyncio.create_task(wait_for_a_lock())
        while (await asked).pgconn.transaction_status != TransactionStatus.ACTIVE:
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with transaction(engine) as tx, transaction(engine) as other:
        await ask(tx, DIVIDE(by=1))
        await ask(other, DIVIDE(by=1))
    await engine.dispose()


async def test_an_idle_session_that_was_ended_is_replaced_before_it_is_asked(
    engine: AsyncEngine, postgres_dsn: str
) -> None:
    async with session(engine) as db:
        before = session_of(db)
    other = create_engine(postgres_dsn)
    async with other.connect() as admin:
        await admin.execute(END_SESSION)
    await other.dispose()

    async with session(engine) as db:
        assert session_of(db) is not before
        await ask(db, KEEP(name="a", size=1))


async def test_a_session_that_ends_while_it_is_asked_is_unknown_and_replaced(
    engine: AsyncEngine,
) -> None:
    end = Statement("end", "SELECT pg_terminate_backend(pg_backend_pid())")
    for open_one in (session, transaction):
        with pytest.raises(Retry, match="away"):
            async with open_one(engine) as db:
                await ask(db, end())
        assert await kept(engine) == []


async def test_a_lock_that_is_not_free_in_time_is_a_conflict(
    engine: AsyncEngine, postgres_dsn: str
) -> None:
    impatient = create_engine(postgres_dsn)
    async with transaction(engine) as tx:
        await ask(tx, KEEP(name="a", size=1))
        with pytest.raises(Conflict):
            async with transaction(impatient) as other:
                await ask(other, SOON(), KEEP(name="a", size=2))
    await impatient.dispose()


async def test_a_session_that_may_not_write_is_replaced(engine: AsyncEngine) -> None:
    async with session(engine) as db:
        await ask(db, Statement("", "SET default_transaction_read_only = on")())
    with pytest.raises(Retry, match="takes no writes"):
        async with session(engine) as db:
            await ask(db, KEEP(name="a", size=1))

    async with session(engine) as db:
        await ask(db, KEEP(name="a", size=1))
    assert await kept(engine) == ["a"]


def test_a_value_that_is_missing_or_unknown_is_a_mistake() -> None:
    for values in ({"name": "a"}, {"name": "a", "size": 1, "colour": "red"}, {}):
        with pytest.raises(KeyError):
            KEEP(**values)
