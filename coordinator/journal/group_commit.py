"""The writer: one connection, one group commit in flight, and what arrives meanwhile is the next.

A group ends in one of five ways. It is written. It is refused because the lease is gone. PostgreSQL
refuses some of its data: then it is halved until the guilty append is alone. It is not written in
the time that a statement has: then it is halved too, until its parts are. Or PostgreSQL is away,
which is also what a full disk and a server that takes no writes are called: then it waits, in
order, until a connection is back and is written again, which is harmless when the lost attempt had
written it after all. Only when the lease is gone by then must be asked what became of that attempt,
after waiting for the server to have done with it.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import psycopg
import structlog
from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.errors import QueryCanceled, ReadOnlySqlTransaction, UniqueViolation

from coordinator.journal.base import (
    Append,
    AppendError,
    Lease,
    LeaseLost,
    RevisionConflict,
    Unwritable,
)
from coordinator.journal.codec import encode
from coordinator.journal.database import KEEPALIVE
from coordinator.journal.flush import (
    SETTINGS,
    Packed,
    await_lost_writes,
    compare,
    pack,
    prepare,
    replan,
    write,
)
from mesh.pace import Pace
from mesh.postgres import set_all
from mesh.telling import tell_all

Done = Callable[[AppendError | None], None]

_MAX_APPENDS = 1_000
_MAX_BYTES = 8 << 20
_LARGE_GROUP = 32
"""One that waits for no more appends."""
_GROUPS_BY_A_PLAN = 500
"""Making a plan costs as much as a few groups."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_REFUSED_DATA = ("22", "23", "54")
"""Classes of SQLSTATE: data exception, integrity violation, limit exceeded."""
_log = structlog.stdlib.get_logger()


class _Waiting(Struct, eq=False):
    packed: Packed
    lease: Lease
    done: Done
    in_doubt: bool = False
    """It was sent once and no answer came."""
    told: bool = False


