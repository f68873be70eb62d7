"""Which sagas are this instance's to run: the lease, claiming, and giving back.

The lease is a row that is renewed every third of its length and judged by the database's clock
alone. While it is held, the instance claims unfinished sagas that nobody with a live lease owns:
its own from before a restart, and those of instances that died. When it is lost, everything in
memory is forgotten at once and a new epoch begins; what was decided is on disk, and whoever claims
it goes on.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from coordinator.core.evolve import replay
from coordinator.core.model import Failure, FailureKind, SagaState
from coordinator.core.saga import Saga
from coordinator.core.transitions import IllegalEvent
from coordinator.engine.definitions import Definitions, DefinitionUnavailable
from coordinator.engine.fence import Fence
from coordinator.engine.inbox import Inbox
from coordinator.engine.live import Live
from coordinator.engine.ports import Ports
from coordinator.engine.runner import Runner
from coordinator.journal.base import (
    JournalUnavailable,
    Lease,
    LeaseLost,
    StoredSaga,
    UnreadableHistory,
)

log = structlog.get_logger(__name__)

_CLAIM_BATCH = 200
_CLAIMS_WITHOUT_PROGRESS = 5
_POISON = Failure(
    kind=FailureKind.MISCONFIGURED,
    code="INTERNAL",
    reason="SAGA_POISONOUS",
    message="its owners kept stopping before it made any progress",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnershipSettings:
    """How an instance holds its sagas."""

    instance_id: str
    """The same after a restart, so that its own sagas are claimed without waiting."""
    lease_ms: int = 3_000
    """How long after its last heartbeat others may take the sagas of a dead instance."""
    poll_ms: int = 250
    """How often the inbox is looked at when nobody says that it has changed."""


class Ownership:
    """Holds the lease and brings this instance's sagas into memory."""

    def __init__(
        self,
        settings: OwnershipSettings,
        ports: Ports,
        *,
        definitions: Definitions,
        fence: Fence,
        runner: Runner,
    ) -> None:
        self._settings = settings
        self._ports = ports
        self._definitions = definitions
        self._fence = fence
        self._runner = runner
        self._astray: set[str] = set()
        self._lease: Lease | None = None
        self._loading = asyncio.Lock()
        """Held from reading a saga until it is in memory: what was read must be its newest."""
        self.inbox = Inbox(ports, runner, load=self.load, poll_seconds=settings.poll_ms / 1_000)

    @property
    def held(self) -> bool:
        """Whether this instance surely holds its lease."""
        return self._fence.open

    def astray(self, saga_id: str) -> None:
        """A saga of ours has left memory before its end: load it with the next heartbeat."""
        self._astray.add(saga_id)

    async def run(self) -> None:
        """Hold the lease until cancelled, with a new epoch whenever it was lost."""
        while True:
            lease = await self._acquire()
            log.info("lease.acquired", instance_id=lease.instance_id, epoch=lease.epoch)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._renew(lease))
                    tasks.create_task(self._gather(lease))
                    tasks.create_task(self.inbox.run(lease))
            except* LeaseLost:
                log.warning("lease.lost", epoch=lease.epoch, sagas=len(self._runner))
            finally:
                self._fence.close()
                self._runner.drop_all()

    async def release(self) -> None:
        """Give every saga back at once; call it after `run` was cancelled."""
        if self._lease is None:
            return
        try:
            await self._ports.journal.release_lease(self._lease)
        except JournalUnavailable:
            log.warning("release.journal_away")  # it runs out by itself

    async def _acquire(self) -> Lease:
        while True:
            asked_at_ms = self._ports.clock.monotonic_ms()
            try:
                lease = await self._ports.journal.acquire_lease(
                    self._settings.instance_id, self._settings.lease_ms
                )
            except JournalUnavailable:
                log.warning("lease.journal_away")
                await self._pause()
                continue
            self._granted(lease, asked_at_ms)
            return lease

    def _granted(self, lease: Lease, asked_at_ms: int) -> None:
        self._lease = lease
        self._ports.clock.synchronise(lease.now_ms)
        self._fence.extend(asked_at_ms, lease.expires_ms - lease.now_ms)

    async def _renew(self, lease: Lease) -> None:
        while True:
            await self._pause()
            asked_at_ms = self._ports.clock.monotonic_ms()
            try:
                lease = await self._ports.journal.renew_lease(lease, self._settings.lease_ms)
            except JournalUnavailable:
                log.warning("heartbeat.journal_away")
                continue
            self._granted(lease, asked_at_ms)
            self._runner.send_held()

    async def _gather(self, lease: Lease) -> None:
        while True:
            try:
                for saga_id in list(self._astray):
                    await self._fetch(lease, saga_id)
                    self._astray.discard(saga_id)
                await self._claim(lease)
            except JournalUnavailable:
                log.debug("claim.journal_away")
            await self._pause()

    async def _claim(self, lease: Lease) -> None:
        more = True
        while more:
            async with self._loading:
                more = await self._claim_some(lease)

    async def _claim_some(self, lease: Lease) -> bool:
        claimed = await self._ports.journal.claim(lease, _CLAIM_BATCH)
        if claimed:
            log.info("sagas.claimed", count=len(claimed))
        self._astray.update(stored.saga_id for stored in claimed)  # nobody claims them again
        for stored in claimed:
            await self._resume(stored)
            self._astray.discard(stored.saga_id)
        return bool(claimed)

    async def _pause(self) -> None:
        await asyncio.sleep(self._settings.lease_ms / 3_000)

    async def load(self, lease: Lease, saga_id: str) -> Live | None:
        """Bring one of our unfinished sagas into memory; None when it is final or not ours."""
        async with self._loading:
            if (live := self._runner.get(saga_id)) is not None:
                return live
            stored = await self._reload(lease, saga_id)
            saga = None if stored is None else await self._fold(stored)
            return None if saga is None else self._runner.resume(saga)

    async def _fetch(self, lease: Lease, saga_id: str) -> None:
        """Go on with one of our sagas unless it is in memory, final, or not ours."""
        async with self._loading:
            if self._runner.get(saga_id) is None:
                stored = await self._reload(lease, saga_id)
                if stored is not None:
                    await self._resume(stored)

    async def _reload(self, lease: Lease, saga_id: str) -> StoredSaga | None:
        try:
            return await self._ports.journal.reload(lease, saga_id)
        except UnreadableHistory:
            log.exception("saga.not_readable", saga_id=saga_id)
            return None

    async def _resume(self, stored: StoredSaga) -> None:
        saga = await self._fold(stored)
        if saga is None or saga.state is SagaState.STUCK:
            return
        if stored.claims > _CLAIMS_WITHOUT_PROGRESS:
            self._runner.halt(saga, _POISON)
        else:
            self._runner.resume(saga)

    async def _fold(self, stored: StoredSaga) -> Saga | None:
        """Fold a saga; one that cannot be folded is left alone, and its neighbours go on."""
        try:
            definition = await self._definitions.load(stored.definition_hash)
            entries = ((entry.event, entry.commands) for entry in stored.entries)
            return replay(stored.saga_id, definition, entries)
        except (DefinitionUnavailable, IllegalEvent) as error:
            log.exception("saga.not_foldable", saga_id=stored.saga_id, why=str(error))
            return None
