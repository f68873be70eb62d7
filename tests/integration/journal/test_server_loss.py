"""The server stopped, killed, and a connection ended in the middle of a commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from psycopg import AsyncConnection

from coordinator.core.model import SagaState
from coordinator.journal.base import JournalUnavailable, LeaseLost
from coordinator.journal.postgres import PostgresJournal
from local.ports import free_port
from local.postgres import Postgres
from tests.contract.journal.harness import LONG, PostgresRig, claim, finished, ids
from tests.integration.journal.conftest import Database


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(new_folder: Callable[[], Path]) -> AsyncIterator[Postgres]:
    """A server of these tests' own, to be mistreated."""
    async with Postgres(new_folder(), free_port()) as running:
        yield running


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_work_resumes_by_itself_when_the_server_is_back(server: Postgres, end: str) -> None:
    async with AsyncExitStack() as cleanup:
        rig = PostgresRig(await server.create_database(f"loss_{end}"), cleanup)
        mine = await rig.join("mine")
        sagas = [finished(f"s{number}") for number in range(10)]
        assert await mine.write(*(saga[0] for saga in sagas)) == [None] * 10
        written = [mine.queue(saga[1]) for saga in sagas[:5]]
        await getattr(server, end)()
        waiting = [mine.queue(saga[1]) for saga in sagas[5:]]
        while mine.journal.available:
            await asyncio.sleep(0)
        with pytest.raises(JournalUnavailable):
            await mine.journal.load("s1")
        await server.start()
        assert await asyncio.gather(*written, *waiting) == [None] * 10
        assert mine.journal.available
        await mine.journal.renew_lease(mine.lease, LONG)
        assert await mine.write(*(saga[2] for saga in sagas)) == [None] * 10
        for number in range(10):
            stored = await mine.journal.load(f"s{number}")
            assert stored is not None
            assert (stored.revision, stored.state) == (3, SagaState.COMPLETED)


async def test_opening_without_a_server_says_so() -> None:
    journal = PostgresJournal(f"postgresql://postgres@127.0.0.1:{free_port()}/nowhere")
    with pytest.raises(JournalUnavailable):
        await journal.open()
    await journal.close()


async def test_a_connection_ended_after_the_commit_and_before_its_answer_loses_nothing(
    server: Postgres,
) -> None:
    """A standby that never answers holds a commit just there: on disk here, not acknowledged."""
    dsn = await server.create_database("ended")
    async with (
        AsyncExitStack() as cleanup,
        await AsyncConnection.connect(dsn, autocommit=True) as admin,
    ):
        database = Database(dsn, admin, PostgresRig(dsn, cleanup), cleanup)
        mine = await database.rig.join("mine")
        first, second, third = finished("s1")
        await mine.tell(first)
        held_back = await _await_standby(database, "nobody")
        told = mine.queue(second)
        backend = await database.until_waiting("IPC")
        assert not told.done()
        await admin.execute("SELECT pg_terminate_backend(%s)", [backend])
        while mine.journal.available:
            await asyncio.sleep(0)
        found = await database.rows("SELECT revision FROM saga.saga_event ORDER BY revision")
        assert found == [(1,), (2,)]
        await _set_standby(admin, "")
        await held_back
        assert await told is None
        await mine.tell(third)
        stored = await mine.journal.load("s1")
        assert stored is not None
        assert stored.revision == 3


async def test_a_claim_whose_commit_had_no_answer_costs_the_lease_so_that_nobody_is_forgotten(
    server: Postgres,
) -> None:
    dsn = await server.create_database("claimed")
    async with (
        AsyncExitStack() as cleanup,
        await AsyncConnection.connect(dsn, autocommit=True) as admin,
    ):
        database = Database(dsn, admin, PostgresRig(dsn, cleanup), cleanup)
        dead, mine = await database.rig.join("dead"), await database.rig.join("mine")
        await dead.tell(finished("s1")[0])
        await database.rig.expire(dead.lease)
        held_back = await _await_standby(database, "nobody")
        claiming = asyncio.create_task(claim(mine))
        backend = await database.until_waiting("IPC", application="journal pool")
        await admin.execute("SELECT pg_terminate_backend(%s)", [backend])
        with pytest.raises(LeaseLost):
            await claiming
        await _set_standby(admin, "")
        await held_back
        assert await claim(mine) == []
        again = await mine.journal.acquire_lease("mine", LONG)
        assert ids((await mine.journal.claim(again, 10)).sagas) == ["s1"]


async def _await_standby(database: Database, name: str) -> asyncio.Task[None]:
    """Have commits wait for a standby, and return once they do: a reload takes its time.

    The task that is returned ends when they wait no more.
    """
    probe = await database.connect("probe")
    await probe.execute("CREATE TABLE probe ()")
    await probe.commit()
    await _set_standby(database.admin, name)
    released = asyncio.Event()

    async def commit_until_released() -> None:
        while not released.is_set():
            await probe.execute("INSERT INTO probe DEFAULT VALUES")
            await probe.commit()

    commits = asyncio.create_task(commit_until_released())
    await database.until_waiting("IPC", application="probe")
    released.set()
    return commits


async def _set_standby(admin: AsyncConnection, name: str) -> None:
    await admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    await admin.execute("SELECT pg_reload_conf()")
