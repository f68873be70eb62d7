"""The gates before all participants, and who looks after those in trouble.

A circuit opens only when two agree: calls fail in a way that says that the participant is away, or
none is answered while others wait, and its health service does not say that it is serving. One that
says SERVING and yet answers nothing of use is left to the retry policy of each saga. While a
circuit is open the health service is asked until it says SERVING; what was in flight has spent one
attempt, and nothing else has spent any.

A step that nobody is known to serve has a gate of its own, with an open circuit, until somebody
serves it or everybody was heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from coordinator.core.model import Failure, FailureKind
from coordinator.engine.clock import Clock
from coordinator.engine.gate import Condition, Gate
from coordinator.participants.base import Participants

log = structlog.get_logger(__name__)

_AT_MOST_EVERY_SECONDS = 1.0
"""How often a participant that is serving is asked, however many calls fail."""


class Gates:
    """Every participant's gate."""

    def __init__(
        self,
        participants: Participants,
        clock: Clock,
        *,
        limit: int,
        chance: Callable[[], float],
    ) -> None:
        """`limit` is how many calls may be in flight to one participant."""
        self._participants = participants
        self._clock = clock
        self._limit = limit
        self._chance = chance
        self._gates: dict[str, Gate] = {}
        self._in_doubt: asyncio.Queue[Gate] = asyncio.Queue()
        self._attended: set[Gate] = set()

    def of(self, service: str) -> Gate:
        """The gate of the participant that serves a step service."""
        participant = self._participants.whose(service)
        return self._gates.get(participant) or self._build(participant, service)

    def waited_for(self) -> Sequence[Gate]:
        """Those before which calls wait for room; nearly always none."""
        return [gate for gate in self._gates.values() if gate.does_wait]

    def conditions(self) -> Sequence[Condition]:
        """How all participants do that were ever called; may be asked from another thread."""
        return [gate.condition for gate in list(self._gates.values())]

    async def run(self) -> None:
        """Look after the gates until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                tasks.create_task(self._attend(await self._in_doubt.get()))

    def _build(self, participant: str, service: str) -> Gate:
        gate = Gate(participant, limit=self._limit, clock=self._clock, doubted=self._doubted)
        self._gates[participant] = gate
        if participant == service:
            gate.suspicion = _unserved(service)
            gate.open_circuit()
            self._doubted(gate)
        return gate

    def _doubted(self, gate: Gate) -> None:
        if gate not in self._attended:
            self._attended.add(gate)
            self._in_doubt.put_nowait(gate)

    async def _attend(self, gate: Gate) -> None:
        while gate.suspicion is not None:
            while not await self._participants.serving(gate.participant):
                if not gate.circuit_open:
                    gate.open_circuit()
                    log.warning("circuit.opened", participant=gate.participant, **_words(gate))
                await asyncio.sleep((1 + self._chance()) / 2)
            gate.suspicion = None
            if gate.circuit_open:
                self._close_circuit(gate)
            await asyncio.sleep(_AT_MOST_EVERY_SECONDS)
        self._attended.discard(gate)

    def _close_circuit(self, gate: Gate) -> None:
        log.info("circuit.closed", participant=gate.participant, **_words(gate))
        if self._participants.whose(gate.participant) != gate.participant:
            del self._gates[gate.participant]  # it was a step that somebody serves by now
        gate.close_circuit()


def _unserved(service: str) -> Failure:
    return Failure(
        kind=FailureKind.UNKNOWN,
        code="UNAVAILABLE",
        reason="PARTICIPANT_UNKNOWN",
        message=f"no participant that answers serves {service}",
    )


def _words(gate: Gate) -> dict[str, object]:
    condition = gate.condition
    failure = condition.failure
    return {
        "waiting": condition.waiting,
        "in_flight": condition.in_flight,
        "reason": failure.reason if failure else "",
    }
