"""What the engine works with; the composition root chooses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

from coordinator.core.model import Definition, Direction, SagaState
from coordinator.engine.clock import Clock
from coordinator.engine.errors import Excess
from coordinator.journal.base import Journal
from coordinator.participants.base import Participants


class NewSaga(Struct, frozen=True, kw_only=True, gc=False):
    """What a saga is started with."""

    saga_id: str
    definition: Definition
    input_bytes: bytes
    keys: Mapping[str, str]
    traceparent: str = ""
    """W3C trace context of whoever starts it; empty when it is not traced."""


class Stats(Protocol):
    """What the engine counts; the console shows it."""

    def attempt(self, direction: Direction, outcome: str) -> None:
        """One answer: DONE, or the kind of failure."""
        ...

    def ended(self, state: SagaState) -> None:
        """One saga reached a final state, or STUCK."""
        ...

    def shed(self, excess: Excess) -> None:
        """One saga was refused at the door."""
        ...

    def claimed(self, count: int) -> None:
        """So many sagas were claimed that nobody ran."""
        ...

    def unrunnable(self, count: int) -> None:
        """So many sagas cannot be run by this release now."""
        ...

    def clock_jumped(self) -> None:
        """The database's clock has jumped."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Everything outside the engine that it reaches for."""

    journal: Journal
    participants: Participants
    clock: Clock
    stats: Stats
    chance: Callable[[], float]
    """A fresh number in [0, 1) at each call, for jitter."""
