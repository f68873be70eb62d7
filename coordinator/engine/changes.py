"""Who waits for a saga to change, and how they hear of it.

What this instance writes is told at once (`Changes.notify`). What another one writes is found by
one look at the journal for everybody who waits here (`ChangesElsewhere`), however many they are; it
wakes only those whose saga has changed. While nobody waits nobody looks.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence

from coordinator.journal.base import JournalBusy, JournalUnavailable, Reader

_REMEMBERED = 10_000
_AT_ONCE = 10_000
"""Sagas that a journal can be asked about at once."""

_Waiter = asyncio.Future[None]


class Changes:
    """Wakes those who wait for a newer revision of a saga.

    The revisions of the sagas that ended last are remembered. So a change between reading a saga
    and waiting for it is not missed, be the saga still here or not, and one that nobody waits for
    costs a look-up.
    """

    def __init__(self, revision_here: Callable[[str], int]) -> None:
        """`revision_here` tells the newest revision of a saga in memory; 0 for any other."""
        self._revision_here = revision_here
        self._ended: OrderedDict[str, int] = OrderedDict()
        self._waiting: defaultdict[str, dict[_Waiter, int]] = defaultdict(dict)
        """With the revision that each knows already."""
        self._somebody = asyncio.Event()

    @property
    def awaited(self) -> Sequence[str]:
        """The sagas that somebody waits for."""
        return list(self._waiting)

    async def somebody_waits(self) -> None:
        """Return while there is somebody who waits."""
        await self._somebody.wait()

    def notify(self, saga_id: str, revision: int) -> None:
        """Say that a revision is on disk."""
        if saga_id in self._waiting:
            for waiter, known in self._waiting[saga_id].items():
                if known < revision and not waiter.done():
                    waiter.set_result(None)

    def remember(self, saga_id: str, revision: int) -> None:
        """Say which revision a saga had when it left memory at its end."""
        self._ended[saga_id] = revision
        if len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)

    def lose_sight(self, why: str) -> None:
        """Say that nobody knows what happens to sagas: whoever waits hears JournalUnavailable."""
        for waiters in self._waiting.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(JournalUnavailable(why))

    async def wait(
        self, saga_id: str, after_revision: int, timeout_seconds: float | None = None
    ) -> None:
        """Return once a newer revision is known of, or after the timeout.

        Raises:
            JournalUnavailable: the journal went away meanwhile.
        """
        if max(self._revision_here(saga_id), self._ended.get(saga_id, 0)) > after_revision:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[saga_id][waiter] = after_revision
        self._somebody.set()
        try:
            async with asyncio.timeout(timeout_seconds):
                await waiter
        except TimeoutError:
            return
        finally:
            self._forget(saga_id, waiter)

    def _forget(self, saga_id: str, waiter: _Waiter) -> None:
        waiting = self._waiting[saga_id]
        del waiting[waiter]
        if not waiting:
            del self._waiting[saga_id]
        if not self._waiting:
            self._somebody.clear()


class ChangesElsewhere:
    """Finds what other instances have written of the sagas that somebody here waits for."""

    def __init__(self, reader: Reader, changes: Changes, *, every_seconds: float = 0.5) -> None:
        self._reader = reader
        self._changes = changes
        self._every_seconds = every_seconds

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._changes.somebody_waits()
            await asyncio.sleep(self._every_seconds)
            try:
                await self._look(self._changes.awaited)
            except JournalBusy:
                continue  # it is there: the next look will be answered
            except JournalUnavailable as error:
                self._changes.lose_sight(str(error))

    async def _look(self, saga_ids: Sequence[str]) -> None:
        for start in range(0, len(saga_ids), _AT_ONCE):
            newest = await self._reader.revisions(saga_ids[start : start + _AT_ONCE])
            for saga_id, revision in newest.items():
                self._changes.notify(saga_id, revision)
