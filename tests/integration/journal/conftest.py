"""Journals on a database that the test can also reach by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest_asyncio
from psycopg import AsyncConnection

from local.until import until
from tests.contract.journal.harness import Instance, PostgresRig


@dataclass
class Database:
    """The database behind the journals' back."""

    dsn: str
    admin: AsyncConnection
    """Commits every statement."""
    rig: PostgresRig
    cleanup: AsyncExitStack

    async def connect(self, application: str = "blocker") -> AsyncConnection:
        """One more connection, for a transaction that is to stay open."""
        connection = await AsyncConnection.connect(self.dsn, application_name=application)
        self.cleanup.push_async_callback(connection.close)
        return connection

    async def rows(self, query: str, *parameters: object) -> list[tuple[object, ...]]:
        """What a query finds."""
        return await (await self.admin.execute(query, parameters)).fetchall()

    async def until_waiting(self, for_what: str, application: str = "journal") -> int:
        """Wait until a session waits for Lock, IPC or the like; returns its process id."""
        query = """
            SELECT pid FROM pg_stat_activity
            WHERE application_name = %s AND wait_event_type = %s AND state = 'active'
              AND datname = current_database()
        """
        found: list[int] = []

        async def waits() -> bool:
            found.extend(int(str(pid)) for (pid,) in await self.rows(query, application, for_what))
            return bool(found)

        assert await until(waits, seconds=20)
        return found[0]

    async def is_alone(self) -> bool:
        """Whether no journal is connected any more."""
        query = """
            SELECT FROM pg_stat_activity
            WHERE starts_with(application_name, 'journal') AND datname = current_database()
        """
        return not await self.rows(query)


@pytest_asyncio.fixture
async def database(postgres_dsn: str) -> AsyncIterator[Database]:
    async with (
        AsyncExitStack() as cleanup,
        await AsyncConnection.connect(postgres_dsn, autocommit=True) as admin,
    ):
        yield Database(postgres_dsn, admin, PostgresRig(postgres_dsn, cleanup), cleanup)


@pytest_asyncio.fixture
async def mine(database: Database) -> Instance:
    """An instance that holds a lease."""
    return await database.rig.join("mine")
