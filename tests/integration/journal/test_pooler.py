"""The journal behind a pooler."""

from __future__ import annotations

import pytest
from psycopg import AsyncConnection
from sqlalchemy import text

from coordinator.journal import flush
from coordinator.journal.database import autocommit, create_engine, transaction
from coordinator.journal.group_commit import GroupCommit
from coordinator.journal.postgres import PostgresJournal
from mesh.waiting import DatabaseRefuses
from tests.contract.journal.harness import Instance
from tests.integration.journal.conftest import Database
from tests.pooler import pooler


async def test_the_writer_has_its_settings_where_a_pooler_takes_none_at_its_start(
    database: Database, mine: Instance
) -> None:
    async with pooler(database.dsn) as dsn:
        writer = GroupCommit(dsn, longest_wait=0)
        await writer.open()
        async with await AsyncConnection.connect(dsn) as its_session:
            for name, value in flush.SETTINGS.items():
                found = await its_session.execute(f"SHOW {name}".encode())
                assert await found.fetchone() == (value,)
        await writer.close()


async def test_so_have_all_other_sessions_be_they_asked_in_transactions_or_not(
    database: Database,
) -> None:
    engine = create_engine(database.dsn, pool_size=1)
    for kind in (engine, autocommit(engine)):
        async with transaction(kind) as tx:
            for name, value in {"idle_in_transaction_session_timeout": "2s", "jit": "off"}.items():
                assert (await tx.execute(text(f"SHOW {name}"))).scalar_one() == value
    await engine.dispose()


async def test_a_pooler_whose_clients_share_a_session_is_refused_at_start(
    database: Database,
) -> None:
    async with pooler(database.dsn) as dsn:
        journal = PostgresJournal(dsn)
        with pytest.raises(DatabaseRefuses, match="pool_mode = session"):
            await journal.open()
        await journal.close()
