"""Reconciles every so often, and tells a log and whoever counts.

Each instance does so by itself, at moments of its own: it only reads, and the more often the books
are compared the better. A participant that is away is compared the next time; how long ago it was
compared last is counted too, so that nobody mistakes silence for sound books.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Protocol

import structlog

from coordinator.journal.base import JournalUnavailable
from coordinator.reconciliation.base import Orphan, OrphanKind, Summary
from coordinator.reconciliation.reconciler import Reconciler

log = structlog.get_logger(__name__)


class Counts(Protocol):
    """What is made of a reconciliation."""

    def reconciled(self, participant: str, orphans: Mapping[OrphanKind, int]) -> None:
        """A participant was compared; so many orphans of these kinds were found there."""
        ...


class Reconciling:
    """Reconciles about every so many seconds; never for 0. `chance` gives numbers from 0 to 1."""

    def __init__(
        self,
        reconciler: Reconciler,
        counts: Counts,
        *,
        every_seconds: float,
        chance: Callable[[], float],
    ) -> None:
        self._reconciler = reconciler
        self._counts = counts
        self._every_seconds = every_seconds
        self._chance = chance

    async def run(self) -> None:
        """Reconcile until cancelled, for the first time at any moment of the first turn."""
        if not self._every_seconds:
            return
        await asyncio.sleep(self._every_seconds * self._chance())
        while True:
            try:
                await self._reconcile()
            except JournalUnavailable as error:
                log.warning("reconciliation.journal_away", why=str(error))
            await asyncio.sleep(self._every_seconds * (0.9 + 0.2 * self._chance()))

    async def _reconcile(self) -> None:
        found = Counter[tuple[str, OrphanKind]]()
        async with aclosing(self._reconciler.run(self._reconciler.participants)) as findings:
            async for finding in findings:
                if isinstance(finding, Orphan):
                    found[finding.participant, finding.kind] += 1
                else:
                    self._tell(finding, found)

    def _tell(self, summary: Summary, found: Mapping[tuple[str, OrphanKind], int]) -> None:
        for participant in summary.participants:
            if participant not in summary.unreachable:
                orphans = {kind: found[participant, kind] for kind in OrphanKind}
                self._counts.reconciled(participant, orphans)
        for why in summary.unreachable.values():
            log.warning("reconciliation.not_compared", why=why)
        tell = log.error if summary.orphans else log.info
        tell("reconciliation.ended", effects=summary.effects, orphans=summary.orphans)
