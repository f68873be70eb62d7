"""An event loop whose clock jumps: what would wait does not, and every order is the same each time.

When nothing is ready, the loop's time moves to the next timer at once. A loop with neither work nor
timers would wait for ever; that is an error here. Files are never looked at, which would be most of
the work: nothing from outside reaches a loop of virtual time.
"""

from __future__ import annotations

import asyncio
import selectors


class _NeverBlocks(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("the test waits for something that nothing will bring about")
        if timeout > 0:
            self.seconds += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._virtual = _NeverBlocks()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.seconds

    def stand_still(self, seconds: float) -> None:
        """Let time go on without a turn for anybody, as when the process is stopped."""
        self._virtual.seconds += seconds
