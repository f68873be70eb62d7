"""PostgreSQL for a service: one engine from one DSN, with the limits that the barrier relies on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

_SESSION_LIMITS = "-c lock_timeout=5s -c idle_in_transaction_session_timeout=10s"


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


def ready(engine: AsyncEngine) -> Callable[[], Awaitable[None]]:
    """A readiness probe for `mesh.server.Server`: raises while the database is away."""

    async def probe() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    return probe
