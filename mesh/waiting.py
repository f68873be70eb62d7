"""What a service cannot run without is waited for at start, and what can never be is said at once.

    await until_there(attempt, where="PostgreSQL at db:5432/orders")

Databases and services are started in any order, and restarted together. Only words that a server
says to everybody else too, or none, are worth waiting for: a wrong password stays wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import PGconn, Ping

from mesh.errors import MeshError, Retry

_PAUSE_SECONDS = 0.5
_WARNING_SECONDS = 10.0
_CONNECT_SECONDS, _PING_SECONDS = 5, 2
_log = structlog.stdlib.get_logger()


class DatabaseRefuses(MeshError):
    """The database is of no use by this DSN, however often it is asked."""


async def until_there(
    attempt: Callable[[], Awaitable[None]], *, where: str, away: type[Exception] = Retry
) -> None:
    """Attempt it twice a second until it does not raise `away`; whatever else it raises ends it."""
    loop = asyncio.get_running_loop()
    next_warning = began = loop.time()
    while True:
        try:
            await attempt()
        except away as error:
            if loop.time() >= next_warning:
                next_warning = loop.time() + _WARNING_SECONDS
                _log.warning("start.waiting", waits_for=where, why=str(error))
        else:
            if next_warning > began:
                _log.info("start.goes_on", waited_seconds=round(loop.time() - began, 1))
            return
        await asyncio.sleep(_PAUSE_SECONDS)


def place_of(dsn: str) -> str:
    """Where a PostgreSQL database is, without who asks and the password.

    Raises:
        DatabaseRefuses: the DSN is none.
    """
    parts = _parts(dsn)
    host, port = parts.get("host", "localhost"), parts.get("port", "5432")
    return f"PostgreSQL at {host}:{port}/{parts.get('dbname', '')}"


async def reach(dsn: str) -> None:
    """Connect once to a PostgreSQL database.

    Raises:
        Retry: `DATABASE_UNAVAILABLE`; it does not answer, or lets nobody in yet.
        DatabaseRefuses: it answers, and will not let us in.
    """
    where = place_of(dsn)
    error = await _refusal(dsn)
    if error is None:
        return
    if await _lets_in(dsn, error):
        error = await _refusal(dsn)  # unless it came up after it was asked, that is its last word
        if error is None:
            return
        raise DatabaseRefuses(
            "DATABASE_REFUSES",
            f"{where} lets nobody in by POSTGRES_DSN; check its host, port, user, password and"
            f" database: {error}",
        )
    raise Retry("DATABASE_UNAVAILABLE", f"{where} is away: {error}")


async def _refusal(dsn: str) -> psycopg.OperationalError | None:
    """Why nobody is let in, in words that quote no password; None when we are."""
    try:
        async with await psycopg.AsyncConnection.connect(dsn, connect_timeout=_CONNECT_SECONDS):
            return None
    except psycopg.OperationalError as error:
        return error


async def _lets_in(dsn: str, refusal: psycopg.OperationalError) -> bool:
    """Whether the server takes connections, be they others' than ours.

    A refused connection has no SQLSTATE, and its words come in the server's language: libpq, which
    sees the SQLSTATE, is asked instead. It stops the whole process until there is an answer; at
    start nobody else is there, and a server that is silent was found to be so before.
    """
    if isinstance(refusal, psycopg.errors.ConnectionTimeout):
        return False
    conninfo = make_conninfo(dsn, connect_timeout=_PING_SECONDS).encode()
    return PGconn.ping(conninfo) == Ping.OK


def _parts(dsn: str) -> dict[str, object]:
    try:
        return dict(conninfo_to_dict(dsn))
    except psycopg.ProgrammingError:  # whose words may quote a part of the password
        raise DatabaseRefuses(
            "DSN_MALFORMED", "POSTGRES_DSN is to be like postgresql://user@host:port/database"
        ) from None
