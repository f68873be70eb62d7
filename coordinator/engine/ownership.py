"""Which sagas are this instance's to run: the lease, claiming, and giving back.

The lease is a row that is renewed every third of its length and judged by the database's clock
alone. While it is held, the instance claims unfinished sagas that nobody with a live lease owns:
its own from before a restart, those of instances that died, and parked ones whose time has come
(`parking.py`). When it is lost, everything in memory is forgotten at once and a new epoch begins;
what was decided is on disk, and whoever claims it goes on. Two processes under one INSTANCE_ID do
not fence each other in turn: the newer one runs, and the other stands by, not ready and
complaining, until the newer one is gone.

Claims follow heartbeats: only an instance that has just heard from the database, and whose idea
of time agrees with it (`database_time.py`), may judge that others are dead.

A bug that ends one of the tasks here ends the process, loudly: what it holds would be held for
ever otherwise, and whoever starts it again waits longer each time. Nothing is sent after that,
and whatever was decided is on disk. A bug that one saga has met ends nothing (`runner.py`,
`loader.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from coordinator.engine.database_time import DatabaseTime
from coordinator.engine.definitions import Definitions
from coordinator.engine.fence import Fence
from coordinator.engine.inbox import Inbox
from coordinator.engine.loader import Loader
from coordinator.engine.parking import ParkingLot
from coordinator.engine.ports import Ports
from coordinator.engine.runner import Runner
from coordinator.engine.suspects import Suspects
from coordinator.engine.takeover import Takeover
from coordinator.journal.base import InstanceIdInUse, JournalUnavailable, Lease, LeaseLost

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnershipSettings:
    """How an instance holds its sagas."""

    instance_id: str
    """The same after a restart, so that its own sagas are claimed without waiting."""
    lease_ms: int = 3_000
    """How long after its last heartbeat others may take the sagas of a dead instance."""
    poll_ms: int = 250
    """How often the inbox is looked at when nobody says that it has changed."""
    park_after_ms: int = 10_000
    """A saga of which nothing is due for so long leaves memory meanwhile; by default a third of the
    longest wait between two attempts."""


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
        room: Callable[[], int],
    ) -> None:
        """`room` says how many more sagas may be in memory."""
        self._settings = settings
        self._ports = ports
        self._fence = fence
        self._runner = runner
        self._time = DatabaseTime(ports.clock, ports.stats, freeze_ms=settings.lease_ms)
        self._suspects = Suspects(ports, runner)
        self._loader = Loader(ports, runner, self._suspects, definitions=definitions)
        self._takeover = Takeover(ports, self._loader, self._suspects, room=room)
        self._parking = ParkingLot(ports, runner, self._loader, after_ms=settings.park_after_ms)
        self._lease: Lease | None = None
        self._renewed = asyncio.Event()
        self.leased = asyncio.Event()
        """Set once the first lease is held."""
        self.inbox = Inbox(
            ports, runner, load=self._loader.load, poll_seconds=settings.poll_ms / 1_000
        )

    @property
    def held(self) -> bool:
        """Whether this instance surely holds its lease."""
        return self._fence.open

    def astray(self, saga_id: str) -> None:
        """A saga of ours has left memory before its end: load it with the next heartbeat."""
        self._loader.astray.add(saga_id)

    async def run(self) -> None:
        """Hold the lease until cancelled, with a new epoch whenever it was lost.

        Raises:
            ExceptionGroup: a bug.
        """
        while True:
            lease = await self._acquire()
            log.info("lease.acquired", instance_id=lease.instance_id, epoch=lease.epoch)
            try:
                # In a task of its own: before Python 3.13 a group that ends by an error may leave
                # its task marked as cancelled, and of this one that must be known.
                await asyncio.create_task(self._hold(lease))
            except* LeaseLost:
                log.warning("lease.lost", epoch=lease.epoch, sagas=len(self._runner))
            finally:
                self._fence.close()
                self._runner.drop_all()
                self._loader.forget()
            _let_through_a_cancellation()

    async def _hold(self, lease: Lease) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew(lease))
            tasks.create_task(self._gather(lease))
            tasks.create_task(self.inbox.run(lease))

    async def release(self) -> None:
        """Give every saga back at once; call it after `run` was cancelled."""
        if self._lease is None:
            return
        try:
            await self._suspects.acquit()
            await self._ports.journal.release_lease(self._lease)
        except JournalUnavailable:
            log.warning("release.journal_away")  # it runs out by itself

    async def _acquire(self) -> Lease:
        former = self._lease
        while True:
            asked_at_ms = self._ports.clock.monotonic_ms()
            try:
                lease = await self._ports.journal.acquire_lease(
                    self._settings.instance_id, self._settings.lease_ms, after=former
                )
            except JournalUnavailable:
                log.warning("lease.journal_away")
                former = None  # what stands there next may have been granted to us unheard
            except InstanceIdInUse:
                log.error(  # noqa: TRY400 - the stack says nothing
                    "instance_id.in_use",
                    instance_id=self._settings.instance_id,
                    cure="another process runs under this INSTANCE_ID: give each its own",
                )
            else:
                self._granted(lease, asked_at_ms)
                return lease
            await self._pause()

    def _granted(self, lease: Lease, asked_at_ms: int) -> None:
        self._lease = lease
        self._time.hear(lease.now_ms, asked_at_ms=asked_at_ms)
        self._fence.extend(asked_at_ms, lease.expires_ms - lease.now_ms)
        self._renewed.set()
        self.leased.set()

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
            await self._renewed.wait()
            self._renewed.clear()
            try:
                await self._suspects.acquit()
                await self._loader.fetch_astray(lease)
                await self._takeover.run(lease, allowed=self._may_claim)
                await self._suspects.acquit()
                await self._parking.fill(lease)
            except JournalUnavailable:
                log.debug("gather.journal_away")
            unrunnable = len(self._loader.unrunnable) + len(self._takeover.unreadable)
            self._ports.stats.unrunnable(unrunnable)

    def _may_claim(self) -> bool:
        return self._fence.open and self._time.steady

    async def _pause(self) -> None:
        await asyncio.sleep(self._settings.lease_ms / 3_000)


def _let_through_a_cancellation() -> None:
    """Raise one that met an error at the same moment: the error has taken its place."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
