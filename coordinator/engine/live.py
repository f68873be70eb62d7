"""One saga in memory: its durable state, what is being written and what is in flight.

There are many, and most have one call in flight and nothing else: what is seldom there is made when
it is needed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from msgspec import Struct

from coordinator.core.commands import Call
from coordinator.core.events import Event
from coordinator.core.model import Direction
from coordinator.core.saga import Saga
from coordinator.core.transitions import IllegalEvent
from coordinator.engine.clock import Timer
from coordinator.engine.gate import Waiting


class Intent(Struct, frozen=True):
    """An event that wants to happen, made when its turn comes from the saga as it is then."""

    make: Callable[[Live], Event]
    verb_id: str = ""
    """Request id of the verb that asks for it; empty for none."""
    illegal: Callable[[IllegalEvent], None] | None = None
    """Hears when the event cannot happen any more; late answers need not hear."""

    @classmethod
    def that(cls, event: Event) -> Intent:
        """An event that is known already."""
        return cls(lambda _: event)

    def refuse(self, error: IllegalEvent) -> None:
        """It cannot happen; tell whoever asked for it."""
        if self.illegal is not None:
            self.illegal(error)


class Live(Struct, eq=False):
    """One saga in memory. Only `saga` is durable; the rest is lost with the process, and may be."""

    saga: Saga
    writing: bool = False
    in_flight: tuple[Call, ...] = ()
    """Calls that were sent and whose answers have not had their turn."""
    late: tuple[Call, ...] = ()
    """Calls that came due while an event was being written."""
    queue: deque[Intent] | None = None
    """Events that wait for their turn; one is written at a time."""
    timers: dict[str, Timer] | None = None
    """Retries by step that are not due yet, calls that wait at a gate, and the saga's deadline."""
    halting: bool = False
    """It is about to be STUCK because something in the coordinator failed on it."""
    dropped: bool = False
    """No longer this process's to run: whatever comes back for it is ignored."""

    @property
    def idle(self) -> bool:
        """Whether nothing is being written, queued or in flight for it."""
        return not (self.writing or self.queue or self.in_flight)

    @property
    def in_line(self) -> bool:
        """Whether a call of it waits for nothing but room at its participant."""
        timers = self.timers.values() if self.timers else ()
        return any(isinstance(timer, Waiting) and timer.soon for timer in timers)

    def awaited(self) -> frozenset[str]:
        """Steps whose Do is in flight."""
        return frozenset(call.step for call in self.in_flight if call.direction is Direction.DO)

    def enqueue(self, intent: Intent) -> None:
        """Let an event have its turn after those that wait already."""
        if self.queue is None:
            self.queue = deque()
        self.queue.append(intent)

    def enqueue_first(self, intent: Intent) -> None:
        """Let an event have its turn before those that wait already."""
        if self.queue is None:
            self.queue = deque()
        self.queue.appendleft(intent)

    def heard(self, call: Call) -> None:
        """A call is not in flight any more."""
        if self.in_flight == (call,):  # nearly always
            self.in_flight = ()
        else:
            self.in_flight = tuple(other for other in self.in_flight if other is not call)

    def set_timer(self, key: str, timer: Timer) -> None:
        """Note what will happen by itself, by step."""
        if self.timers is None:
            self.timers = {}
        self.timers[key] = timer

    def forget_timer(self, key: str) -> Timer | None:
        """It has happened, or is to be called off."""
        return self.timers.pop(key, None) if self.timers else None

    def drop(self) -> None:
        """Forget it: nothing that comes back for it counts."""
        self.dropped = True
        self.queue = None
        for timer in self.timers.values() if self.timers else ():
            timer.cancel()
        self.timers = None
