"""Sagas that wait long leave memory: they are parked in the journal until something is due.

Parking one and taking it up again costs a few writes and a read, memory costs all the time; so a
saga is parked when nothing of it is due for `after_ms`, looked at with every heartbeat. From then
on it is nobody's. Whoever has room when its time has come claims it, as any saga that nobody runs,
and so does one who is told of a verb for it. Only time frees a parked saga: what waits for room at
its participant, or for a participant that is away, stays, for it may be its turn at any moment.

It is back in memory some time before it is due, so that what is due happens on time.

A saga leaves memory before it is parked. One that is not parked after all, because a verb came in
between, is still ours and is read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import structlog

from coordinator.core.model import SagaState
from coordinator.core.saga import Saga
from coordinator.engine.answers import due_ms
from coordinator.engine.live import Live
from coordinator.engine.loader import Loader
from coordinator.engine.ports import Ports
from coordinator.engine.runner import Runner
from coordinator.journal.base import JournalUnavailable, Lease, Parking

log = structlog.get_logger(__name__)

_AT_ONCE = 500
_WITHOUT_A_BREAK = 500
"""So many sagas are looked at, in a millisecond, before anybody else has a turn."""


class ParkingLot:
    """Takes sagas out of memory that have nothing to do for at least `after_ms`."""

    def __init__(self, ports: Ports, runner: Runner, loader: Loader, *, after_ms: int) -> None:
        self._journal = ports.journal
        self._clock = ports.clock
        self._runner = runner
        self._loader = loader
        self._after_ms = after_ms
        self._headstart_ms = after_ms // 5

    async def fill(self, lease: Lease) -> None:
        """Park every saga that waits long.

        Raises:
            LeaseLost: the lease is not held any more, or it is not known what is parked.
            JournalUnavailable: the store is away; what left memory is read again.
        """
        patient = await self._patient()
        for start in range(0, len(patient), _AT_ONCE):
            async with self._loader.reading:  # nobody brings one back into memory meanwhile
                await self._park(lease, patient[start : start + _AT_ONCE])

    async def _patient(self) -> list[Live]:
        """Those that seemed to wait long when they were looked at."""
        patient = []
        for count, live in enumerate(self._runner.sagas(), start=1):
            if self._may_leave(live):
                patient.append(live)
            if count % _WITHOUT_A_BREAK == 0:
                await asyncio.sleep(0)
        return patient

    async def _park(self, lease: Lease, patient: Iterable[Live]) -> None:
        leaving = [live for live in patient if self._may_leave(live)]
        parkings = [self._parking(live) for live in leaving]
        for live in leaving:
            self._runner.forget(live)
        try:
            parked = await self._journal.park(lease, parkings)
        except JournalUnavailable:
            self._loader.astray.update(parking.saga_id for parking in parkings)
            raise
        self._loader.astray.update(_ids(parkings) - parked)
        log.debug("sagas.parked", count=len(parked))

    def _may_leave(self, live: Live) -> bool:
        now_ms = self._clock.now_ms()
        waits = bool(live.timers) and live.idle
        return waits and next_due_ms(live.saga, now_ms) >= now_ms + self._after_ms

    def _parking(self, live: Live) -> Parking:
        due_ms = next_due_ms(live.saga, self._clock.now_ms())
        return Parking(live.saga.saga_id, live.saga.revision, due_ms - self._headstart_ms)


def next_due_ms(saga: Saga, now_ms: int) -> int:
    """When something of a saga is due by itself; 0 when that may be at once.

    Also 0 when the clock was set back since an attempt was scheduled: the saga has to wait here,
    by a timer, for the time that is written would come much too late.
    """
    calls = [progress.call for progress in saga.steps if progress.call is not None]
    if any(call.due_ms != due_ms(saga, call, now_ms) for call in calls):
        return 0
    dues_ms = [call.due_ms for call in calls]
    if saga.deadline_ms and saga.state is SagaState.RUNNING:
        dues_ms.append(saga.deadline_ms)
    return min(dues_ms, default=0)


def _ids(parkings: Sequence[Parking]) -> frozenset[str]:
    return frozenset(parking.saga_id for parking in parkings)
