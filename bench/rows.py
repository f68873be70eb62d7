"""What the journal costs when it is full: the same questions of no, a million, ten million sagas.

    python -m bench.rows                                # an embedded server with fsync; 8 GB disk
    python -m bench.rows --finished 1000000 --folder /var/tmp

Finished sagas are inserted by SQL: one row each in `saga`, with a UUIDv7, one unique search key and
times spread over the last 31 days, and for every tenth saga five events of 300 bytes. Then, each
time: VACUUM and ANALYZE, a load of 64 sagas at a time (`bench.journal`), and the medians of
questions asked 20 times while 1,000 sagas are unfinished.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from psycopg import AsyncConnection
from uuid_utils import uuid7

from bench.journal import measure, one_append
from coordinator.core.model import SagaState
from coordinator.journal.base import AppendError, Lease
from coordinator.journal.postgres import PostgresJournal
from local.ports import free_port
from local.postgres import Postgres

_BATCH = 250_000
_UNFINISHED = 1_000
_TIMES = 20
_DAY_MS = 86_400_000

_FILL = """
WITH made AS (
  INSERT INTO saga.saga
  SELECT uuidv7(at - now())::text, 'bench', repeat('0', 64), 'COMPLETED',
         jsonb_build_object('order_id', n::text), 'gone', 1, 0, 0, at, at, at
  FROM generate_series(%(first)s::bigint, %(last)s) AS n,
       LATERAL (SELECT now() - interval '31 days' * (1 - n / %(all)s::float)) AS happened (at)
  RETURNING saga_id, create_time, keys
)
INSERT INTO saga.saga_event
SELECT saga_id, revision, create_time,
       CASE revision WHEN 1 THEN 'STARTED' ELSE 'STEP_DONE' END,
       CASE revision WHEN 1 THEN '' ELSE 'charge_payment' END,
       CASE revision WHEN 1 THEN 0 ELSE 1 END,
       CASE revision WHEN 1 THEN 'RUNNING' WHEN 5 THEN 'COMPLETED' END,
       convert_to(repeat('p', 120), 'UTF8'), convert_to(repeat('r', 180), 'UTF8')
FROM made, generate_series(1, 5) AS revision
WHERE (keys ->> 'order_id')::bigint %% 10 = 0
"""

_INDEXES = """
SELECT indexname, indexdef FROM pg_indexes
WHERE schemaname = 'saga' AND tablename = 'saga' AND indexname <> 'saga_pkey'
"""

Question = Callable[[], Awaitable[object]]


def _say(words: str) -> None:
    print(words, flush=True)  # noqa: T201 - this is what it is for


async def fill(dsn: str, have: int, want: int, total: int) -> None:
    """Add finished sagas until there are `want` of them, of `total` in the end."""
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("SET maintenance_work_mem = '512MB'")
        indexes = await (await connection.execute(_INDEXES)).fetchall()
        for name, _ in indexes:  # it is quicker to make them than to keep them
            await connection.execute(f"DROP INDEX saga.{name}")
        begun = time.perf_counter()
        for first in range(have + 1, want + 1, _BATCH):
            last = min(first + _BATCH - 1, want)
            await connection.execute(_FILL, {"first": first, "last": last, "all": total})
            _say(f"  {last:,} finished sagas after {time.perf_counter() - begun:,.0f} s")
        for _, definition in indexes:
            await connection.execute(definition)
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
        found = await connection.execute("SELECT pg_database_size(current_database())")
        for (size,) in await found.fetchall():
            _say(f"  {size / 2**30:.1f} GiB on disk")


async def _median_ms(question: Question) -> float:
    took = []
    for _ in range(_TIMES):
        begun = time.perf_counter()
        await question()
        took.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(took)


async def _leave_unfinished(dsn: str) -> None:
    """Have an instance start sagas and die."""
    journal = PostgresJournal(dsn)
    await journal.open()
    await journal.acquire_lease("dead", 3_600_000)
    told: asyncio.Queue[AppendError | None] = asyncio.Queue()
    for _ in range(_UNFINISHED):
        journal.append(one_append(str(uuid7()), 1), told.put_nowait)
    for _ in range(_UNFINISHED):
        if error := await told.get():
            raise error
    await journal.acquire_lease("dead", 1)
    await journal.close()


def _questions(journal: PostgresJournal, lease: Lease) -> Sequence[tuple[str, Question]]:
    """In this order: the claims use up the unfinished sagas of the dead, the purges find some."""
    unfinished = frozenset(state for state in SagaState if not state.final)

    def listed(states: frozenset[SagaState]) -> Question:
        return lambda: journal.list_sagas(
            definition="", states=states, keys={}, before=None, limit=50
        )

    return (
        ("claim of 50", lambda: journal.claim(lease, 50)),
        ("claim of nothing", lambda: journal.claim(lease, 50)),
        ("pending verbs", lambda: journal.pending_verbs(lease)),
        ("list of unfinished", listed(unfinished)),
        ("list of STUCK", listed(frozenset({SagaState.STUCK}))),
        ("list of all", listed(frozenset())),
        ("purge of 100", lambda: journal.purge(finished_for_ms=30 * _DAY_MS, limit=100)),
        ("purge of nothing", lambda: journal.purge(finished_for_ms=32 * _DAY_MS, limit=100)),
    )


async def _ask(dsn: str, seconds: float) -> None:
    load = await measure(dsn, sagas=64, seconds=seconds)
    _say(
        f"  {load.appends_per_second:10,.0f} appends/s, p50 {load.p50 * 1e3:.1f} ms,"
        f" p99 {load.p99 * 1e3:.1f} ms"
    )
    journal = PostgresJournal(dsn)
    await journal.open()
    lease = await journal.acquire_lease("asking", 3_600_000)
    while (await journal.claim(lease, _UNFINISHED)).sagas:
        pass  # what the load, and the last round of questions, have left behind
    await _leave_unfinished(dsn)
    for name, question in _questions(journal, lease):
        _say(f"  {await _median_ms(question):10.2f} ms  {name}")
    await journal.close()


async def main() -> None:
    """Fill and measure, step by step."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--finished", type=int, default=10_000_000, help="at the end")
    options.add_argument("--seconds", type=float, default=10, help="of each load")
    options.add_argument("--folder", help="where the server keeps its data; a temporary one")
    chosen = options.parse_args()
    steps = sorted({0, min(1_000_000, chosen.finished), chosen.finished})
    with tempfile.TemporaryDirectory(prefix="bench-", dir=chosen.folder) as folder:
        async with Postgres(Path(folder), free_port()) as server:
            dsn = await server.create_database("bench")
            await measure(dsn, sagas=1, seconds=1)  # makes the tables
            for have, want in zip([0, *steps], steps, strict=False):
                _say(f"{want:,} finished sagas")
                await fill(dsn, have, want, chosen.finished)
                await _ask(dsn, chosen.seconds)


if __name__ == "__main__":
    asyncio.run(main())