class GroupCommit:
    """Writes appends in groups. `longest_wait` is in seconds; see `mesh/pace.py`."""

    def __init__(self, dsn: str, *, longest_wait: float) -> None:
        self._dsn = dsn
        self._loop = asyncio.get_running_loop()
        self._pace = Pace(self._loop.time(), longest=longest_wait, large=_LARGE_GROUP)
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._closing = asyncio.Event()
        self._connection: AsyncConnection | None = None
        self._writer: asyncio.Task[None] | None = None
        self._groups = 0
        self.available = False
        """Whether the last statement was answered."""

    async def open(self) -> None:
        """Connect and begin to write.

        Raises:
            psycopg.OperationalError: PostgreSQL is away.
        """
        await self._connected()
        self._writer = asyncio.create_task(self._write_groups(), name="journal")
        self.available = True

    async def close(self) -> None:
        """Write what is queued if PostgreSQL is there, refuse it otherwise, and disconnect.

        Raises whatever bug has ended the writer before.
        """
        self._closing.set()
        self._arrived.set()
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                await writer
        finally:
            await self._disconnect()

    def check(self) -> None:
        """Raise whatever bug has ended the writer."""
        if self._writer is not None and self._writer.done():
            self._writer.result()

    def append(self, append: Append, lease: Lease | None, done: Done) -> None:
        """Queue an append under a lease; see `Journal.append`."""
        if lease is None or self._closing.is_set():
            self._loop.call_soon(done, LeaseLost("no lease is held"))
            return
        try:
            packed = pack(append, encode(append))
        except Unwritable as error:
            self._loop.call_soon(done, error)
        except (struct.error, ValueError) as error:
            self._loop.call_soon(done, Unwritable(str(error)))
        else:
            self._queue.append(_Waiting(packed, lease, done))
            self._arrived.set()

    # --- groups ---------------------------------------------------------------

    async def _write_groups(self) -> None:
        group: Sequence[_Waiting] = ()
        try:
            while await self._gather():
                group = self._take()
                self._pace.sent(len(group), self._loop.time())
                await self._settle(group)
        finally:  # also when a bug ends it: nobody may wait for ever
            self.available = False
            self._closing.set()
            left = [waiting for waiting in (*group, *self._queue) if not waiting.told]
            self._tell(left, [LeaseLost("the journal was closed")] * len(left))

    def _tell(self, group: Sequence[_Waiting], verdicts: Sequence[AppendError | None]) -> None:
        """Let a group hear its verdicts."""
        news = []
        for waiting, verdict in zip(group, verdicts, strict=True):
            waiting.told = True
            news.append((waiting.done, verdict))
        tell_all(self._loop, news)

    async def _gather(self) -> bool:
        """Wait until there is a group; False when there will be none."""
        while not self._queue:
            if self._closing.is_set():
                return False
            self._arrived.clear()
            await self._arrived.wait()
        if pause := self._pace.wait(len(self._queue)):
            await asyncio.sleep(pause)
        return True

    def _take(self) -> list[_Waiting]:
        """The next appends of one lease, as many as a statement should carry."""
        lease, size = self._queue[0].lease, 0
        group: list[_Waiting] = []
        while self._queue and self._queue[0].lease.epoch == lease.epoch:
            size += self._queue[0].packed.size
            if group and (size > _MAX_BYTES or len(group) >= _MAX_APPENDS):
                break
            group.append(self._queue.popleft())
        return group

    async def _settle(self, group: Sequence[_Waiting]) -> None:
        """Write a group and tell each append what came of it."""
        try:
            verdicts = await self._insist(group)
        except psycopg.Error as refusal:
            await self._part(group, refusal)
        else:
            self._tell(group, verdicts)

    async def _part(self, group: Sequence[_Waiting], refusal: psycopg.Error) -> None:
        """Halve a group that was refused as a whole, until the guilty append is alone."""
        middle = len(group) // 2
        if middle:
            await self._settle(group[:middle])
            await self._settle(group[middle:])
        elif isinstance(refusal, UniqueViolation):  # started elsewhere, at this very moment
            await self._settle(group)
        else:
            _log.error("journal.unwritable", saga_id=group[0].packed.saga_id, **_words(refusal))
            self._tell(group, [Unwritable(f"refused with SQLSTATE {refusal.sqlstate}")])

    async def _insist(self, group: Sequence[_Waiting]) -> Sequence[AppendError | None]:
        """Write a group, as often as it takes while PostgreSQL is away.

        Raises:
            psycopg.Error: PostgreSQL refuses some of its data, or so much of it in the time that a
                statement has; nothing of it is written.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                verdicts = await self._write(group)
            except psycopg.Error as error:
                if (error.sqlstate or "")[:2] in _REFUSED_DATA:
                    raise
                self._note_absence(group, error)
                if isinstance(error, QueryCanceled) and len(group) > 1:
                    raise
                if isinstance(error, ReadOnlySqlTransaction):
                    await self._disconnect()  # this server, or session, may never take writes again
            else:
                self.available = True
                return verdicts
            if await self._closed_within(pause):
                return [LeaseLost("the journal was closed") for _ in group]
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _note_absence(self, group: Sequence[_Waiting], error: psycopg.Error) -> None:
        _log.warning("journal.away", appends=len(group) + len(self._queue), **_words(error))
        self.available = False
        for waiting in group:
            waiting.in_doubt = True

    async def _closed_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        return self._closing.is_set()

    async def _write(self, group: Sequence[_Waiting]) -> Sequence[AppendError | None]:
        """Write a group once and find out what is on disk if that is not all of it."""
        connection, lease = await self._connected(), group[0].lease
        packed = [waiting.packed for waiting in group]
        self._groups += 1
        if self._groups % _GROUPS_BY_A_PLAN == 0:
            await replan(connection)
        written = await write(connection, lease, packed)
        if written == len(group):
            return [None] * len(group)
        if written is None:
            if not any(waiting.in_doubt for waiting in group):
                return [_lost(lease) for _ in group]
            await await_lost_writes(connection, lease)
            otherwise: AppendError = _lost(lease)
        else:
            otherwise = RevisionConflict("the history on disk is another")
        return [None if same else otherwise for same in await compare(connection, lease, packed)]

    async def _connected(self) -> AsyncConnection:
        if self._connection is None or self._connection.closed:
            self._connection = await _connect(self._dsn)
        return self._connection

    async def _disconnect(self) -> None:
        if self._connection is not None:
            await self._connection.close()


async def _connect(dsn: str) -> AsyncConnection:
    conninfo = make_conninfo(dsn, application_name="journal", **KEEPALIVE)
    connection = await AsyncConnection.connect(conninfo, autocommit=True)
    try:
        await set_all(connection, SETTINGS)
        await prepare(connection)
    except BaseException:
        await connection.close()
        raise
    return connection


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"epoch {lease.epoch} of {lease.instance_id} is not held")


def _words(error: psycopg.Error) -> dict[str, str]:
    """An error without its DETAIL, which would quote the row."""
    return {
        "error": type(error).__name__,
        "message": error.diag.message_primary or str(error).partition("\n")[0],
    }
