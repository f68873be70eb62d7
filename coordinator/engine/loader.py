"""From a saga on disk to a saga in memory that runs.

One that cannot be folded stays this instance's, is left alone and tried again now and then; its
neighbours go on. One that went astray, because another wrote to it or the store was away in
between, is read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from coordinator.core.evolve import replay
from coordinator.core.model import SagaState
from coordinator.core.saga import Saga
from coordinator.core.transitions import IllegalEvent
from coordinator.engine.definitions import Definitions, DefinitionUnavailable
from coordinator.engine.live import Live
from coordinator.engine.ports import Ports
from coordinator.engine.runner import Runner
from coordinator.engine.suspects import POISON, AwaitsTrial, Suspects, poisonous, suspected
from coordinator.engine.unrunnable import NotRunnable, Unrunnable
from coordinator.journal.base import JournalUnavailable, Lease, StoredSaga, UnreadableHistory

log = structlog.get_logger(__name__)

_WITHOUT_A_BREAK = 20
"""So many sagas are resumed, in some milliseconds, before anybody else has a turn."""


class Loader:
    """Brings this instance's sagas into memory."""

    def __init__(
        self, ports: Ports, runner: Runner, suspects: Suspects, *, definitions: Definitions
    ) -> None:
        self._journal = ports.journal
        self._definitions = definitions
        self._runner = runner
        self._suspects = suspects
        self.astray: set[str] = set()
        """Sagas of ours that left memory before their end, or have not come there yet."""
        self.unrunnable = Unrunnable(ports.clock)
        self.reading = asyncio.Lock()
        """Held from reading a saga until it is in memory: what was read must be its newest."""

    def forget(self) -> None:
        """Nothing is ours any more."""
        self.astray.clear()
        self.unrunnable.clear()

    async def load(self, lease: Lease, saga_id: str) -> Live | None:
        """Bring one of our unfinished sagas into memory; None when it is final or not ours.

        Raises:
            NotRunnable: this release cannot run it.
            AwaitsTrial: it is suspected, and comes into memory with its company alone.
            JournalUnavailable: the store is away.
        """
        async with self.reading:
            if (live := self._runner.get(saga_id)) is not None:
                return live
            stored = await self._reload(lease, saga_id)
            if stored is None:
                return None
            if suspected(stored):
                raise AwaitsTrial
            self._suspects.watch(lease, stored)
            return self._runner.resume(await self._fold(stored))

    async def fetch_astray(self, lease: Lease) -> None:
        """Go on with what went astray, and with what could not be run some time ago.

        Raises:
            JournalUnavailable: the store is away.
        """
        for saga_id in [*self.astray, *self.unrunnable.due()]:
            async with self.reading:
                if self._runner.get(saga_id) is None:
                    await self._fetch(lease, saga_id)
            self.astray.discard(saga_id)

    async def go_on(self, lease: Lease, sagas: Sequence[StoredSaga]) -> None:
        """Run sagas that were just claimed; the caller is `reading`.

        Raises:
            JournalUnavailable: the store is away; those that are left are astray.
        """
        self.astray.update(stored.saga_id for stored in sagas)  # nobody claims them again
        for count, stored in enumerate(sagas, start=1):
            await self._go_on(lease, stored)
            self.astray.discard(stored.saga_id)
            if count % _WITHOUT_A_BREAK == 0:
                await asyncio.sleep(0)

    async def _fetch(self, lease: Lease, saga_id: str) -> None:
        try:
            stored = await self._reload(lease, saga_id)
        except NotRunnable as error:
            self.unrunnable.add(saga_id, str(error))
            return
        if stored is None:
            self.unrunnable.discard(saga_id)
        else:
            await self._go_on(lease, stored)

    async def _go_on(self, lease: Lease, stored: StoredSaga) -> None:
        if stored.state is SagaState.STUCK:  # nothing happens to it by itself
            self.unrunnable.discard(stored.saga_id)
            return
        self._suspects.watch(lease, stored)
        try:
            saga = await self._fold(stored)
        except NotRunnable as error:
            self.unrunnable.add(stored.saga_id, str(error))
            return
        self.unrunnable.discard(stored.saga_id)
        if poisonous(stored):
            log.error("saga.poisonous", saga_id=stored.saga_id)
            self._runner.halt(saga, POISON)
        else:
            self._runner.resume(saga)

    async def _reload(self, lease: Lease, saga_id: str) -> StoredSaga | None:
        try:
            return await self._journal.reload(lease, saga_id)
        except UnreadableHistory as error:
            raise NotRunnable(f"its history cannot be read: {error}") from error

    async def _fold(self, stored: StoredSaga) -> Saga:
        try:
            definition = await self._definitions.load(stored.definition_hash)
            entries = ((entry.event, entry.commands) for entry in stored.entries)
            return replay(stored.saga_id, definition, entries)
        except (DefinitionUnavailable, IllegalEvent) as error:
            raise NotRunnable(str(error)) from error
        except JournalUnavailable:
            raise
        except Exception as error:  # a bug that this saga has met; its neighbours go on
            if stored.saga_id not in self.unrunnable:
                log.exception("saga.bug", saga_id=stored.saga_id)
            raise NotRunnable(f"the coordinator failed on it: {type(error).__name__}") from error
