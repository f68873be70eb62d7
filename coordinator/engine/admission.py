"""Which new sagas are taken: those that can be held in memory, written, and run soon.

What cannot be served is refused at the door, cheaply and with a time to come back, before memory or
latency runs away:

- *sagas*: there are as many in memory as it is made for.
- *starts*: too many starts wait for the disk.
- *calls*: calls wait too long for room at a participant of the definition. A queue is judged by how
  long its head has waited, not by its length: that needs no guess at anybody's speed (K. Nichols,
  V. Jacobson, "Controlling Queue Delay", 2012).

A participant that is away refuses nobody. Its sagas wait without costing anything but memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import structlog

from coordinator.core.model import Definition
from coordinator.engine.errors import Excess, Overloaded
from coordinator.engine.gate import Gate
from coordinator.engine.gates import Gates
from coordinator.engine.ports import Ports

log = structlog.get_logger(__name__)

_RETRY_AFTER_MS = 1_000
_LONGEST_RETRY_AFTER_MS = 20_000
_LOG_EVERY_MS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When new sagas are refused, beside the room in memory."""

    starts: int = 2_000
    """Waiting for the disk."""
    wait_ms: int = 3_000
    """How long a call may wait for room at a participant that is not away."""


class Admission:
    """The door."""

    def __init__(self, limits: Limits, ports: Ports, gates: Gates) -> None:
        self._limits = limits
        self._gates = gates
        self._stats = ports.stats
        self._clock = ports.clock
        self._chance = ports.chance
        self._refused = 0
        self._logged_ms = -_LOG_EVERY_MS

    def check(self, definition: Definition, *, room: int, starts: int) -> None:
        """Say whether a saga may start: `room` more fit into memory, `starts` wait for the disk.

        Raises:
            Overloaded: not now.
        """
        if room <= 0:
            self._refuse(Excess.SAGAS, "as many sagas are under way as this coordinator may hold")
        if starts >= self._limits.starts:
            self._refuse(Excess.STARTS, "too many starts wait for the coordinator's database")
        for gate in self._gates.waited_for():
            if gate.wait_ms > self._limits.wait_ms and self._needs(definition, gate):
                words = f"too many calls wait for {gate.participant}"
                self._refuse(Excess.CALLS, words, gate.wait_ms)

    def _needs(self, definition: Definition, gate: Gate) -> bool:
        return any(self._gates.of(step.service) is gate for step in definition.steps)

    def _refuse(self, excess: Excess, words: str, wait_ms: int = 0) -> NoReturn:
        self._stats.shed(excess)
        self._refused += 1
        now_ms = self._clock.monotonic_ms()
        if now_ms - self._logged_ms >= _LOG_EVERY_MS:
            log.warning("sagas.shed", why=words, refused=self._refused)
            self._logged_ms, self._refused = now_ms, 0
        expected_ms = min(max(wait_ms, _RETRY_AFTER_MS), _LONGEST_RETRY_AFTER_MS)
        raise Overloaded(words, retry_after_ms=int(expected_ms * (0.5 + self._chance())))
