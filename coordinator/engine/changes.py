"""Who waits for a saga to change, and how they hear of it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict

_REMEMBERED = 10_000


class Changes:
    """Wakes those who wait for a newer revision of a saga.

    The newest revision of the sagas that changed last is remembered, so that a change between
    reading a saga and waiting for it is not missed.
    """

    def __init__(self) -> None:
        self._newest: OrderedDict[str, int] = OrderedDict()
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)

    def notify(self, saga_id: str, revision: int) -> None:
        """Say that a revision is on disk."""
        self._newest[saga_id] = revision
        self._newest.move_to_end(saga_id)
        if len(self._newest) > _REMEMBERED:
            self._newest.popitem(last=False)
        for waiter in self._waiting.pop(saga_id, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, saga_id: str, after_revision: int, timeout_seconds: float) -> None:
        """Return once a newer revision was notified, or after the timeout."""
        if self._newest.get(saga_id, 0) > after_revision:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[saga_id].add(waiter)
        try:
            async with asyncio.timeout(timeout_seconds):
                await waiter
        except TimeoutError:
            return  # a saga of another instance may have changed: the caller looks
        finally:
            self._forget(saga_id, waiter)

    def _forget(self, saga_id: str, waiter: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(saga_id)
        if waiting is not None:
            waiting.discard(waiter)
            if not waiting:
                del self._waiting[saga_id]
