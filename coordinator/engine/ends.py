"""Who waits for a saga to end, and how they hear of it: once it is final or STUCK.

What this instance ends is told at once, with the saga (`Ends.tell`). What ends elsewhere, or has
ended before anybody asked, is told by its state alone; it is found by one look at the journal for
everybody who waits here for a saga that this instance does not run (`EndsElsewhere`), however many
they are. Somebody who waits costs one small object: no task, no timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec import Struct

from coordinator.core.model import SagaState
from coordinator.core.saga import Saga
from coordinator.journal.base import JournalUnavailable, Reader

Ended: TypeAlias = Callable[[Saga | SagaState], None]

_AT_ONCE = 1_000
"""Sagas of one question to the journal: a few milliseconds, for which everybody else waits."""
_BREATH_SECONDS = 0.02
"""Between two questions, so that all of them together take no more than a fifth of a core."""


class _Waiter(Struct, eq=False):
    ends: Ends
    saga_id: str
    ended: Ended | None
    """None once it is called off."""

    def call_off(self) -> None:
        """Hear nothing any more. Calling off twice, or after the end, does nothing."""
        if self.ended is not None:
            self.ended = None
            self.ends.forget(self)


class Ends:
    """Everybody who waits here."""

    def __init__(self, runs_here: Callable[[str], bool]) -> None:
        """`runs_here` says whether this instance surely runs a saga, and so will tell its end."""
        self._runs_here = runs_here
        self._waiting: dict[str, list[_Waiter]] = {}
        self._somebody = asyncio.Event()

    def __len__(self) -> int:
        """Of how many sagas somebody waits for the end."""
        return len(self._waiting)

    @property
    def awaited(self) -> Sequence[str]:
        """The sagas that somebody waits for."""
        return list(self._waiting)

    def elsewhere(self, awaited: Sequence[str]) -> Sequence[str]:
        """Those of these sagas that this instance does not run."""
        return [saga_id for saga_id in awaited if not self._runs_here(saga_id)]

    async def somebody_waits(self) -> None:
        """Return while there is somebody who waits."""
        await self._somebody.wait()

    def wait(self, saga_id: str, ended: Ended) -> Callable[[], None]:
        """See `api.ports.Sagas.when_ended`."""
        waiter = _Waiter(self, saga_id, ended)
        self._waiting.setdefault(saga_id, []).append(waiter)
        self._somebody.set()
        return waiter.call_off

    def tell(self, saga_id: str, end: Saga | SagaState) -> None:
        """Say that a saga is final or STUCK; by its state alone if it got there elsewhere."""
        for waiter in self._waiting.pop(saga_id, ()):
            ended, waiter.ended = waiter.ended, None
            if ended is not None:
                ended(end)
        self._rest()

    def forget(self, waiter: _Waiter) -> None:
        """It was called off."""
        waiters = self._waiting.get(waiter.saga_id, [])
        if waiter in waiters:
            waiters.remove(waiter)
        if not waiters:
            self._waiting.pop(waiter.saga_id, None)
        self._rest()

    def _rest(self) -> None:
        if not self._waiting:
            self._somebody.clear()


class EndsElsewhere:
    """Finds which sagas have ended that somebody here waits for and this instance does not run."""

    def __init__(self, reader: Reader, ends: Ends, *, every_seconds: float = 0.5) -> None:
        self._reader = reader
        self._ends = ends
        self._every_seconds = every_seconds

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._ends.somebody_waits()
            await asyncio.sleep(self._every_seconds)
            try:
                await self._look()
            except JournalUnavailable:
                continue  # whoever waits goes on waiting, as long as it likes

    async def _look(self) -> None:
        awaited = self._ends.awaited
        for start in range(0, len(awaited), _AT_ONCE):
            if elsewhere := self._ends.elsewhere(awaited[start : start + _AT_ONCE]):
                await self._ask(elsewhere)
            await asyncio.sleep(_BREATH_SECONDS)

    async def _ask(self, saga_ids: Sequence[str]) -> None:
        for saga_id, standing in (await self._reader.standings(saga_ids)).items():
            if standing.state.ended:
                self._ends.tell(saga_id, standing.state)
