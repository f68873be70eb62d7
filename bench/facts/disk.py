"""What the disk sees of a saga: bytes of WAL, commits and syncs.

The server's counters are exact once the sessions that they are about have ended: so they are read
before a coordinator starts, on a database that has its tables, and after it has stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import psycopg

from bench.load import Load
from bench.results import Fact
from bench.scenarios import take
from bench.sides import Coordinator, Ours
from bench.world import World

_COUNTERS = """
SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint,
       (SELECT sum(xact_commit) FROM pg_stat_database)::bigint,
       (SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal')::bigint
"""
_NAMES = ("WAL bytes", "commits", "syncs")
_LOADS = {"one at a time": ("stream-startsaga", 1), "64 in flight": ("stream", 64)}
_SETTLED_S = 1.0


async def measure(world: World) -> list[Fact]:
    """Alone, where nothing can share a commit, and with 64 in flight."""
    found = []
    async with world.participant(streams=True) as participant:
        async with Coordinator(world, participant) as coordinator:
            dsn = coordinator.dsn
        for words, (side, in_flight) in _LOADS.items():
            before = await _counters(dsn)
            async with Coordinator(world, participant, dsn=dsn) as coordinator:
                asked = Ours(side, coordinator)
                window = await take(asked, Load(in_flight=in_flight, window_s=3))
            after = await _counters(dsn)
            for name in _NAMES:
                value = (after[name] - before[name]) / window.report.finished
                title = f"{name} of a saga, {words}"
                key = f"{name}_{in_flight}".lower().replace(" ", "_")
                found.append(Fact(name=key, title=title, unit="", values=[value]))
    return found


async def _counters(dsn: str) -> Mapping[str, int]:
    await asyncio.sleep(_SETTLED_S)
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        rows = await (await connection.execute(_COUNTERS)).fetchall()
    return dict(zip(_NAMES, rows[0], strict=True))
