"""20,000 seeded random walks through the core: a lossy network, crashes, cancels, operators.

The world is as small as it can be and stay honest: requests and answers travel as messages that may
be lost, doubled, late and reordered; participants keep one barrier row per step; the coordinator
keeps nothing but its journal and may be replaced by a recovered one at any moment. At the end every
message still under way arrives, and every saga must be all done or all undone.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from coordinator.core.commands import Call
from coordinator.core.decide import decide, recover, start
from coordinator.core.events import (
    Aborted,
    AttemptFailed,
    Event,
    Retried,
    Started,
    StepCompensated,
    StepDone,
    StepRejected,
)
from coordinator.core.evolve import replay
from coordinator.core.model import (
    Definition,
    Direction,
    Failure,
    FailureKind,
    RetryPolicy,
    SagaState,
)
from coordinator.core.saga import Saga
from coordinator.core.transitions import IllegalEvent, StaleAnswer
from tests.builders import definition

WALKS = 10_000
BATCHES = 4
PATIENT = RetryPolicy(max_attempts=6)
CANCELLED = Failure(kind=FailureKind.REFUSED, code="CANCELLED", reason="SAGA_CANCELLED")
SILENCE = Failure(kind=FailureKind.UNKNOWN, code="DEADLINE_EXCEEDED", reason="NO_ANSWER")


@dataclass
class Participants:
    """One barrier row per step; `effects` counts what a step did and not yet undid."""

    refuses: frozenset[str]
    rows: dict[str, str] = field(default_factory=dict)
    effects: dict[str, int] = field(default_factory=dict)

    def serve(self, call: Call) -> str:
        row = self.rows.get(call.step)
        if call.direction is Direction.DO:
            return self._do(call.step, row)
        if row == "DONE":
            self.effects[call.step] -= 1
        if row != "REJECTED":
            self.rows[call.step] = "COMPENSATED"
        return "OK"

    def _do(self, step: str, row: str | None) -> str:
        if row is None:
            row = self.rows[step] = "REJECTED" if step in self.refuses else "DONE"
            self.effects[step] = self.effects.get(step, 0) + (row == "DONE")
        return {"DONE": "OK", "REJECTED": "REJECTED", "COMPENSATED": "REFUSED"}[row]


@dataclass
class Walk:
    """One saga from start to end in a bad world."""

    chance: random.Random
    definition: Definition
    participants: Participants
    saga: Saga
    history: list[tuple[Event, tuple[Call, ...]]]
    unserved: frozenset[str]
    """Steps whose participant is badly configured, and often answers so."""
    requests: list[Call] = field(default_factory=list)
    answers: list[tuple[Call, str]] = field(default_factory=list)
    waiting: list[Call] = field(default_factory=list)

    def run(self) -> Walk:
        for _ in range(400):
            if self.saga.state.final:
                break
            self._step()
        else:
            self._end()
        for call in self.requests:  # whatever is still under way arrives after the end
            self.participants.serve(call)
        return self

    def _step(self) -> None:
        if self.saga.state is SagaState.STUCK:
            self._decide_for_it()
            return
        dice = self.chance.random()
        if dice < 0.44 and self.requests:
            self._deliver_request()
        elif dice < 0.88 and self.answers:
            self._deliver_answer()
        elif dice < 0.96 and self.waiting:
            self._time_out()
        elif dice < 0.98:
            self._crash()
        elif self.saga.state is SagaState.RUNNING:
            self._cancel()

    def _decide_for_it(self) -> None:
        if self.saga.failure is None and self.chance.random() < 0.3:
            self._cancel()
        else:
            self._happens(Retried(time_ms=self._time(), actor="ann", note="go on"))

    def _end(self) -> None:
        while not self.saga.state.final:  # the weather clears: everything is delivered in order
            if self.saga.state is SagaState.STUCK:
                self._step()
            elif self.waiting:
                call = self.waiting[0]
                self._hear(call, self.participants.serve(call))
            else:
                self._crash()

    def _time(self) -> int:
        return self.saga.updated_ms + 1

    def _deliver_request(self) -> None:
        index = self.chance.randrange(len(self.requests))
        doubled = self.chance.random() < 0.2
        call = self.requests[index] if doubled else self.requests.pop(index)
        fate = self.chance.random()
        if fate < 0.15:
            return  # lost
        if fate < 0.20:
            self.answers.append((call, "REFUSED"))  # a proxy says no in the participant's name
            return
        if call.step in self.unserved and fate < 0.70:
            self.answers.append((call, "MISCONFIGURED"))
            return
        answer = self.participants.serve(call)
        if fate < 0.85:
            self.answers.append((call, answer))

    def _deliver_answer(self) -> None:
        index = self.chance.randrange(len(self.answers))
        doubled = self.chance.random() < 0.2
        self._hear(*(self.answers[index] if doubled else self.answers.pop(index)))

    def _hear(self, call: Call, answer: str) -> None:
        if call in self.waiting:
            self.waiting.remove(call)
        self._happens(self._event(call, answer))

    def _event(self, call: Call, answer: str) -> Event:
        if answer == "OK" and call.direction is Direction.COMPENSATE:
            return StepCompensated(time_ms=self._time(), step=call.step, attempt=call.attempt)
        if answer == "OK":
            return StepDone(
                time_ms=self._time(), step=call.step, attempt=call.attempt, response=b"ok"
            )
        kind = FailureKind(answer)
        told = Failure(kind=kind, code="FAILED_PRECONDITION", reason=answer, step=call.step)
        if call.direction is Direction.DO and kind is not FailureKind.MISCONFIGURED:
            return StepRejected(
                time_ms=self._time(), step=call.step, attempt=call.attempt, failure=told
            )
        return self._failed(call, told)

    def _failed(self, call: Call, told: Failure) -> AttemptFailed:
        return AttemptFailed(
            time_ms=self._time(),
            step=call.step,
            direction=call.direction,
            attempt=call.attempt,
            failure=told,
            retry_at_ms=self._time() + 10,
        )

    def _time_out(self) -> None:
        call = self.waiting.pop(self.chance.randrange(len(self.waiting)))
        self._happens(self._failed(call, SILENCE))

    def _cancel(self) -> None:
        flying = [c.step for c in self.waiting if c.direction is Direction.DO]
        awaited = frozenset(flying)
        self._happens(Aborted(time_ms=self._time(), failure=CANCELLED, awaited=awaited))

    def _crash(self) -> None:
        saga = replay(self.saga.saga_id, self.definition, self.history)
        assert saga == self.saga
        self.waiting.clear()
        calls, events = recover(saga, self._time())
        self._send(calls)
        for event in events:
            self._happens(event)

    def _happens(self, event: Event) -> None:
        try:
            decision = decide(self.saga, event)
        except StaleAnswer:
            return
        except IllegalEvent:
            assert self.saga.state.final  # only what comes after the end may be illegal here
            return
        assert decision.then is None
        self.saga = decision.saga
        self.history.append((event, decision.commands))
        self._send(decision.commands)

    def _send(self, calls: tuple[Call, ...]) -> None:
        self.requests.extend(calls)
        self.waiting.extend(calls)


def patient(story: Definition) -> Definition:
    """The same with a Do budget that a few misconfigured attempts do not spend."""
    return replace(story, steps=tuple(replace(step, retry=PATIENT) for step in story.steps))


DEFINITIONS = [patient(definition(*"abcd"[:size])) for size in (1, 2, 3, 4)]


def walk(seed: int) -> Walk:
    chance = random.Random(seed)
    chosen = chance.choice(DEFINITIONS)
    refuses = frozenset(s.name for s in chosen.steps if chance.random() < 0.15)
    event = Started(time_ms=1_000, input_bytes=b"in")
    decision = start(f"walk-{seed}", chosen, event)
    unserved = frozenset(s.name for s in chosen.steps if chance.random() < 0.1)
    history: list[tuple[Event, tuple[Call, ...]]] = [(event, decision.commands)]
    world = Walk(chance, chosen, Participants(refuses), decision.saga, history, unserved)
    world._send(decision.commands)
    return world.run()


def verdict(world: Walk) -> str:
    """What is wrong with the end of a walk; empty when every promise held."""
    effects = {
        step.name: world.participants.effects.get(step.name, 0) for step in world.definition.steps
    }
    wanted = {SagaState.COMPLETED: 1, SagaState.COMPENSATED: 0}.get(world.saga.state)
    if wanted is None or any(count != wanted for count in effects.values()):
        return f"{world.saga.saga_id}: {world.saga.state.value} with effects {effects}"
    return ""


@pytest.mark.parametrize("first", range(0, WALKS, WALKS // BATCHES))
def test_every_walk_ends_all_done_or_all_undone(first: int) -> None:
    worlds = [walk(seed) for seed in range(first, first + WALKS // BATCHES)]
    assert not [told for world in worlds if (told := verdict(world))]
    ends = Counter(world.saga.state.value for world in worlds)
    assert min(ends["COMPLETED"], ends["COMPENSATED"]) > len(worlds) / 10  # both are walked to


def test_a_walk_in_which_a_participant_forgets_its_tombstone_is_found_guilty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forgetful(self: Participants, call: Call) -> str:
        if call.direction is Direction.COMPENSATE and call.step not in self.rows:
            return "OK"
        return honest(self, call)

    honest = Participants.serve
    monkeypatch.setattr(Participants, "serve", forgetful)
    assert any(verdict(walk(seed)) for seed in range(5_000))
