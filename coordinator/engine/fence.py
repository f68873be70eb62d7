"""The local fence: may this process still send?

The journal refuses what a lost lease writes. This fence comes before: a process whose lease has run
out by its own monotonic clock sends nothing new, even if it was frozen and does not know yet.
"""

from __future__ import annotations

from coordinator.engine.clock import Clock


class Fence:
    """Open while the lease is surely held."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until_ms = 0

    @property
    def open(self) -> bool:
        """Whether the lease is surely held at this moment."""
        return self._clock.monotonic_ms() < self._until_ms

    def extend(self, asked_at_ms: int, length_ms: int) -> None:
        """The lease was granted for `length_ms`; `asked_at_ms` is monotonic, before the request."""
        self._until_ms = asked_at_ms + length_ms

    def close(self) -> None:
        """The lease is lost or given back."""
        self._until_ms = 0
