"""Sessions outside any transaction that are at hand: taken and put back past SQLAlchemy.

To take a session from SQLAlchemy's pool and to give it back costs a service more than what it asks
meanwhile: each runs a greenlet, with memory from the operating system. So a session that did
nothing wrong stays open here, for whoever comes next. SQLAlchemy's pool opens them, and gets back
those that have failed. Half of its sessions may be here at a time: the others are for transactions.

The one that was used last is taken first: where few are enough, few are busy, and these are warm.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import AsyncAdaptedQueuePool, Engine, event
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mesh.statement import session_of

PATIENCE_SECONDS = 5
"""How long one waits for a session while all are taken."""


@asynccontextmanager
async def at_hand(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A session; whatever transaction is open on it at the end is rolled back.

    Raises:
        sqlalchemy.exc.TimeoutError: all that may be are taken.
    """
    sessions = _SESSIONS.get(engine.sync_engine) or _open(engine)
    async with sessions.taken() as connection:
        yield connection


def is_dead(session: psycopg.AsyncConnection) -> bool:
    """Whether an idle session is over, as far as one can see without asking the server for a word.

    Nobody has anything to say to a session that asks nothing, except that it is over. A server that
    vanished says so through the keepalive.
    """
    if session.closed:
        return True
    looking = select.poll()
    looking.register(session.fileno(), select.POLLIN)
    return bool(looking.poll(0))


class _Sessions:
    def __init__(self, engine: AsyncEngine, size: int) -> None:
        self._engine = engine
        self._places = asyncio.Semaphore(max(size, 1))
        self._size = size
        self._idle: list[AsyncConnection] = []

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[AsyncConnection]:
        await self._place()
        try:
            connection = await self._found() or await self._engine.connect()
            try:
                yield connection
                await self._put_back(connection)
            except BaseException:
                await asyncio.shield(asyncio.create_task(connection.close()))
                raise
        finally:
            self._places.release()

    async def _place(self) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise PoolTimeout from None

    async def _found(self) -> AsyncConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if not is_dead(session_of(connection)):
                return connection
            await connection.invalidate()
            await connection.close()
        return None

    async def _put_back(self, connection: AsyncConnection) -> None:
        if connection.in_transaction():
            await connection.rollback()
        if len(self._idle) < self._size and _is_idle(connection):
            self._idle.append(connection)
        else:
            await connection.close()

    def close(self) -> None:
        """Close what is idle, in a greenlet of SQLAlchemy's, and keep nothing from now on."""
        self._size = 0
        while self._idle:
            connection = self._idle.pop().sync_connection
            assert connection is not None  # noqa: S101 - it was never closed
            connection.invalidate()
            connection.close()


def _is_idle(connection: AsyncConnection) -> bool:
    if connection.invalidated:
        return False
    return session_of(connection).pgconn.transaction_status == TransactionStatus.IDLE


_SESSIONS: dict[Engine, _Sessions] = {}


def _open(engine: AsyncEngine) -> _Sessions:
    """What is at hand of this engine, until it is disposed of."""
    pool = engine.sync_engine.pool
    size = pool.size() if isinstance(pool, AsyncAdaptedQueuePool) else 1
    sessions = _SESSIONS[engine.sync_engine] = _Sessions(engine, size // 2)

    @event.listens_for(engine.sync_engine, "engine_disposed", once=True)
    def close(disposed: Engine) -> None:
        _SESSIONS.pop(disposed).close()

    return sessions
