"""PostgreSQL for a service: one engine from one DSN, and transactions that say what went wrong.

engine = create_engine(settings.postgres_dsn)
async with transaction(engine) as tx:
    await tx.execute(...)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import psycopg
from sqlalchemy import URL, AdaptedConnection, ExceptionContext, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from mesh.errors import Conflict, MeshError, Overloaded, Retry
from mesh.sessions import PATIENCE_SECONDS, at_hand, is_dead
from mesh.statement import session_of

_SETTINGS = {
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
    "default_transaction_isolation": "read committed",
}
_NOTHING_BY_ITSELF = {"prepare_threshold": None}
"""What psycopg prepares by itself it takes back after a rollback, and with it everything that a
`statement.Statement` has prepared on that session."""
_KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 5, "keepalives_count": 3}

_LOST_A_RACE = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock_timeout."""
_AWAY_CLASSES = frozenset({"08", "53", "57", "58"})
"""Connection exception, insufficient resources (a full disk is one), operator intervention, system
error."""
_IDLE_IN_TRANSACTION = "25P03"
_READ_ONLY = "25006"


def driver_url(dsn: str) -> URL:
    """A `postgresql://` DSN as SQLAlchemy wants it, through psycopg 3."""
    return make_url(dsn).set(drivername="postgresql+psycopg")


def create_engine(dsn: str, *, pool_size: int = 20) -> AsyncEngine:
    """An engine whose sessions wait at most 5 s for a lock and idle at most 10 s in a transaction.

    It connects on first use and keeps up to `pool_size` sessions, for to open one costs more than a
    step does; it replaces those that died, and keeps values out of its errors.
    """
    engine = create_async_engine(
        driver_url(dsn),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=PATIENCE_SECONDS,
        hide_parameters=True,
        connect_args={"connect_timeout": 5, **_KEEPALIVE, **_NOTHING_BY_ITSELF},
    )
    begin_with(engine, _SETTINGS)
    leave_when_read_only(engine)
    _leave_when_dead(engine)
    return engine


def begin_with(engine: AsyncEngine, settings: Mapping[str, str]) -> None:
    """Have every session of an engine begin with these settings."""

    @event.listens_for(engine.sync_engine, "connect")
    def begin(session: AdaptedConnection, _record: object) -> None:
        session.run_async(lambda driver: _begin(driver, settings))


async def _begin(driver: psycopg.AsyncConnection, settings: Mapping[str, str]) -> None:
    await driver.set_autocommit(True)
    await set_all(driver, settings)
    await driver.set_autocommit(False)


async def set_all(session: psycopg.AsyncConnection, settings: Mapping[str, str]) -> None:
    """Make settings those of a session that is in no transaction, until it ends.

    Not by libpq's `options`, which a pooler refuses or drops.
    """
    await session.execute("".join(f"SET {n} = '{v}';" for n, v in settings.items()).encode())


def _leave_when_dead(engine: AsyncEngine) -> None:
    """Have idle sessions looked at when they are taken from the pool."""

    @event.listens_for(engine.sync_engine, "checkout")
    def look(session: DBAPIConnection, _record: object, _proxy: object) -> None:
        if is_dead(session.driver_connection):
            raise InvalidatePoolError


def leave_when_read_only(engine: AsyncEngine) -> None:
    """Have sessions that may not write replaced: they ended up on a standby after a failover."""

    @event.listens_for(engine.sync_engine, "handle_error")
    def heed(context: ExceptionContext) -> None:
        if _sqlstate(context.original_exception) == _READ_ONLY:
            context.is_disconnect = True


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction that commits when the block ends and rolls back when it raises.

    Raises:
        Retry: `DATABASE_UNAVAILABLE`; when it happened at the end, COMMIT had no answer and the
            transaction may have happened.
        Overloaded: `DATABASE_BUSY`; every session of this engine is taken.
        Conflict: `DATABASE_CONFLICT`, a lock was not free in time or a deadlock was broken.
        sqlalchemy.exc.DBAPIError: anything else that PostgreSQL refuses.
    """
    with translated_errors():
        async with engine.begin() as connection, _left_when_useless(connection):
            yield connection


@asynccontextmanager
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A session outside any transaction, for `statement.ask`: what is asked commits by itself.

    Raises:
        MeshError: as `transaction` does; what was not answered may have happened.
    """
    with translated_errors():
        async with at_hand(engine) as connection, _left_when_useless(connection):
            yield connection


@asynccontextmanager
async def _left_when_useless(connection: AsyncConnection) -> AsyncIterator[None]:
    """SQLAlchemy replaces sessions by what it hears itself; see to what `statement` heard."""
    try:
        yield
    except (psycopg.Error, asyncio.CancelledError) as error:
        if _sqlstate(error) == _READ_ONLY or _is_closed(connection):
            await connection.invalidate(error)
        raise


def _is_closed(connection: AsyncConnection) -> bool:
    return not connection.invalidated and session_of(connection).closed


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
        raise Overloaded("DATABASE_BUSY", "every database session is taken; ask later") from error
    except (DBAPIError, psycopg.Error) as error:
        translated = _translate(error)
        if translated is None:
            raise
        raise translated from error


def _translate(error: DBAPIError | psycopg.Error) -> MeshError | None:
    cause = error.orig if isinstance(error, DBAPIError) else error
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    sqlstate = _sqlstate(cause)
    if sqlstate == _READ_ONLY:
        return _unavailable("the database takes no writes here: a standby, or read-only; ask again")
    if sqlstate in _LOST_A_RACE:
        return Conflict("DATABASE_CONFLICT", "another transaction is in the way; ask again")
    away = sqlstate is not None and (
        sqlstate[:2] in _AWAY_CLASSES or sqlstate == _IDLE_IN_TRANSACTION
    )
    silent = sqlstate is None and isinstance(cause, psycopg.OperationalError)
    return _unavailable() if away or silent or lost else None


def _sqlstate(error: BaseException | None) -> str | None:
    return error.sqlstate if isinstance(error, psycopg.Error) else None


def _unavailable(why: str = "the database is away; ask again") -> Retry:
    return Retry("DATABASE_UNAVAILABLE", why)
