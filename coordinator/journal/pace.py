"""When a group commit is worth waiting for.

A group goes out as soon as the one before it is on disk, and what arrives meanwhile is the next
one. When appends come thick, a moment's wait makes groups several times larger and costs each
append that moment; when they come singly it would only cost. What it saves is CPU: a group costs
this process and PostgreSQL some 350 us together, and 20 us more for each append in it. So: wait
only if, at the present rate, the wait brings enough appends, and the group is not large already.
"""

from __future__ import annotations

LONGEST = 0.0
"""Seconds that a group waits for more at most; 0 for never, about 0.001 to save CPU under load."""
_WORTH_WAITING_FOR = 4.0
_LARGE = 32
"""A group of which each append costs hardly more than in a larger one."""
_MEMORY = 0.8
"""Weight of the past in the rate, per group."""


class Pace:
    """The rate of appends. `longest` is the longest wait; all in seconds of a monotonic clock."""

    def __init__(self, longest: float, now: float) -> None:
        self._longest = longest
        self._rate = 0.0
        self._last = now

    def wait(self, ready: int) -> float:
        """How long a group should wait of which so many are ready, in seconds; 0 for not at all."""
        expected = self._rate * self._longest
        return self._longest if ready < _LARGE and expected >= _WORTH_WAITING_FOR else 0.0

    def sent(self, appends: int, now: float) -> None:
        """Note that a group of this many goes out."""
        since, self._last = max(now - self._last, 1e-6), now
        self._rate = _MEMORY * self._rate + (1 - _MEMORY) * appends / since
