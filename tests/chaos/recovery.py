"""How long sagas stand still when their coordinator dies, or is paused for longer than its lease.

For each unfinished saga that it owned at that moment: the time until the saga has a newer event, or
belongs to another lease, or has ended. Read from the journal's database, a few times a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, LiteralString

import psycopg

from local.mesh import Mesh
from tests.chaos.records import Recovery
from tests.chaos.schedule import Fault
from tests.chaos.stores import rows

_LOOK_SECONDS = 0.1

_OWNED = """
select saga_id, epoch, (select max(revision) from saga.saga_event e where e.saga_id = s.saga_id)
from saga.saga s where owner = %s and finish_time is null
"""
_STILL = """
select o.saga_id from unnest(%s::text[], %s::bigint[], %s::bigint[]) as o (saga_id, epoch, revision)
join saga.saga s on s.saga_id = o.saga_id and s.epoch = o.epoch and s.finish_time is null
where not exists (
  select from saga.saga_event e where e.saga_id = o.saga_id and e.revision > o.revision)
"""


class Recoveries:
    """Measures one coordinator's fall after the other."""

    def __init__(self, mesh: Mesh, now: Callable[[], float]) -> None:
        self.measured: list[Recovery] = []
        self._dsn = mesh.dsn("coordinator")
        self._instances = {
            name: f"coordinator-{number}" for number, name in enumerate(mesh.coordinators, start=1)
        }
        self._now = now

    async def measure(self, fault: Fault) -> None:
        """Call it when the coordinator has just fallen; returns when all its sagas go on."""
        fell_at = self._now()
        still = await self._ask(_OWNED, self._instances[fault.target])
        while still:
            columns = [
                list(column) for column in zip(*(row.values() for row in still), strict=True)
            ]
            waiting = {row["saga_id"] for row in await self._ask(_STILL, *columns)}
            seconds = round(self._now() - fell_at, 3)
            self.measured += [
                Recovery(
                    kind=fault.kind,
                    coordinator=fault.target,
                    saga_id=row["saga_id"],
                    at=round(fell_at, 2),
                    seconds=seconds,
                )
                for row in still
                if row["saga_id"] not in waiting
            ]
            still = [row for row in still if row["saga_id"] in waiting]
            await asyncio.sleep(_LOOK_SECONDS)

    async def _ask(self, query: LiteralString, *arguments: object) -> list[dict[str, Any]]:
        """Ask the database, which may be away for a while itself."""
        while True:
            try:
                async with asyncio.timeout(2):
                    return await rows(self._dsn, query, *arguments)
            except (psycopg.Error, TimeoutError):
                await asyncio.sleep(_LOOK_SECONDS)
