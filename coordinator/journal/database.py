"""The pooled side of the journal: everything but appends, in transactions of SQLAlchemy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

import mesh.postgres
from coordinator.journal.base import JournalBusy, JournalUnavailable
from mesh.errors import Conflict, Overloaded, Retry

KEEPALIVE: Mapping[str, int] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""Notices in seconds that the other end is gone."""

POOL_SECONDS = 5.0
"""How long a transaction waits for a session before it is told that all are taken."""

_SETTINGS = {
    "synchronous_commit": "on",
    "lock_timeout": "5s",
    "statement_timeout": "10s",
    "idle_in_transaction_session_timeout": "2s",
    # Planned with the values asked for, or no partial index could be used; and by indexes, however
    # old the statistics are.
    "plan_cache_mode": "force_custom_plan",
    "enable_seqscan": "off",
    "jit": "off",
}


def create_engine(dsn: str, *, pool_size: int) -> AsyncEngine:
    """An engine of at most `pool_size` sessions that a frozen process cannot keep locks with."""
    engine = create_async_engine(
        mesh.postgres.driver_url(dsn),
        isolation_level="READ COMMITTED",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={"application_name": "journal pool", **KEEPALIVE},
    )
    mesh.postgres.begin_with(engine, _SETTINGS)
    mesh.postgres.leave_when_read_only(engine)
    return engine


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction that commits when the block ends.

    Raises:
        JournalUnavailable: the database is away or busy with another transaction on the same rows;
            at the end of the block that leaves open whether it has happened.
        JournalBusy: every session of the engine is taken; nothing has happened.
    """
    try:
        async with mesh.postgres.transaction(engine) as tx:
            yield tx
    except Overloaded as error:
        raise JournalBusy(error.message) from error
    except (Retry, Conflict) as error:
        raise JournalUnavailable(error.message) from error


def snapshot(engine: AsyncEngine) -> AsyncEngine:
    """The same engine, whose transactions see one moment of the database."""
    return engine.execution_options(isolation_level="REPEATABLE READ")


def autocommit(engine: AsyncEngine) -> AsyncEngine:
    """The same engine, every statement a transaction of its own, which no client can leave open."""
    return engine.execution_options(isolation_level="AUTOCOMMIT")
