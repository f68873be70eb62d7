"""A server that answers and is of no use: full, slow, read-only, or not for us."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import pytest_asyncio
from psycopg import AsyncConnection

from coordinator.core.model import SagaState
from coordinator.journal import flush
from coordinator.journal.base import AppendError, JournalUnavailable, LeaseLost
from coordinator.journal.postgres import PostgresJournal
from local.ports import free_port
from local.postgres import Postgres
from local.until import until
from mesh.waiting import DatabaseRefuses
from tests.contract.journal.harness import (
    LONG,
    Instance,
    PostgresRig,
    begun,
    claim,
    finished,
)
from tests.contract.journal.test_inbox import verb
from tests.integration.journal.conftest import Database
from tests.link import Link

_DISK_IS_FULL = """
CREATE FUNCTION disk_is_full() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
END $$
"""
_IS_SLOW = """
CREATE FUNCTION is_slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_sleep(0.02);
  RETURN NEW;
END $$
"""


async def disk_is_full(database: Database, *tables: str) -> None:
    await database.admin.execute(_DISK_IS_FULL)
    for table in tables:
        await database.admin.execute(
            f"CREATE TRIGGER disk_is_full BEFORE INSERT OR UPDATE ON saga.{table}"
            " EXECUTE FUNCTION disk_is_full()"
        )


async def _until_unavailable(instance: Instance) -> None:
    while instance.journal.available:
        await asyncio.sleep(0)


# --- full ---------------------------------------------------------------------------------------


async def test_while_the_disk_is_full_appends_wait_and_are_written_when_there_is_room(
    database: Database, mine: Instance
) -> None:
    running = begun("running")
    await mine.tell(running.append)
    await disk_is_full(database, "saga_event")
    told = [mine.queue(append) for append in (running.done("a"), begun("s1").append)]
    await _until_unavailable(mine)
    later = mine.queue(begun("s2").append)
    await mine.journal.renew_lease(mine.lease, LONG)
    assert not mine.journal.available
    assert not any(future.done() for future in (*told, later))
    assert await database.rows("SELECT saga_id FROM saga.saga_event") == [("running",)]
    await database.admin.execute("DROP FUNCTION disk_is_full CASCADE")
    assert await asyncio.gather(*told, later) == [None] * 3
    assert mine.journal.available


async def test_while_the_disk_is_full_everything_that_writes_is_unavailable(
    database: Database, mine: Instance
) -> None:
    dead = await database.rig.join("dead")
    await dead.tell(begun("s1").append)
    await mine.tell(begun("s2").append)
    await mine.journal.post_verb(verb("v1", "s2"))
    await database.rig.expire(dead.lease)
    await disk_is_full(database, "instance", "saga", "saga_inbox")
    for ask in _writing(mine, definitions=False):
        with pytest.raises(JournalUnavailable):
            await ask()
    await database.admin.execute("DROP FUNCTION disk_is_full CASCADE")
    assert await claim(mine) == ["s1"]


# --- read-only ----------------------------------------------------------------------------------


async def test_a_server_that_takes_no_writes_is_away_and_left_until_there_is_one_that_does(
    database: Database, mine: Instance
) -> None:
    """As after a failover, when the sessions that are made again end up on a standby."""
    dead = await database.rig.join("dead")
    await dead.tell(begun("s1").append)
    first, second, _ = finished("s2")
    await mine.tell(first)
    await mine.journal.post_verb(verb("v1", "s2"))
    await database.rig.expire(dead.lease)
    name = urlsplit(database.dsn).path[1:]
    await database.admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await end_sessions(database)
    told = [mine.queue(second), mine.queue(begun("s3").append)]
    await _until_unavailable(mine)
    for ask in _writing(mine, definitions=True):
        with pytest.raises(JournalUnavailable):
            await ask()
    assert await mine.journal.load("s2") is not None
    assert not any(future.done() for future in told)
    await database.admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    assert await asyncio.gather(*told) == [None, None]
    await mine.journal.renew_lease(mine.lease, LONG)
    assert mine.journal.available
    assert await claim(mine) == ["s1"]


async def test_opening_on_an_empty_database_that_takes_no_writes_says_so(
    postgres_dsn: str,
) -> None:
    name = urlsplit(postgres_dsn).path[1:]
    async with await AsyncConnection.connect(postgres_dsn, autocommit=True) as admin:
        await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    journal = PostgresJournal(postgres_dsn)
    with pytest.raises(JournalUnavailable, match="takes no writes"):
        await journal.open()
    await journal.close()


async def end_sessions(database: Database) -> None:
    await database.rows("""
        SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
        WHERE starts_with(application_name, 'journal') AND datname = current_database()
    """)


def _writing(mine: Instance, *, definitions: bool) -> list[Callable[[], Awaitable[object]]]:
    """Everything that writes but appends; the dead instance's saga is there to be claimed."""
    journal, lease = mine.journal, mine.lease

    async def save() -> object:
        return await journal.save_definition(
            name="story", content_hash="h", source="", descriptors=b""
        )

    return [
        lambda: journal.acquire_lease("another", LONG),
        lambda: journal.renew_lease(lease, LONG),
        lambda: journal.claim(lease, 10),
        lambda: journal.post_verb(verb("v2", "s2")),
        lambda: journal.refuse_verb("v1", "no"),
        *([save] if definitions else []),
    ]


