"""How many appends a second the PostgreSQL journal makes durable, and how long each takes.

    python -m bench.journal                      # an embedded server with fsync
    python -m bench.journal --dsn postgresql://... --seconds 10

Each of N sagas at a time writes five events of about 300 bytes (started, four steps done) one after
the other, each after the one before is on disk, and is then followed by another saga. With jitter,
0 to 10 ms pass between two events, as they do while participants work. `wait` is how long a group
commit may wait for more; what it is worth is CPU for each append, here and in PostgreSQL.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from msgspec.structs import replace
from psycopg import AsyncConnection
from uuid_utils import uuid7

from coordinator.core.commands import Call
from coordinator.core.events import Event, Started, StepDone
from coordinator.core.model import Definition, Direction, SagaState
from coordinator.core.saga import Saga
from coordinator.journal.base import Append, AppendError
from coordinator.journal.postgres import PostgresJournal
from local.ports import free_port
from local.postgres import Postgres

_EVENTS = 5
_PAYLOAD = b"p" * 100
_CALL = (Call(step="charge_payment", direction=Direction.DO, attempt=1, request=b"r" * 150),)
_SEEN = """
SELECT (SELECT pid FROM pg_stat_activity
        WHERE application_name = 'journal' AND datname = current_database()),
       (SELECT wal_bytes FROM pg_stat_wal),
       (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database())
"""
_HEAD = (
    " sagas jitter/ms wait/ms appends/s   p50/ms   p99/ms  own CPU/us PostgreSQL WAL/bytes  a group"
)
_SAGA = Saga(
    saga_id="",
    definition=Definition(name="bench", hash="0" * 64, steps=()),
    input_bytes=_PAYLOAD,
    state=SagaState.RUNNING,
    revision=1,
    steps=(),
)


@dataclass
class Load:
    """N sagas at a time, moved by callbacks."""

    journal: PostgresJournal
    jitter: float
    """Longest pause between two events of a saga, in seconds."""
    dice: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 - pauses of a load
    running: bool = True
    waits: list[float] = field(default_factory=list)

    def begin(self) -> None:
        """Start one saga, and another when it has ended."""
        self._write(str(uuid7()), 1)

    def _write(self, saga_id: str, revision: int) -> None:
        queued = time.perf_counter()

        def done(error: AppendError | None) -> None:
            if error is not None:
                raise error
            self.waits.append(time.perf_counter() - queued)
            if self.running:
                self._pause(saga_id, revision)

        self.journal.append(one_append(saga_id, revision), done)

    def _pause(self, saga_id: str, revision: int) -> None:
        after = (saga_id, revision + 1) if revision < _EVENTS else (str(uuid7()), 1)
        if self.jitter:
            pause = self.dice.random() * self.jitter
            asyncio.get_running_loop().call_later(pause, self._write, *after)
        else:
            self._write(*after)


def one_append(saga_id: str, revision: int) -> Append:
    """The event of a saga at this revision: started, steps done, completed."""
    now, last = time.time_ns() // 1_000_000, revision == _EVENTS
    event: Event = StepDone(time_ms=now, step="charge_payment", attempt=1, response=_PAYLOAD)
    if revision == 1:
        event = Started(time_ms=now, input_bytes=_PAYLOAD, keys={"order_id": saga_id})
    state = SagaState.COMPLETED if last else SagaState.RUNNING
    saga = replace(
        _SAGA, saga_id=saga_id, revision=revision, state=state, keys={"order_id": saga_id}
    )
    return Append(
        saga=saga,
        event=event,
        commands=() if last else _CALL,
        state_changed=revision in {1, _EVENTS},
    )


@dataclass(frozen=True)
class Server:
    """What PostgreSQL has done so far."""

    cpu: float
    """Seconds of the session that writes groups."""
    wal: float
    """Bytes."""
    groups: float
    """Group commits, and hardly any other transaction."""

    @classmethod
    async def seen(cls, admin: AsyncConnection) -> Server:
        """As its own statistics tell, which are a second old at most."""
        await admin.execute("SELECT pg_stat_clear_snapshot()")
        found = await admin.execute(_SEEN)
        ((writer, wal, groups),) = await found.fetchall()
        cpu = psutil.Process(writer).cpu_times()
        return cls(cpu.user + cpu.system, float(wal), groups)

    def since(self, before: Server, appends: int) -> Server:
        """For each append."""
        return Server(
            (self.cpu - before.cpu) / appends,
            (self.wal - before.wal) / appends,
            (self.groups - before.groups) / appends,
        )


@dataclass(frozen=True)
class Figures:
    """What a load came to."""

    appends_per_second: float
    p50: float
    """Seconds from queueing an append to hearing that it is on disk."""
    p99: float
    cpu: float
    """Seconds of this process for each append."""
    server: Server
    """What the server did for each append."""


async def measure(
    dsn: str, *, sagas: int, seconds: float, jitter: float = 0, wait: float = 0
) -> Figures:
    """What so many sagas at a time write."""
    journal = PostgresJournal(dsn, longest_wait=wait)
    await journal.open()
    await journal.acquire_lease("bench", 3_600_000)
    load = Load(journal, jitter)
    for _ in range(sagas):
        load.begin()
    async with await AsyncConnection.connect(dsn, autocommit=True) as admin:
        await asyncio.sleep(seconds / 4)  # until plans are made and caches are warm
        load.waits.clear()
        cpu, begun, before = time.process_time(), time.perf_counter(), await Server.seen(admin)
        await asyncio.sleep(seconds)
        cpu, elapsed = time.process_time() - cpu, time.perf_counter() - begun
        waits, after = sorted(load.waits), await Server.seen(admin)
        load.running = False
        await asyncio.sleep(0.1)
    await journal.close()
    return Figures(
        len(waits) / elapsed,
        waits[len(waits) // 2],
        waits[len(waits) * 99 // 100],
        cpu / len(waits),
        after.since(before, len(waits)),
    )


async def _print_row(dsn: str, sagas: int, jitter: float, wait: float, seconds: float) -> None:
    found = await measure(dsn, sagas=sagas, seconds=seconds, jitter=jitter, wait=wait)
    print(  # noqa: T201 - this is what it is for
        f"{sagas:6} {jitter * 1e3:8.0f} {wait * 1e3:6.1f} {found.appends_per_second:10,.0f}"
        f" {found.p50 * 1e3:8.2f} {found.p99 * 1e3:8.2f} {found.cpu * 1e6:11.0f}"
        f" {found.server.cpu * 1e6:10.0f} {found.server.wal:9,.0f} {1 / found.server.groups:8.1f}"
    )


async def main() -> None:
    """Measure every load on one server."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--dsn", help="a database to write to; an embedded server when absent")
    options.add_argument("--seconds", type=float, default=4)
    chosen = options.parse_args()
    print(_HEAD)  # noqa: T201
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with Postgres(Path(folder), free_port()) as server:
            dsn = chosen.dsn or await server.create_database("bench")
            for sagas in (1, 64, 256):
                for jitter in (0, 0.010):
                    for wait in (0, 0.001):
                        await _print_row(dsn, sagas, jitter, wait, chosen.seconds)


if __name__ == "__main__":
    asyncio.run(main())
