"""What the journals' one suite needs: instances on one store, their accidents, sagas to write."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

import psycopg
from msgspec.structs import replace

from coordinator.core.decide import Decision, decide, start
from coordinator.core.events import AttemptFailed, Event, Started, StepDone
from coordinator.core.model import Direction, Failure, FailureKind
from coordinator.journal.base import Append, AppendError, Lease, StoredSaga
from coordinator.journal.memory import MemoryJournal, MemoryStore
from coordinator.journal.postgres import PostgresJournal
from tests.builders import definition
from tests.link import Link

LONG = 60_000
"""Milliseconds of a lease that outlives every test."""
START_MS = 1_700_000_000_000


class Accidents(Protocol):
    """What can happen between an instance and the store."""

    def cut(self) -> None: ...
    def mend(self) -> None: ...
    def lose_next_answer(self) -> None: ...


@dataclass(frozen=True)
class Instance:
    """One coordinator's journal and its link to the store."""

    journal: MemoryJournal | PostgresJournal
    link: Accidents
    lease: Lease

    async def write(self, *appends: Append) -> list[AppendError | None]:
        """Queue appends at once and wait for what came of each."""
        return list(await asyncio.gather(*(self.queue(append) for append in appends)))

    def queue(self, append: Append) -> asyncio.Future[AppendError | None]:
        """Queue an append; the future fails when `done` is called twice."""
        told: asyncio.Future[AppendError | None] = asyncio.get_running_loop().create_future()
        self.journal.append(append, told.set_result)
        assert not told.done()
        return told

    async def tell(self, *appends: Append) -> None:
        """Write one after the other what must succeed."""
        for append in appends:
            assert await self.write(append) == [None]


class Rig(Protocol):
    """A store that instances can join, each with a long lease."""

    async def join(self, instance_id: str) -> Instance: ...
    async def expire(self, lease: Lease) -> None:
        """Let this lease expire and no other."""
        ...

    async def damage(self, *saga_ids: str) -> None:
        """Make these sagas' histories unreadable."""
        ...


class MemoryRig:
    """Instances on one `MemoryStore`, under a clock of its own."""

    def __init__(self) -> None:
        self._now_ms = START_MS
        self._store = MemoryStore(lambda: self._now_ms)
        self._leases: list[Lease] = []

    async def join(self, instance_id: str) -> Instance:
        journal = MemoryJournal(self._store)
        self._leases.append(await journal.acquire_lease(instance_id, LONG))
        return Instance(journal, journal, self._leases[-1])

    async def expire(self, lease: Lease) -> None:
        self._now_ms = lease.expires_ms - 1
        for held in self._leases:
            if held.epoch != lease.epoch and self._store.holds(held):
                self._store.renew(held, LONG)
        self._now_ms += 1

    async def damage(self, *saga_ids: str) -> None:
        for saga_id in saga_ids:
            self._store.damage(saga_id)


class PostgresRig:
    """Instances on one database, each through a link of its own."""

    def __init__(self, dsn: str, cleanup: AsyncExitStack) -> None:
        self._dsn = dsn
        self._cleanup = cleanup

    async def join(self, instance_id: str) -> Instance:
        url = urlsplit(self._dsn)
        link = Link(url.hostname or "localhost", url.port or 5432)
        await self._cleanup.enter_async_context(link)
        credentials, _, _ = url.netloc.rpartition("@")
        through = url._replace(netloc=f"{credentials}@127.0.0.1:{link.port}")
        journal = PostgresJournal(urlunsplit(through))
        await journal.open()
        self._cleanup.push_async_callback(journal.close)
        return Instance(journal, link, await journal.acquire_lease(instance_id, LONG))

    async def expire(self, lease: Lease) -> None:
        async with await psycopg.AsyncConnection.connect(self._dsn) as connection:
            await connection.execute(
                "UPDATE saga.instance SET expire_time = clock_timestamp() WHERE epoch = %s",
                [lease.epoch],
            )

    async def damage(self, *saga_ids: str) -> None:
        async with await psycopg.AsyncConnection.connect(self._dsn) as connection:
            await connection.execute(
                "UPDATE saga.saga_event SET payload = '\\xff' WHERE saga_id = ANY (%s)",
                [list(saga_ids)],
            )


@dataclass
class Told:
    """One saga's appends, made as the engine makes them."""

    decision: Decision
    event: Event
    state_changed: bool = True

    @property
    def append(self) -> Append:
        """The newest event as an append."""
        return Append(
            saga=self.decision.saga,
            event=self.event,
            commands=self.decision.commands,
            state_changed=self.state_changed,
        )

    def happens(self, event: Event) -> Append:
        """The next event as an append."""
        before = self.decision.saga.state
        self.decision, self.event = decide(self.decision.saga, event), event
        self.state_changed = self.decision.saga.state is not before
        return self.append

    def done(self, step: str) -> Append:
        """A step's Do succeeds."""
        return self.happens(
            StepDone(time_ms=self._next_ms(), step=step, attempt=1, response=b"done")
        )

    def failed(self, step: str) -> Append:
        """An attempt gets no answer."""
        return self.happens(
            AttemptFailed(
                time_ms=self._next_ms(),
                step=step,
                direction=Direction.DO,
                attempt=self.decision.commands[0].attempt if self.decision.commands else 1,
                failure=Failure(kind=FailureKind.UNKNOWN, code="UNAVAILABLE", reason="AWAY"),
                retry_at_ms=self._next_ms() + 1_000,
            )
        )

    def _next_ms(self) -> int:
        return self.decision.saga.updated_ms + 1


def begun(saga_id: str, *, at_ms: int = START_MS, **keys: str) -> Told:
    """A saga of two steps, a and b, that has just started."""
    event = Started(time_ms=at_ms, input_bytes=b"in", keys=keys, deadline_ms=at_ms + 60_000)
    return Told(start(saga_id, definition("a", "b"), event), event)


def finished(saga_id: str, *, at_ms: int = START_MS, **keys: str) -> list[Append]:
    """All appends of a saga that completes."""
    told = begun(saga_id, at_ms=at_ms, **keys)
    return [told.append, told.done("a"), told.done("b")]


def poisoned(append: Append) -> Append:
    """The same append with a name that no store can hold."""
    return replace(append, saga=replace(append.saga, saga_id="nul\0"))


async def claim(
    instance: Instance, limit: int = 10, *, passing_over: Iterable[str] = ()
) -> list[str]:
    """The ids of what an instance claims."""
    claimed = await instance.journal.claim(
        instance.lease, limit, passing_over=frozenset(passing_over)
    )
    return ids(claimed.sagas)


def ids(sagas: Iterable[StoredSaga]) -> list[str]:
    """Their ids, in their order."""
    return [saga.saga_id for saga in sagas]
