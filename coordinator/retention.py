"""Forgets finished sagas: every few minutes, in small batches, until no old one is left.

How long one is kept is how long its id is refused to another saga, and how long what it did can be
looked up. It must be longer than any call for it may still arrive: a step's attempt lasts an hour
at most, and a Do that is late by more than five minutes is refused by its participant
(`saga-not-after`). A day leaves room for clocks, and for clients that ask again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from coordinator.journal.base import JournalUnavailable, Retention

log = structlog.get_logger(__name__)

_DAY_MS = 86_400_000
_LARGEST_BATCH = 500


class Purging:
    """Deletes what ended more than `days` ago; every instance tries, and one at a time does it."""

    def __init__(
        self,
        journal: Retention,
        *,
        days: float,
        purged: Callable[[int], None],
        every_seconds: float = 300,
        pause_seconds: float = 0.1,
    ) -> None:
        """`purged` hears how many were deleted; the pause leaves the disk to running sagas."""
        self._journal = journal
        self._finished_for_ms = int(days * _DAY_MS)
        self._purged = purged
        self._every_seconds = every_seconds
        self._pause_seconds = pause_seconds
        self._batch = _LARGEST_BATCH

    async def run(self) -> None:
        """Purge until cancelled."""
        while True:
            await self._purge_all()
            await asyncio.sleep(self._every_seconds)

    async def _purge_all(self) -> None:
        total = 0
        try:
            while count := await self._purge_some():
                total += count
                await asyncio.sleep(self._pause_seconds)
        except JournalUnavailable as error:
            log.warning("retention.journal_away", why=str(error))
        if total:
            log.info("sagas.purged", count=total)

    async def _purge_some(self) -> int:
        """Purge a batch, smaller ones after one that took too long."""
        limit, self._batch = self._batch, max(1, self._batch // 2)
        count = await self._journal.purge(finished_for_ms=self._finished_for_ms, limit=limit)
        self._batch = min(_LARGEST_BATCH, 2 * limit)
        self._purged(count)
        return count
