"""Time for the engine: the database's clock, carried between heartbeats by the monotonic one.

`now_ms` is what the database said at the last heartbeat plus what the monotonic clock has counted
since; the machine's own wall clock is never asked. A lease is judged locally by the monotonic clock
alone, counted from before the heartbeat was sent, so that this side always gives up first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """Something that will happen."""

    def cancel(self) -> None:
        """Make sure that it does not happen. Cancelling twice does nothing."""
        ...


class Clock(Protocol):
    """What the engine knows of time; a simulation brings its own."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch by the database's clock."""
        ...

    def monotonic_ms(self) -> int:
        """Milliseconds since some fixed moment; never goes back."""
        ...

    def synchronise(self, database_now_ms: int) -> None:
        """Take over what the database's clock says at this moment."""
        ...

    def call_at(self, due_ms: int, callback: Callable[[], None]) -> Timer:
        """Call back once `now_ms` has reached `due_ms`; soon when it has already."""
        ...


class LoopClock:
    """The clock of the running event loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, time: Callable[[], float] | None = None
    ) -> None:
        """`time` is the monotonic clock in seconds, where that is cheaper than to ask the loop."""
        self._loop = loop
        self._time = time or loop.time
        self._offset_ms = 0

    def now_ms(self) -> int:
        """Milliseconds since the epoch by the database's clock."""
        return int(self._time() * 1_000) + self._offset_ms

    def monotonic_ms(self) -> int:
        """Milliseconds by the monotonic clock."""
        return int(self._time() * 1_000)

    def synchronise(self, database_now_ms: int) -> None:
        """Take over what the database's clock says at this moment."""
        self._offset_ms = database_now_ms - self.monotonic_ms()

    def call_at(self, due_ms: int, callback: Callable[[], None]) -> Timer:
        """Call back once `now_ms` has reached `due_ms`."""
        return self._loop.call_later(max(due_ms - self.now_ms(), 0) / 1_000, callback)
