"""Taking over the database's time, unless its clock has jumped.

The database's clock is right by definition, but it may be set while sagas run, or a failover may
lead to a server whose clock differs. A jump makes dead instances look alive and live ones dead, and
every deadline due. So one that is told at a heartbeat is not believed at once: for one lease length
time goes on as before by the monotonic clock, and nobody's sagas are claimed. A jump that is still
told by then is the new time.
"""

from __future__ import annotations

import structlog

from coordinator.engine.clock import Clock
from coordinator.engine.ports import Stats

log = structlog.get_logger(__name__)

_JUMP_MS = 5_000


class DatabaseTime:
    """What heartbeats say of the database's clock."""

    def __init__(self, clock: Clock, stats: Stats, *, freeze_ms: int) -> None:
        """`freeze_ms` is how long a jump is not believed: the length of a lease."""
        self._clock = clock
        self._stats = stats
        self._freeze_ms = freeze_ms
        self._heard = False
        self._doubted_since_ms: int | None = None
        self._frozen_until_ms = 0

    @property
    def steady(self) -> bool:
        """Whether no jump was told for the length of a lease."""
        return self._clock.monotonic_ms() >= self._frozen_until_ms

    def hear(self, database_now_ms: int, *, asked_at_ms: int) -> None:
        """The database read its clock between `asked_at_ms`, which is monotonic, and now."""
        now_ms = self._clock.monotonic_ms()
        jump_ms = self._jump_ms(database_now_ms, asked_at_ms)
        if not self._heard or abs(jump_ms) <= _JUMP_MS:
            self._believe(database_now_ms)
        elif self._doubted_since_ms is None:
            log.error("clock.jumped", milliseconds=jump_ms)
            self._stats.clock_jumped()
            self._doubted_since_ms, self._frozen_until_ms = now_ms, now_ms + self._freeze_ms
        elif now_ms - self._doubted_since_ms >= self._freeze_ms:
            log.warning("clock.jump_believed", milliseconds=jump_ms)
            self._believe(database_now_ms)

    def _jump_ms(self, database_now_ms: int, asked_at_ms: int) -> int:
        latest_ms = self._clock.now_ms()
        earliest_ms = latest_ms - (self._clock.monotonic_ms() - asked_at_ms)
        return max(database_now_ms - latest_ms, 0) + min(database_now_ms - earliest_ms, 0)

    def _believe(self, database_now_ms: int) -> None:
        self._heard, self._doubted_since_ms = True, None
        self._clock.synchronise(database_now_ms)
