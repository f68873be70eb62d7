"""A coordinator that kills itself (SIGKILL) at a chosen moment: run in a process of its own.

It is made of the parts that `coordinator.app` is made of, without a server: its client is in the
process, too. At the chosen moment the process is gone, as by `kill -9`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

import structlog

from coordinator.console.metrics import Metrics
from coordinator.core.model import Definition
from coordinator.definitions.registry import Registry
from coordinator.engine.engine import Engine, EngineSettings
from coordinator.engine.ownership import OwnershipSettings
from coordinator.engine.ports import NewSaga, Ports
from coordinator.journal.base import JournalUnavailable, RevisionConflict
from coordinator.participants.base import Contract
from coordinator.participants.reflection import ReflectedContracts
from tests.crash_points.stories import Story
from tests.crash_points.watched import (
    HurriedClock,
    Moments,
    WatchedJournal,
    WatchedParticipants,
    cancel_of,
)


@dataclass(frozen=True, kw_only=True)
class Life:
    """What one coordinator has to do before it dies, or until all of it is done."""

    dsn: str
    targets: dict[str, str]
    instance_id: str
    story: Story
    left: tuple[str, ...] = ()
    """Sagas of earlier lives, brought to their end before anything else."""
    order_id: str = ""
    """A new order, whose saga has this id too; empty for none."""
    dies: str = ""
    """The moment at which it dies, with the saga's id; empty for none."""


def run(life: Life, told: Connection) -> None:
    """The body of the process: its exit code is 0 when everything was done."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    asyncio.run(_live(life, Moments(told, life.dies)))


async def _live(life: Life, moments: Moments) -> None:
    await Coordinator(life, moments).live()


class Coordinator:
    """One life; made inside its event loop."""

    def __init__(self, life: Life, moments: Moments) -> None:
        self._life = life
        self._journal = WatchedJournal(life.dsn, moments)
        self._participants = WatchedParticipants(
            life.targets, moments, life.story, cancel=self._cancelled
        )
        self._contracts = ReflectedContracts(life.targets)
        self._registry = Registry(self._journal, self._contracts)
        self._cancels: set[asyncio.Task[None]] = set()

    async def live(self) -> None:
        """Finish what is left, then play the story."""
        await self._journal.open()
        heard = await self._contracts.fetch()
        self._participants.route(each for each in heard if isinstance(each, Contract))
        async with self._running() as engine:
            for saga_id in self._life.left:
                await self._ended(engine, saga_id)
            if self._life.order_id:
                await self._start(engine)
                await self._ended(engine, self._life.order_id)
        await self._participants.close()
        await self._journal.close()

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[Engine]:
        ports = Ports(
            journal=self._journal,
            participants=self._participants,
            clock=HurriedClock(asyncio.get_running_loop()),
            stats=Metrics(),
            chance=random.random,
        )
        ownership = OwnershipSettings(instance_id=self._life.instance_id)
        self._engine = Engine(EngineSettings(ownership=ownership), ports, definitions=self)
        task = asyncio.create_task(self._engine.run())
        yield self._engine
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await self._engine.release()

    async def load(self, content_hash: str) -> Definition:
        """See `engine.definitions.Definitions`."""
        compiled = await self._registry.load(content_hash)
        assert compiled is not None
        return compiled.definition

    async def _start(self, engine: Engine) -> None:
        compiled = await self._registry.newest(self._life.story.definition)
        assert compiled is not None
        input_bytes = self._life.story.order(self._life.order_id).SerializeToString()
        new = NewSaga(
            saga_id=self._life.order_id,
            definition=compiled.definition,
            input_bytes=input_bytes,
            keys=compiled.keys_of(input_bytes),
        )
        while True:
            with suppress(JournalUnavailable, RevisionConflict):
                await engine.start(new)
            if await self._journal.load(self._life.order_id) is not None:
                return
            await asyncio.sleep(0.01)  # until the lease is held

    async def _ended(self, engine: Engine, saga_id: str) -> None:
        """Wait for a saga's end; one whose start never reached the journal has had it."""
        while (stored := await self._journal.load(saga_id)) is not None:
            if stored.state.final:
                return
            await engine.wait_for_change(saga_id, stored.revision, 1)

    def _cancelled(self, saga_id: str) -> asyncio.Task[None]:
        task = asyncio.create_task(self._cancel(saga_id))
        self._cancels.add(task)
        return task

    async def _cancel(self, saga_id: str) -> None:
        await self._journal.post_verb(cancel_of(saga_id))
        self._engine.verb_posted()
        await self._journal.aborted[saga_id].wait()
