"""One saga in memory: its durable state, what is being written and what is in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from coordinator.core.commands import Call
from coordinator.core.events import Event
from coordinator.core.model import Direction
from coordinator.core.saga import Saga
from coordinator.core.transitions import IllegalEvent
from coordinator.engine.clock import Timer
from coordinator.engine.gate import Waiting


@dataclass(slots=True, kw_only=True)
class Intent:
    """An event that wants to happen, made when its turn comes from the saga as it is then."""

    make: Callable[[Live], Event]
    verb_id: str = ""
    """Request id of the verb that asks for it; empty for none."""
    illegal: Callable[[IllegalEvent], None] | None = None
    """Hears when the event cannot happen any more; late answers need not hear."""

    @classmethod
    def that(cls, event: Event) -> Intent:
        """An event that is known already."""
        return cls(make=lambda _: event)

    def refuse(self, error: IllegalEvent) -> None:
        """It cannot happen; tell whoever asked for it."""
        if self.illegal is not None:
            self.illegal(error)


@dataclass(slots=True, eq=False)
class Live:
    """One saga in memory. Only `saga` is durable; the rest is lost with the process, and may be."""

    saga: Saga
    queue: deque[Intent] = field(default_factory=deque)
    """Events that wait for their turn; one is written at a time."""
    writing: bool = False
    in_flight: dict[str, Call] = field(default_factory=dict)
    """Calls by step that were sent and whose answers have not had their turn."""
    late: list[Call] = field(default_factory=list)
    """Calls that came due while an event was being written."""
    timers: dict[str, Timer] = field(default_factory=dict)
    """Retries by step that are not due yet, and the saga's deadline."""
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
        return any(isinstance(timer, Waiting) and timer.soon for timer in self.timers.values())

    def awaited(self) -> frozenset[str]:
        """Steps whose Do is in flight."""
        calls = self.in_flight.values()
        return frozenset(call.step for call in calls if call.direction is Direction.DO)

    def drop(self) -> None:
        """Forget it: nothing that comes back for it counts."""
        self.dropped = True
        self.queue.clear()
        self.cancel_timers()

    def cancel_timers(self) -> None:
        """Let nothing happen by itself any more."""
        for timer in self.timers.values():
            timer.cancel()
        self.timers.clear()
