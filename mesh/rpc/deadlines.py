"""Keys that are due after fixed lengths of time, for thousands at once.

Of one length the first to come is the first to be due, so each length needs one timer and one dict
in order of arrival. A key that is discarded costs one deletion; its timer finds the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import takewhile


class Deadlines:
    """Tells `expired` each key that was not discarded in time. Made inside the event loop."""

    def __init__(self, expired: Callable[[int], None]) -> None:
        self._expired = expired
        self._loop = asyncio.get_running_loop()
        self._due: dict[int, dict[int, float]] = {}  # by length: keys, and their time on the loop
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def add(self, key: int, length_ms: int) -> None:
        """Let a key be due so much later."""
        due = self._loop.time() + length_ms / 1_000
        if length_ms in self._due:
            self._due[length_ms][key] = due
        else:
            self._due[length_ms] = {key: due}
            self._set_timer(length_ms, due)

    def left_ms(self, key: int, length_ms: int) -> int:
        """How long it is until a key is due, at least 1."""
        left = self._due[length_ms][key] - self._loop.time()
        return max(1, int(left * 1_000))

    def discard(self, key: int, length_ms: int) -> None:
        """Forget a key that is not due yet."""
        del self._due[length_ms][key]

    def clear(self) -> None:
        """Forget all keys."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._due.clear()

    def _set_timer(self, length_ms: int, due: float) -> None:
        self._timers[length_ms] = self._loop.call_at(due, partial(self._ring, length_ms))

    def _ring(self, length_ms: int) -> None:
        now, due = self._loop.time(), self._due[length_ms]
        try:
            for key in list(takewhile(lambda key: due[key] <= now, due)):
                if due.pop(key, None) is not None:  # the one before may have had it discarded
                    self._expired(key)
        finally:  # if one raises, the loop hears of it, and the others are due next
            self._ring_later(length_ms, due)

    def _ring_later(self, length_ms: int, due: dict[int, float]) -> None:
        if self._due.get(length_ms) is not due:
            return  # all were forgotten meanwhile
        if due:
            self._set_timer(length_ms, next(iter(due.values())))
        else:
            del self._due[length_ms], self._timers[length_ms]
