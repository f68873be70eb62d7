"""The participants of a simulation, and the network between: lost, doubled, late and proxied calls,
and streams that break with everything that is on them.

Participants keep one barrier row per saga and step, as the real ones do, and count the effects that
are there. Two participants serve the steps in turn. One that is down answers nothing but that, and
its health service does not answer. Every call is looked at in the moment when it is sent.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from coordinator.core.model import Direction, Failure, FailureKind
from coordinator.participants.base import Answer, Attempt, Done, Failed

Key = tuple[str, str]
Tell = Callable[[str], None]

PARTICIPANTS = ("left", "right")


@dataclass
class Services:
    """What all participants together have stored. `sour` chances a Do to be refused for good."""

    chance: random.Random
    tell: Tell
    sour: float
    rows: dict[Key, str] = field(default_factory=dict)
    effects: Counter[Key] = field(default_factory=Counter)
    down: set[str] = field(default_factory=set)
    """Names of participants that are down."""

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
                self.effects[key] += 1
        return {"DONE": "OK", "REJECTED": "REJECTED", "COMPENSATED": "REFUSED"}[self.rows[key]]

    def compensate(self, key: Key) -> str:
        if self.rows.get(key) == "DONE":
            self.effects[key] -= 1
        self.rows[key] = "COMPENSATED"
        return "OK"


def serves(service: str) -> str:
    """Name of the participant that serves a step service, such as test.v1.A."""
    return "left" if service in {"test.v1.A", "test.v1.C"} else "right"


@dataclass(frozen=True)
class Weather:
    """How bad the network is."""

    lost: float
    doubled: float
    proxied: float
    slowest_seconds: float


CLEAR = Weather(lost=0, doubled=0, proxied=0, slowest_seconds=0.01)


@dataclass
class Traffic:
    """What is under way in the whole world; it goes on when the coordinator that sent it dies."""

    messages: int = 0

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Let something happen when a message has arrived."""
        self.messages += 1

        def arrive() -> None:
            self.messages -= 1
            act()

        asyncio.get_running_loop().call_later(seconds, arrive)


class Network:
    """`Participants` of one coordinator."""

    def __init__(
        self,
        services: Services,
        traffic: Traffic,
        chance: random.Random,
        weather: Callable[[], Weather],
        passes: Callable[[Attempt], bool],
    ) -> None:
        """`passes` looks at every call, and says whether it is ever answered."""
        self._services = services
        self._traffic = traffic
        self._chance = chance
        self._weather = weather
        self._passes = passes
        self._on_streams: dict[str, list[_Once]] = {name: [] for name in PARTICIPANTS}
        self.dead = False

    def call(self, attempt: Attempt, answered: Callable[[Answer], None]) -> None:
        """See `Participants.call`."""
        if not self._passes(attempt):
            return
        hear = _Once(lambda answer: None if self.dead else answered(answer))
        if serves(attempt.service) in self._services.down:
            self._soon(lambda: hear(away()))
            return
        self._limit(attempt, hear)
        weather = self._weather()
        if self._chance.random() < weather.proxied:
            self._soon(lambda: hear(no(FailureKind.REFUSED)))
            return
        on_stream = self._on_streams[serves(attempt.service)]
        on_stream[:] = [earlier for earlier in on_stream if not earlier.over] + [hear]
        for _ in range(2 if self._chance.random() < weather.doubled else 1):
            if self._chance.random() >= weather.lost:
                self._soon(lambda: self._arrive(attempt, hear))

    def break_stream(self, participant: str) -> None:
        """All calls in flight to it are unknown: their requests are lost, or else their answers."""
        requests_are_lost = self._chance.random() < 0.5
        for hear in self._on_streams[participant]:
            hear.cut = requests_are_lost
            hear(away())

    def whose(self, service: str) -> str:
        """See `Participants.whose`."""
        return service if service in PARTICIPANTS else serves(service)

    async def serving(self, participant: str) -> bool:
        """See `Participants.serving`: a storm may swallow this question, too."""
        await asyncio.sleep(self._chance.random() * 0.05)
        lost = self._chance.random() < self._weather().lost
        return participant not in self._services.down and not lost

    def _limit(self, attempt: Attempt, hear: _Once) -> None:
        asyncio.get_running_loop().call_later(attempt.timeout_ms / 1_000, lambda: hear(silence()))

    def _arrive(self, attempt: Attempt, hear: _Once) -> None:
        if hear.cut or serves(attempt.service) in self._services.down:
            return
        answer = self._services.serve(attempt)
        if self._chance.random() >= self._weather().lost:
            self._soon(lambda: hear(heard(attempt, answer)))

    def _soon(self, act: Callable[[], None]) -> None:
        slowest = self._weather().slowest_seconds
        late = self._chance.random() < 0.1
        self._traffic.later(self._chance.random() * (slowest if late else 0.05), act)


class _Once:
    def __init__(self, act: Callable[[Answer], None]) -> None:
        self._act = act
        self.over = False
        self.cut = False
        """What was sent and has not arrived never will."""

    def __call__(self, answer: Answer) -> None:
        if not self.over:
            self.over = True
            self._act(answer)


def silence() -> Failed:
    return Failed(Failure(kind=FailureKind.UNKNOWN, code="DEADLINE_EXCEEDED", reason="NO_ANSWER"))


def away() -> Failed:
    return Failed(Failure(kind=FailureKind.UNKNOWN, code="UNAVAILABLE", reason="UNAVAILABLE"))


def no(kind: FailureKind) -> Failed:
    return Failed(Failure(kind=kind, code="FAILED_PRECONDITION", reason="TOLD"))


def heard(attempt: Attempt, answer: str) -> Answer:
    if answer == "OK":
        return Done(f"{attempt.step}-ok".encode())
    return no(FailureKind.REJECTED if answer == "REJECTED" else FailureKind.REFUSED)
