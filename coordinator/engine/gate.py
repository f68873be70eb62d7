"""The gate before one participant: which calls pass now, and which wait.

Three things decide, and none of them spends an attempt:

- The *circuit*. While it is open the participant is away, and calls wait. `gates.py` opens and
  closes it by what the participant's health service says.
- The *window*: how many calls may be in flight. It begins small and grows by one with each answer
  as long as it is used, which doubles it every round trip, up to the limit; answers that say that
  the participant is away halve it, once a round. So thousands of sagas that waited for a
  participant come back smoothly. This is slow start and multiplicative decrease as TCP has them
  (V. Jacobson, "Congestion Avoidance and Control", 1988; RFC 5681; for "as it is used", RFC 7661).
- The *reserve*: a quarter of the window is for compensations alone, and those that wait go before
  every Do, so that new work never starves undoing. Within each direction the first come go first.

A call whose gate has room costs two comparisons and two additions. Whoever waits has a timer that
calls it off.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from msgspec import Struct

from coordinator.core.model import Direction, Failure, FailureKind
from coordinator.engine.clock import Clock
from coordinator.participants.base import Answer, Failed

FIRST_WINDOW = 8
"""Calls in flight to a participant of which nothing is known yet, and the fewest after trouble."""
_DO = Direction.DO
_RESERVED = 4
"""One in this many calls in flight is a compensation's."""
_AWAY = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED"})
"""Codes with which a participant, or whoever stands before it, says that it is away."""
_REPEATEDLY = 5
"""So many unclear answers in a row are a reason to ask how it is, whatever their codes."""
_SILENCE_MS = 2_000
"""So long without any answer, while calls wait for room, is one too."""
_SILENT = Failure(
    kind=FailureKind.UNKNOWN,
    code="UNAVAILABLE",
    reason="PARTICIPANT_SILENT",
    message="none of the calls in flight is answered",
)


class Condition(Struct, frozen=True, kw_only=True, gc=False):
    """How a participant does, seen from this instance."""

    participant: str
    open: bool
    """Whether its circuit is open: calls wait."""
    since_ms: int
    """Since when, by the database's clock; 0 when it never changed."""
    waiting: int
    """Calls that wait until they may be sent."""
    in_flight: int
    failure: Failure | None
    """What opened the circuit last; None when nothing did."""


class Gate:
    """Counts the calls of one participant."""

    def __init__(
        self, participant: str, *, limit: int, clock: Clock, doubted: Callable[[Gate], None]
    ) -> None:
        """`limit` is how many calls may be in flight; `doubted` hears that it may be away."""
        self.participant = participant
        self.circuit_open = False
        self.suspicion: Failure | None = None
        """Why it may be away; None while nothing says so."""
        self._limit = limit
        self._window = min(FIRST_WINDOW, limit)
        self._clock = clock
        self._doubted = doubted
        self._in_flight = 0
        self._doing = 0
        self._unclear = 0
        self._answers = limit  # since the window was halved; a round trip is over
        self._undoes: Lane = OrderedDict()
        self._does: Lane = OrderedDict()
        self._since_ms = 0
        self._closed_ms = 0  # monotonic
        self._failure: Failure | None = None

    @property
    def condition(self) -> Condition:
        """How it does now."""
        return Condition(
            participant=self.participant,
            open=self.circuit_open,
            since_ms=self._since_ms,
            waiting=len(self._undoes) + len(self._does),
            in_flight=self._in_flight,
            failure=self._failure,
        )

    @property
    def does_wait(self) -> bool:
        """Whether a Do waits."""
        return bool(self._does)

    @property
    def wait_ms(self) -> int:
        """How long the Do that waits longest has waited for room; 0 while the circuit is open."""
        if self.circuit_open or not self._does:
            return 0
        since_ms = max(next(iter(self._does)).since_ms, self._closed_ms)
        return self._clock.monotonic_ms() - since_ms

    def enter(self, direction: Direction) -> bool:
        """Let a call pass if it may be sent now; its answer must be told to `answered`."""
        if not self._has_room(direction):
            return False
        if not self._in_flight:
            self._heard_ms = self._clock.monotonic_ms()
        self._in_flight += 1
        if direction is _DO:
            self._doing += 1
        return True

    def wait(self, direction: Direction, go: Callable[[], None]) -> Waiting:
        """Call `go` when there is room, to enter again; cancel what is returned to call it off."""
        lane = self._does if direction is Direction.DO else self._undoes
        waiting = Waiting(self, lane, go, self._clock.monotonic_ms())
        lane[waiting] = None
        if self._in_flight and waiting.since_ms - self._heard_ms > _SILENCE_MS:
            self._doubt(_SILENT)
        return waiting

    def answered(self, direction: Direction, answer: Answer) -> None:
        """Make room, learn from the answer, and let go of those who wait."""
        self._answers += 1
        self._heard_ms = self._clock.monotonic_ms()
        if isinstance(answer, Failed) and answer.failure.kind is FailureKind.UNKNOWN:
            self._unclear += 1
            self._weigh(answer.failure)
        else:
            self._unclear = 0
            if self._window < self._limit and 2 * self._in_flight >= self._window:
                self._window += 1
        self._in_flight -= 1
        if direction is _DO:
            self._doing -= 1
        if self._does or self._undoes:
            self._let_go()

    def open_circuit(self) -> None:
        """It is away: let nothing pass."""
        self._failure = self.suspicion
        self._turn(circuit_open=True)

    def close_circuit(self) -> None:
        """It is back: let calls pass, few at first."""
        self._window = min(FIRST_WINDOW, self._limit)
        self._unclear = 0
        self._closed_ms = self._clock.monotonic_ms()
        self._turn(circuit_open=False)
        self._let_go()

    def _turn(self, *, circuit_open: bool) -> None:
        self.circuit_open = circuit_open
        self._since_ms = self._clock.now_ms()

    def _has_room(self, direction: Direction) -> bool:
        if self.circuit_open or self._in_flight >= self._window:
            return False
        if direction is _DO:
            return self._doing < self._window - self._window // _RESERVED
        return True

    def _let_go(self) -> None:
        self._let_go_of(self._undoes, Direction.COMPENSATE)
        self._let_go_of(self._does, Direction.DO)

    def _let_go_of(self, lane: Lane, direction: Direction) -> None:
        while lane and self._has_room(direction):
            waiting, _ = lane.popitem(last=False)
            waiting.go()

    def _weigh(self, failure: Failure) -> None:
        if failure.code not in _AWAY and self._unclear < _REPEATEDLY:
            return
        if self._answers >= self._window:  # a round trip since the last time
            self._window = max(self._window // 2, min(FIRST_WINDOW, self._limit))
            self._answers = 0
        self._doubt(failure)

    def _doubt(self, failure: Failure) -> None:
        if not self.circuit_open:
            self.suspicion = failure
            self._doubted(self)


@dataclass(slots=True, eq=False)
class Waiting:
    """A call that waits for room: a `Timer` that nobody knows the time of."""

    gate: Gate
    lane: Lane
    go: Callable[[], None]
    since_ms: int
    """Monotonic."""

    @property
    def soon(self) -> bool:
        """Whether it waits for room alone: the participant is there."""
        return not self.gate.circuit_open

    def cancel(self) -> None:
        """Call it off. Cancelling twice does nothing."""
        self.lane.pop(self, None)


Lane: TypeAlias = OrderedDict[Waiting, None]
