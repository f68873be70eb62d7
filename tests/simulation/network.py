"""The participants of a simulation, and the network between: lost, doubled, late and proxied calls.

Participants keep one barrier row per saga and step, as the real ones do, and count the effects that
are there. Every call is checked against the journal at the moment it is sent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from coordinator.core.model import Direction, Failure, FailureKind
from coordinator.participants.base import Answer, Attempt, Done, Failed

Key = tuple[str, str]
Tell = Callable[[str], None]


@dataclass
class Services:
    """What all participants together have stored. `sour` chances a Do to be refused for good."""

    chance: random.Random
    tell: Tell
    sour: float
    rows: dict[Key, str] = field(default_factory=dict)
    effects: dict[Key, int] = field(default_factory=dict)

    def serve(self, attempt: Attempt) -> str:
        key = (attempt.saga_id, attempt.step)
        doing = attempt.direction is Direction.DO
        answer = self.do(key) if doing else self.compensate(key)
        self.tell(f"{attempt.direction.value} {key[0]} {key[1]} is served: {answer}")
        return answer

    def do(self, key: Key) -> str:
        if key not in self.rows:
            self.rows[key] = "REJECTED" if self.chance.random() < self.sour else "DONE"
            if self.rows[key] == "DONE":
                self.effects[key] = self.effects.get(key, 0) + 1
        return {"DONE": "OK", "REJECTED": "REJECTED", "COMPENSATED": "REFUSED"}[self.rows[key]]

    def compensate(self, key: Key) -> str:
        if self.rows.get(key) == "DONE":
            self.effects[key] -= 1
        self.rows[key] = "COMPENSATED"
        return "OK"


@dataclass
class Weather:
    """How bad the network is, until it clears."""

    lost: float
    doubled: float
    proxied: float
    slowest_seconds: float


CLEAR = Weather(lost=0, doubled=0, proxied=0, slowest_seconds=0.01)


class Network:
    """`Participants` of one coordinator. What it has sent goes on when that coordinator dies."""

    def __init__(
        self,
        services: Services,
        chance: random.Random,
        weather: Callable[[], Weather],
        check: Callable[[Attempt], None],
    ) -> None:
        self._services = services
        self._chance = chance
        self._weather = weather
        self._check = check
        self.dead = False

    def call(self, attempt: Attempt, answered: Callable[[Answer], None]) -> None:
        """See `Participants.call`."""
        self._check(attempt)
        hear = _Once(lambda answer: None if self.dead else answered(answer))
        self._later(attempt.timeout_ms / 1_000, lambda: hear(silence()))
        weather = self._weather()
        if self._chance.random() < weather.proxied:
            self._soon(lambda: hear(no(FailureKind.REFUSED)))
            return
        for _ in range(2 if self._chance.random() < weather.doubled else 1):
            if self._chance.random() >= weather.lost:
                self._soon(lambda: self._arrive(attempt, hear))

    def whose(self, service: str) -> str:
        """See `Participants.whose`."""
        return service.split(".", maxsplit=1)[0]

    async def serving(self, participant: str) -> bool:
        """See `Participants.serving`: a storm may swallow this question, too."""
        return self._chance.random() >= self._weather().lost

    def _arrive(self, attempt: Attempt, hear: _Once) -> None:
        answer = self._services.serve(attempt)
        if self._chance.random() >= self._weather().lost:
            self._soon(lambda: hear(heard(attempt, answer)))

    def _soon(self, act: Callable[[], None]) -> None:
        slowest = self._weather().slowest_seconds
        late = self._chance.random() < 0.1
        self._later(self._chance.random() * (slowest if late else 0.05), act)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, act)


class _Once:
    def __init__(self, act: Callable[[Answer], None]) -> None:
        self._act = act
        self._over = False

    def __call__(self, answer: Answer) -> None:
        if not self._over:
            self._over = True
            self._act(answer)


def silence() -> Failed:
    return Failed(Failure(kind=FailureKind.UNKNOWN, code="DEADLINE_EXCEEDED", reason="NO_ANSWER"))


def no(kind: FailureKind) -> Failed:
    return Failed(Failure(kind=kind, code="FAILED_PRECONDITION", reason="TOLD"))


def heard(attempt: Attempt, answer: str) -> Answer:
    if answer == "OK":
        return Done(f"{attempt.step}-ok".encode())
    return no(FailureKind.REJECTED if answer == "REJECTED" else FailureKind.REFUSED)
