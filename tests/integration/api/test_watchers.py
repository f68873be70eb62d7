"""Very many watchers of sagas that another instance runs, on real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import pytest
from sqlalchemy import Engine, event

from coordinator.journal import database as journal_database
from coordinator.journal.memory import MemoryJournal
from coordinator.journal.postgres import PostgresJournal
from coordinator.participants.base import Done
from local.until import until
from mesh.errors import Overloaded
from protos.saga.v1 import saga_pb2 as pb
from tests.integration.journal.conftest import Database, database
from tests.unit.api.desk import Desk, KnownDefinitions, caller, compiled
from tests.unit.engine.world import Coordinator, World

__all__ = ["database"]

WATCHERS = 2_000
QUICK = 1.0
"""Seconds."""


@asynccontextmanager
async def desk(
    database: Database, world: World, instance_id: str, definitions: KnownDefinitions
) -> AsyncIterator[Desk]:
    """A coordinator on PostgreSQL, and its API."""
    journal = PostgresJournal(database.dsn)
    await journal.open()
    # The fake has accidents that these tests do not play.
    coordinator = Coordinator(world, instance_id, 5_000, cast("MemoryJournal", journal))
    try:
        yield Desk(world, await coordinator.ready(), definitions)
    finally:
        await coordinator.kill()
        await journal.close()


@pytest.fixture
async def desks(database: Database) -> AsyncIterator[tuple[Desk, Desk]]:
    """Two coordinators that share a database."""
    world, definitions = World(), KnownDefinitions()
    async with (
        desk(database, world, "one", definitions) as one,
        desk(database, world, "two", definitions) as two,
    ):
        one.know(compiled("story", "a", "b"))
        yield one, two


@pytest.fixture
def statements() -> Iterator[Counter[str]]:
    """How often each statement was sent through a pool."""
    sent: Counter[str] = Counter()

    def count(*args: Any) -> None:  # noqa: ANN401 - SQLAlchemy's, of which one is wanted
        sent[args[2]] += 1

    event.listen(Engine, "before_cursor_execute", count)
    yield sent
    event.remove(Engine, "before_cursor_execute", count)


class Watchers:
    """Watch a saga each, and count what they see."""

    def __init__(self, desk: Desk, saga_ids: list[str]) -> None:
        self.seen: Counter[str] = Counter()
        self._moved = asyncio.Event()
        self._tasks = [asyncio.create_task(self._watch(desk, saga_id)) for saga_id in saga_ids]

    async def _watch(self, desk: Desk, saga_id: str) -> None:
        request = pb.WatchSagaRequest(saga_id=saga_id)
        async with aclosing(desk.sagas.WatchSaga(request, caller())) as stream:
            async for _ in stream:
                self.seen[saga_id] += 1
                self._moved.set()

    async def until_seen(self, events: int) -> None:
        """Wait until they have seen so many events together."""
        while self.seen.total() < events:
            assert not any(task.done() for task in self._tasks)
            self._moved.clear()
            await self._moved.wait()

    async def leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_thousands_of_watchers_cost_a_query_now_and_then_and_hold_up_nobody(
    desks: tuple[Desk, Desk], statements: Counter[str]
) -> None:
    one, two = desks
    names = [f"saga-{number}" for number in range(WATCHERS)]
    for start in range(0, WATCHERS, 100):
        await asyncio.gather(*(one.start(name) for name in names[start : start + 100]))
    watchers = Watchers(two, names)
    await watchers.until_seen(WATCHERS)
    statements.clear()
    began = asyncio.get_running_loop().time()
    for number, name in enumerate(names[:3], start=1):
        async with asyncio.timeout(QUICK):
            await two.get(name)
        async with asyncio.timeout(QUICK):
            await two.sagas.CancelSaga(
                pb.CancelSagaRequest(saga_id=name, actor="ann", reason="told to"), caller()
            )
        async with asyncio.timeout(QUICK):
            await watchers.until_seen(WATCHERS + number)
    seconds = asyncio.get_running_loop().time() - began
    looks = [count for text, count in statements.items() if "max(" in text and "ANY" in text]
    assert 1 <= sum(looks) <= 2 * seconds + 1
    assert statements.total() < 50 * (seconds + 1)
    assert [watchers.seen[name] for name in names[:4]] == [2, 2, 2, 1]
    await watchers.leave()


async def test_watchers_that_all_wake_up_at_once_leave_room_for_others(
    desks: tuple[Desk, Desk],
) -> None:
    one, two = desks
    names = [f"saga-{number}" for number in range(400)]
    for start in range(0, len(names), 100):
        await asyncio.gather(*(one.start(name) for name in names[start : start + 100]))
    watchers = Watchers(two, names)
    await watchers.until_seen(len(names))
    for _ in names:
        (await one.coordinator.participants.next()).answer(Done(b"ok"))
    while watchers.seen.total() < 2 * len(names):
        async with asyncio.timeout(QUICK):
            await two.get("saga-7")
    assert set(watchers.seen.values()) == {2}
    await watchers.leave()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds no session says so soon."""
    monkeypatch.setattr(journal_database, "POOL_SECONDS", 0.2)


@pytest.mark.usefixtures("impatient")
async def test_when_every_reader_is_busy_others_are_told_to_come_later_and_all_is_ready(
    database: Database, desks: tuple[Desk, Desk]
) -> None:
    one, _ = desks
    await one.start()
    await one.get()
    blocker = await database.connect()
    await blocker.execute("LOCK TABLE saga.saga_event IN ACCESS EXCLUSIVE MODE")
    stuck = [asyncio.create_task(one.get()) for _ in range(5)]

    async def all_wait() -> bool:
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'"
        return await database.rows(waiting) == [(5,)]

    assert await until(all_wait, seconds=4)
    with pytest.raises(Overloaded) as busy:
        await one.get()
    assert busy.value.reason == "JOURNAL_BUSY"
    assert busy.value.retry_after_ms > 0
    assert one.coordinator.journal.available
    assert one.coordinator.engine.ready
    await blocker.rollback()
    assert [saga.saga_id for saga in await asyncio.gather(*stuck)] == ["saga-1"] * 5
