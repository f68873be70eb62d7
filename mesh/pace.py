"""When a batch is worth waiting for.

What is ready goes out as soon as the batch before it is gone, and what comes meanwhile is the next
one. When things come thick, a moment's wait makes batches several times larger, and costs each
thing in them that moment; when they come singly it would only cost. What it saves is CPU: to write
a group of appends costs the coordinator and PostgreSQL some 350 us together and 20 us more for each
of them, and to write a message of a stream several times what one more part of it does. So: wait
only if, at the present rate, the wait brings enough, and the batch is not large already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sized

LONGEST = 0.002
"""Seconds that a batch waits for more at most; 0 for never."""
_WORTH_WAITING_FOR = 4.0
LARGE = 16
"""A batch of so many parts is worth its price: none waits for a larger one."""
_MEMORY = 0.8
"""Weight of the past in the rate, per batch."""


class Pace:
    """The rate at which things come; all times in seconds of a monotonic clock."""

    def __init__(self, now: float, *, longest: float = LONGEST, large: int = LARGE) -> None:
        self._longest = longest
        self._large = large
        self._rate = 0.0
        self._last = now

    async def gather(self, ready: Sized) -> None:
        """Let a batch of what is ready wait if that is worth it, and note that it goes out."""
        if pause := self.wait(len(ready)):
            await asyncio.sleep(pause)
        self.sent(len(ready), asyncio.get_running_loop().time())

    def wait(self, ready: int) -> float:
        """How long a batch should wait of which so many are ready, in seconds; 0 for not at all."""
        expected = self._rate * self._longest
        return self._longest if ready < self._large and expected >= _WORTH_WAITING_FOR else 0.0

    def sent(self, parts: int, now: float) -> None:
        """Note that a batch of so many goes out."""
        since, self._last = max(now - self._last, 1e-6), now
        self._rate = _MEMORY * self._rate + (1 - _MEMORY) * parts / since
