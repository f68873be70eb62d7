"""PostgreSQL for a service: one engine from one DSN, and transactions that say what went wrong.

engine = create_engine(settings.postgres_dsn)
async with transaction(engine) as tx:
    await tx.execute(...)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import psycopg
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from mesh.errors import Conflict, MeshError, Retry

_SESSION_LIMITS = "-c lock_timeout=5s -c idle_in_transaction_session_timeout=10s"

_LOST_A_RACE = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock_timeout."""
_AWAY_CLASSES = frozenset({"08", "53", "57"})
"""Connection exception, insufficient resources, operator intervention."""
_IDLE_IN_TRANSACTION = "25P03"


def driver_url(dsn: str) -> URL:
    """A `postgresql://` DSN as SQLAlchemy wants it, through psycopg 3."""
    return make_url(dsn).set(drivername="postgresql+psycopg")


def create_engine(dsn: str, *, pool_size: int = 10, max_overflow: int = 10) -> AsyncEngine:
    """An engine whose sessions wait at most 5 s for a lock and idle at most 10 s in a transaction.

    It connects on first use, replaces connections that died, and keeps values out of its errors.
    """
    return create_async_engine(
        driver_url(dsn),
        isolation_level="READ COMMITTED",
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_timeout=5,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={"options": _SESSION_LIMITS, "connect_timeout": 5},
    )


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction that commits when the block ends and rolls back when it raises.

    Raises:
        Retry: `DATABASE_UNAVAILABLE`; when it happened at the end, COMMIT had no answer and the
            transaction may have happened.
        Conflict: `DATABASE_CONFLICT`, a lock was not free in time or a deadlock was broken.
        sqlalchemy.exc.DBAPIError: anything else that PostgreSQL refuses.
    """
    with translated_errors():
        async with engine.begin() as connection:
            yield connection


def ready(engine: AsyncEngine) -> Callable[[], Awaitable[None]]:
    """A readiness probe for `mesh.server.Server`: raises while the database is away."""

    async def probe() -> None:
        async with transaction(engine) as tx:
            await tx.execute(text("SELECT 1"))

    return probe


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise `Retry` and `Conflict` where PostgreSQL refuses for the moment; see `transaction`."""
    try:
        yield
    except PoolTimeout as error:
        raise _unavailable() from error
    except DBAPIError as error:
        translated = _translate(error)
        if translated is None:
            raise
        raise translated from error


def _translate(error: DBAPIError) -> MeshError | None:
    sqlstate = error.orig.sqlstate if isinstance(error.orig, psycopg.Error) else None
    if sqlstate in _LOST_A_RACE:
        return Conflict("DATABASE_CONFLICT", "another transaction is in the way; ask again")
    away = sqlstate is not None and (
        sqlstate[:2] in _AWAY_CLASSES or sqlstate == _IDLE_IN_TRANSACTION
    )
    silent = sqlstate is None and isinstance(error.orig, psycopg.OperationalError)
    return _unavailable() if away or silent or error.connection_invalidated else None


def _unavailable() -> Retry:
    return Retry("DATABASE_UNAVAILABLE", "the database is away; ask again")
