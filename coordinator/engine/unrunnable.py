"""Sagas that this release cannot run: its definition is gone, or its history cannot be read.

They harm nobody, they are tried again now and then, because a newer release or a registered
definition may cure them, and somebody has to hear of them: once in the log, and in a gauge.
"""

from __future__ import annotations

import structlog

from coordinator.engine.clock import Clock

log = structlog.get_logger(__name__)

_AGAIN_MS = 30_000
_AT_ONCE = 100


class NotRunnable(Exception):
    """This release cannot run the saga; says why."""


class Unrunnable:
    """Their ids, each with the time from which it is tried again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._again_ms: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._again_ms)

    def __contains__(self, saga_id: str) -> bool:
        return saga_id in self._again_ms

    def add(self, saga_id: str, why: str) -> None:
        """It cannot be run now."""
        if saga_id not in self._again_ms:
            log.error("saga.not_runnable", saga_id=saga_id, why=why)
        self._again_ms[saga_id] = self._clock.monotonic_ms() + _AGAIN_MS

    def discard(self, saga_id: str) -> None:
        """It runs, or it is somebody else's."""
        self._again_ms.pop(saga_id, None)

    def clear(self) -> None:
        """Nothing is known of any."""
        self._again_ms.clear()

    def due(self) -> list[str]:
        """Some of those that should be tried again now."""
        now_ms = self._clock.monotonic_ms()
        return [saga_id for saga_id, at_ms in self._again_ms.items() if at_ms <= now_ms][:_AT_ONCE]

    def resting(self) -> frozenset[str]:
        """Those that need not be tried again now."""
        now_ms = self._clock.monotonic_ms()
        return frozenset(saga_id for saga_id, at_ms in self._again_ms.items() if at_ms > now_ms)
