"""The real engine on the real journal: what it sends while PostgreSQL is of no use."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from urllib.parse import urlsplit

import pytest_asyncio

from coordinator.core.model import SagaState
from coordinator.engine.clock import LoopClock
from coordinator.engine.engine import Engine, EngineSettings
from coordinator.engine.ownership import OwnershipSettings
from coordinator.engine.ports import NewSaga, Ports
from coordinator.participants.base import Answer, Attempt, Done
from tests.builders import definition
from tests.contract.journal.harness import Instance
from tests.integration.journal.conftest import Database
from tests.integration.journal.test_trouble import disk_is_full, end_sessions
from tests.unit.engine.world import Counts, Definitions

_STORY = definition("a", "b")
_SAGAS = 20


class Willing:
    """Participants that do everything they are asked, and remember what that was."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def call(self, attempt: Attempt, answered: Callable[[Answer], None]) -> None:
        self.asked[f"{attempt.direction.value} {attempt.saga_id} {attempt.step}"] += 1
        asyncio.get_running_loop().call_later(0.05, answered, Done(b"done"))

    def whose(self, service: str) -> str:
        return service

    async def serving(self, participant: str) -> bool:
        return True


class Coordinator:
    """One instance that runs."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.participants = Willing()
        definitions = Definitions()
        definitions.by_hash[_STORY.hash] = _STORY
        ports = Ports(
            journal=instance.journal,
            participants=self.participants,
            clock=LoopClock(asyncio.get_running_loop()),
            stats=Counts(),
            chance=random.Random(1).random,
        )
        settings = EngineSettings(
            ownership=OwnershipSettings(instance_id="mine", lease_ms=1_000),
            start_timeout_ms=20_000,
        )
        self.engine = Engine(settings, ports, definitions=definitions)

    async def start(self, saga_id: str) -> None:
        await self.engine.start(
            NewSaga(saga_id=saga_id, definition=_STORY, input_bytes=b"in", keys={})
        )

    async def until_ready(self) -> None:
        while not self.engine.ready:
            await asyncio.sleep(0.01)

    async def until_away(self) -> None:
        while self.instance.journal.available:
            await asyncio.sleep(0)


@pytest_asyncio.fixture
async def coordinator(mine: Instance) -> AsyncIterator[Coordinator]:
    running = Coordinator(mine)
    task = asyncio.create_task(running.engine.run())
    await running.until_ready()
    yield running
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _until_completed(database: Database) -> None:
    query = "SELECT state, count(*) FROM saga.saga GROUP BY state"
    while await database.rows(query) != [(SagaState.COMPLETED.value, _SAGAS)]:
        await asyncio.sleep(0.05)


async def _until_heartbeat(database: Database) -> None:
    lease = "SELECT epoch, expire_time FROM saga.instance"
    before = await database.rows(lease)
    while await database.rows(lease) == before:
        await asyncio.sleep(0.05)


async def test_nothing_is_sent_while_the_disk_is_full_and_each_call_once_when_there_is_room(
    database: Database, coordinator: Coordinator
) -> None:
    await disk_is_full(database, "saga_event")
    starts = [asyncio.create_task(coordinator.start(f"s{n}")) for n in range(_SAGAS)]
    await coordinator.until_away()
    assert not coordinator.engine.ready
    await _until_heartbeat(database)
    assert not coordinator.participants.asked
    assert not any(start.done() for start in starts)
    await database.admin.execute("DROP FUNCTION disk_is_full CASCADE")
    await asyncio.gather(*starts)
    await _until_completed(database)
    assert set(coordinator.participants.asked.values()) == {1}
    assert len(coordinator.participants.asked) == 2 * _SAGAS
    assert await database.rows("SELECT count(*) FROM saga.saga_event WHERE kind = 'STUCK'") == [
        (0,)
    ]


async def test_sagas_go_on_by_themselves_after_a_failover_to_a_server_that_takes_no_writes_yet(
    database: Database, coordinator: Coordinator
) -> None:
    await asyncio.gather(*(coordinator.start(f"s{n}") for n in range(_SAGAS)))
    name = urlsplit(database.dsn).path[1:]
    await database.admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await end_sessions(database)
    await coordinator.until_away()
    assert not coordinator.engine.ready
    while await database.rows("SELECT FROM saga.instance WHERE expire_time > clock_timestamp()"):
        await asyncio.sleep(0.05)
    await database.admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await _until_completed(database)
    done = "SELECT saga_id, step FROM saga.saga_event WHERE kind = 'STEP_DONE'"
    assert len(await database.rows(done)) == len(set(await database.rows(done))) == 2 * _SAGAS
    assert coordinator.engine.ready