# --- slow ---------------------------------------------------------------------------------------


async def test_a_group_that_takes_longer_than_a_statement_may_is_halved_until_it_fits(
    database: Database, mine: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(flush.SETTINGS, "statement_timeout", "300ms")
    hurried = await database.rig.join("hurried")
    await database.admin.execute(_IS_SLOW)
    await database.admin.execute(
        "CREATE TRIGGER is_slow BEFORE INSERT ON saga.saga_event FOR EACH ROW"
        " EXECUTE FUNCTION is_slow()"
    )
    answers = await hurried.write(*(begun(f"s{number:02}").append for number in range(40)))
    assert answers == [None] * 40
    ((groups, events),) = await database.rows(
        "SELECT count(DISTINCT xmin::text), count(*) FROM saga.saga_event"
    )
    assert events == 40
    assert 4 <= int(str(groups)) <= 8
    assert hurried.journal.available


async def test_when_every_answer_is_late_so_are_appends_and_none_is_lost_or_doubled(
    database: Database, mine: Instance
) -> None:
    _delay(mine, 0.2)
    sagas = [finished(f"s{number}") for number in range(20)]
    for group in zip(*sagas, strict=True):
        renewal = asyncio.create_task(mine.journal.renew_lease(mine.lease, 2_000))
        assert await mine.write(*group) == [None] * 20
        await renewal
    assert await database.rows("SELECT state, count(*) FROM saga.saga GROUP BY state") == [
        ("COMPLETED", 20)
    ]
    assert await database.rows("SELECT count(*) FROM saga.saga_event") == [(60,)]


async def test_who_cannot_renew_in_time_writes_no_more_and_others_go_on(
    database: Database, mine: Instance
) -> None:
    other = await database.rig.join("other")
    first, second, third = finished("s1")
    await mine.tell(first)
    lease = await mine.journal.renew_lease(mine.lease, 300)
    _delay(mine, 0.4)
    with pytest.raises(LeaseLost):
        await mine.journal.renew_lease(lease, 300)
    assert await claim(other) == ["s1"]
    (error,) = await mine.write(second)
    assert isinstance(error, LeaseLost)
    await other.tell(second, third)


def _delay(instance: Instance, seconds: float) -> None:
    assert isinstance(instance.link, Link)
    instance.link.delay(seconds)


# --- too many readers ---------------------------------------------------------------------------


async def test_a_hundred_slow_readers_hold_up_no_heartbeat_claim_or_verb(
    database: Database, mine: Instance
) -> None:
    await mine.tell(begun("s1").append)
    blocker = await database.connect()
    await blocker.execute("LOCK TABLE saga.saga_event IN ACCESS EXCLUSIVE MODE")
    readers = [asyncio.create_task(mine.journal.entries("s1", 0, 10)) for _ in range(100)]
    await database.until_waiting("Lock", application="journal pool")
    await mine.journal.renew_lease(mine.lease, LONG)
    assert await claim(mine) == []
    await mine.journal.post_verb(verb("v1"))
    assert await mine.journal.pending_verbs(mine.lease) == [verb("v1")]
    assert await mine.journal.verb_outcome("v1") is not None
    assert not any(reader.done() for reader in readers)
    await blocker.rollback()
    assert [len(entries) for entries in await asyncio.gather(*readers)] == [1] * 100


# --- a server of these tests' own ---------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(new_folder: Callable[[], Path]) -> AsyncIterator[Postgres]:
    """A server to be stopped, and to be told whom to let in."""
    async with Postgres(new_folder(), free_port()) as running:
        yield running


async def test_a_server_that_is_stopped_and_started_under_load_costs_time_and_nothing_else(
    server: Postgres,
) -> None:
    async with AsyncExitStack() as cleanup:
        dsn = await server.create_database("load")
        mine = await PostgresRig(dsn, cleanup).join("mine")
        sagas = [asyncio.create_task(_complete(mine, f"s{number}", 10)) for number in range(50)]
        await _until_written(dsn, 100)
        await server.stop()
        await _until_unavailable(mine)
        await server.start()
        assert await asyncio.gather(*sagas) == [None] * 50
        async with await AsyncConnection.connect(dsn) as admin:
            found = await admin.execute("SELECT state, count(*) FROM saga.saga GROUP BY state")
            assert await found.fetchall() == [(SagaState.COMPLETED.value, 500)]
            found = await admin.execute("SELECT count(*) FROM saga.saga_event")
            assert await found.fetchall() == [(1_500,)]


async def _complete(instance: Instance, name: str, sagas: int) -> AppendError | None:
    """Run sagas one after the other; the first error, if there is any."""
    for number in range(sagas):
        for append in finished(f"{name}-{number}"):
            (error,) = await instance.write(append)
            if error is not None:
                return error
    return None


async def _until_written(dsn: str, events: int) -> None:
    async with await AsyncConnection.connect(dsn, autocommit=True) as admin:

        async def written() -> bool:
            found = await admin.execute("SELECT count(*) >= %s FROM saga.saga_event", [events])
            return (await found.fetchone()) == (True,)

        assert await until(written, seconds=20)


@pytest.mark.parametrize(
    ("user", "database", "why"),
    [
        ("postgres", "nowhere", 'database "nowhere" does not exist'),
        ("nobody", "postgres", 'role "nobody" does not exist'),
        ("guest:wrong", "postgres", 'password authentication failed for user "guest"'),
    ],
)
async def test_who_is_not_let_in_is_told_why_and_what_to_check(
    server: Postgres, user: str, database: str, why: str
) -> None:
    await _ask_for_passwords(server)
    url = urlsplit(server.dsn(database))
    dsn = urlunsplit(url._replace(netloc=f"{user}@{url.hostname}:{url.port}"))
    journal = PostgresJournal(dsn)
    with pytest.raises(DatabaseRefuses, match="POSTGRES_DSN") as refused:
        await journal.open()
    assert why in str(refused.value)
    assert "wrong" not in str(refused.value)
    await journal.close()


async def _ask_for_passwords(server: Postgres) -> None:
    """Let the guest in by password only, and everybody else as before."""
    async with await AsyncConnection.connect(server.dsn(), autocommit=True) as admin:
        await admin.execute("DROP ROLE IF EXISTS guest")
        await admin.execute("CREATE ROLE guest LOGIN PASSWORD 'right'")
        found = await (await admin.execute("SHOW hba_file")).fetchone()
        assert found is not None
        rules = "host all guest all scram-sha-256', 'host all all all trust"
        await admin.execute(f"COPY (SELECT unnest(ARRAY['{rules}'])) TO '{found[0]}'")
        await admin.execute("SELECT pg_reload_conf()")

    async def asks() -> bool:
        guest = server.dsn().replace("postgres@", "guest@")
        try:
            await (await AsyncConnection.connect(guest)).close()
        except psycopg.OperationalError:
            return True
        return False

    assert await until(asks, seconds=20)
