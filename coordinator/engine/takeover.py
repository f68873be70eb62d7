"""Claiming the sagas that nobody runs, company by company.

Bounded in memory by the room that is left, in time by letting everybody else have a turn in
between. What does not fit stays without an owner until there is room here, or elsewhere.
`suspects.py` says why some come alone.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from coordinator.engine.loader import Loader
from coordinator.engine.ports import Ports
from coordinator.engine.suspects import Suspects, suspected
from coordinator.engine.unrunnable import Unrunnable
from coordinator.journal.base import Claimed, ClaimUnknown, Lease

log = structlog.get_logger(__name__)

_COMPANY = 200


class Takeover:
    """Claims sagas and lets the loader run them."""

    def __init__(
        self, ports: Ports, loader: Loader, suspects: Suspects, *, room: Callable[[], int]
    ) -> None:
        """`room` says how many more sagas may be in memory."""
        self._journal = ports.journal
        self._stats = ports.stats
        self._loader = loader
        self._suspects = suspects
        self._room = room
        self.unreadable = Unrunnable(ports.clock)
        """Sagas that are left to others because this version cannot read their history."""

    async def run(self, lease: Lease, *, allowed: Callable[[], bool]) -> None:
        """Claim until nobody is left, there is no room, or it is not allowed any more.

        Raises:
            LeaseLost: the lease is not held any more.
            JournalUnavailable: the store is away.
        """
        more = False
        while allowed() and (room := self._room()) > 0:
            if not more:  # suspects may be next: they must not die of those who are on trial now
                await self._suspects.settle()
            limit = min(room, _COMPANY)
            claimed = await self._claim(lease, limit)
            more = len(claimed.sagas) == limit
            if not (claimed.sagas or claimed.unreadable):
                self._forget_absent()
                return

    async def _claim(self, lease: Lease, limit: int) -> Claimed:
        async with self._loader.reading:
            claimed = await self._ask(lease, limit)
            self._note(claimed)
            on_trial = any(suspected(stored) for stored in claimed.sagas)
            if not on_trial:
                await self._loader.go_on(lease, claimed.sagas)
        if on_trial:
            await self._try(lease, claimed)
        return claimed

    async def _ask(self, lease: Lease, limit: int) -> Claimed:
        try:
            resting = self.unreadable.resting()
            return await self._journal.claim(lease, limit, passing_over=resting)
        except ClaimUnknown as error:
            self._suspects.spare(lease, error.saga_ids)
            raise

    async def _try(self, lease: Lease, company: Claimed) -> None:
        """Run a company while nobody else is suspected.

        It is read again then: while it waited, somebody may have asked a verb of one of them.
        """
        self._loader.astray.update(stored.saga_id for stored in company.sagas)
        await self._suspects.settle()
        await self._loader.fetch_astray(lease)
        await self._suspects.settle()

    def _note(self, claimed: Claimed) -> None:
        for saga_id in claimed.unreadable:
            self.unreadable.add(saga_id, "its history cannot be read by this version")
        if claimed.sagas:
            log.info("sagas.claimed", count=len(claimed.sagas))
            self._stats.claimed(len(claimed.sagas))

    def _forget_absent(self) -> None:
        for saga_id in self.unreadable.due():  # not found again: somebody has taken it
            self.unreadable.discard(saga_id)
