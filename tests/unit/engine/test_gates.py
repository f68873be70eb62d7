"""Participants in trouble: sagas wait without spending attempts, and come back smoothly."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from coordinator.core.events import AttemptFailed
from coordinator.core.model import FailureKind, SagaState
from coordinator.engine.engine import EngineSettings
from coordinator.engine.gate import FIRST_WINDOW
from coordinator.engine.ownership import OwnershipSettings
from coordinator.journal.verbs import VerbKind
from coordinator.participants.base import Done
from coordinator.participants.memory import Sent
from tests.builders import definition
from tests.unit.engine.world import EPOCH_MS, Coordinator, World, failed, now, settle

PARTICIPANT = "test"
LIMIT = EngineSettings(ownership=OwnershipSettings(instance_id="any")).max_calls


async def attempts_that_failed(world: World, saga_id: str = "saga-1") -> int:
    entries = await world.reader.entries(saga_id, 0, 1_000)
    return sum(isinstance(entry.event, AttemptFailed) for entry in entries)


async def down(one: Coordinator, what: str = "DO a 1") -> None:
    """The participant goes away, and the coordinator learns it from this attempt."""
    one.participants.away.add(PARTICIPANT)
    await one.answer(what, failed())
    await settle()
    assert one.engine.circuit_of("test.v1.A").open


async def test_a_saga_waits_for_its_participant_without_spending_attempts(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await down(one)
    await asyncio.sleep(600)
    assert one.participants.waiting == 0
    one.participants.away.clear()
    back = now()
    await one.answer("DO a 2")
    assert now() - back <= 1
    await world.until(SagaState.COMPLETED)
    assert await attempts_that_failed(world) == 1


async def test_a_saga_that_starts_while_its_participant_is_away_spends_nothing(
    world: World,
) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await down(one)
    await world.start(one, "b", saga_id="saga-2")
    await asyncio.sleep(60)
    one.participants.away.clear()
    assert {(await one.participants.next()).attempt.step for _ in "ab"} == {"a", "b"}
    assert await attempts_that_failed(world, "saga-2") == 0


async def test_a_participant_that_says_that_it_serves_is_left_to_the_retry_policy(
    world: World,
) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    for attempt in (1, 2, 3):
        await one.answer(f"DO a {attempt}", failed())
    await one.answer("COMPENSATE a 1")
    await world.until(SagaState.COMPENSATED)
    assert one.participants.asked == [PARTICIPANT] * len(one.participants.asked)
    assert not one.engine.circuit_of("test.v1.A").open


async def test_health_is_asked_about_once_a_second_however_many_calls_fail(world: World) -> None:
    one = await world.coordinator(max_sagas=1_000)
    for number in range(200):
        await world.start(one, "a", saga_id=f"saga-{number}")
    async with asyncio.timeout(60):
        while one.counts.states[SagaState.COMPENSATED] != 200:
            sent = await one.participants.next()
            doing = sent.attempt.direction.value == "DO"
            sent.answer(failed() if doing else Done(b""))
            await settle()
    assert 1 < len(one.participants.asked) <= now() + 2


async def test_while_a_participant_is_away_it_is_asked_twice_a_second_at_most(
    world: World,
) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await down(one)
    before = len(one.participants.asked)
    await asyncio.sleep(10)
    assert 10 <= len(one.participants.asked) - before <= 21


async def test_what_was_in_flight_spends_one_attempt_and_then_waits(world: World) -> None:
    one = await world.coordinator()
    for number in range(5):
        await world.start(one, "a", saga_id=f"saga-{number}")
    sent = [await one.sent("DO a 1") for _ in range(5)]
    one.participants.away.add(PARTICIPANT)
    for call in sent:
        call.answer(failed())
    await asyncio.sleep(120)
    assert one.participants.waiting == 0
    assert [await attempts_that_failed(world, f"saga-{n}") for n in range(5)] == [1] * 5


async def test_the_trouble_of_one_participant_is_not_that_of_another(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await down(one)
    story = definition("a")
    elsewhere = replace(story.steps[0], service="other.v1.A")
    await world.start(one, saga_id="saga-2", story=replace(story, steps=(elsewhere,), hash="other"))
    await one.answer("DO a 1")
    await world.until(SagaState.COMPLETED, "saga-2")


# --- called off while waiting ------------------------------------------------------------


async def test_a_do_that_waits_neither_delays_an_abort_nor_is_sent_after_it(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await down(one)
    await asyncio.sleep(5)
    await world.verb(one, VerbKind.CANCEL)
    assert (await world.saga()).state is SagaState.COMPENSATING
    assert one.engine.circuit_of("test.v1.A").waiting == 1
    one.participants.away.clear()
    await one.answer("COMPENSATE a 1")
    await world.until(SagaState.COMPENSATED)
    assert one.participants.waiting == 0


async def test_a_deadline_also_aborts_a_saga_that_waits(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, story=replace(definition("a"), deadline_ms=20_000))
    await down(one)
    await asyncio.sleep(19.9)
    assert (await world.saga()).state is SagaState.RUNNING
    saga = await world.until(SagaState.COMPENSATING)
    assert now() == pytest.approx(20, abs=0.1)
    assert saga.failure is not None
    assert saga.failure.reason == "SAGA_DEADLINE_EXCEEDED"
    one.participants.away.clear()
    await one.answer("COMPENSATE a 1")
    await world.until(SagaState.COMPENSATED)


async def test_what_waits_is_sent_by_the_next_owner_alone(world: World) -> None:
    one = await world.coordinator("one")
    await world.start(one, "a")
    await down(one)
    await asyncio.sleep(5)
    one.journal.cut()
    two = await world.coordinator("two")
    await two.answer("DO a 2")
    one.journal.mend()
    await one.ready()
    one.participants.away.clear()
    await asyncio.sleep(10)
    assert one.participants.waiting == 0
    assert one.engine.circuit_of("test.v1.A").waiting == 0


async def test_a_compensation_that_waits_leaves_with_its_saga_also_after_a_retry_came_too_late(
    world: World,
) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await one.answer("DO a 1", failed())
    await world.start(one, "a", saga_id="saga-2")
    other = await one.sent("DO a 1")
    one.journal.hold()
    cancelling = asyncio.create_task(world.verb(one, VerbKind.CANCEL))
    await asyncio.sleep(2)  # the retry comes due while the abort is written
    one.participants.away.add(PARTICIPANT)
    other.answer(failed())
    await asyncio.sleep(2)
    one.journal.let_go()
    await cancelling
    assert one.engine.circuit_of("test.v1.A").waiting == 2
    await one.kill()
    assert one.engine.circuit_of("test.v1.A").waiting == 0


async def test_a_drain_does_not_wait_for_a_participant_that_is_away(world: World) -> None:
    one = await world.coordinator("one")
    await world.start(one, "a")
    await down(one)
    await asyncio.sleep(5)
    before = now()
    await one.shut_down()
    assert now() == before
    two = await world.coordinator("two")
    await two.sent("DO a 2")


# --- services that nobody is known to serve -----------------------------------------------------


async def test_a_step_that_nobody_serves_yet_waits_and_spends_nothing(world: World) -> None:
    one = await world.coordinator()
    one.participants.unheard.add("test.v1.A")
    await world.start(one, "a")
    await asyncio.sleep(60)
    assert one.participants.waiting == 0
    condition = one.engine.circuit_of("test.v1.A")
    assert (condition.participant, condition.open, condition.waiting) == ("test.v1.A", True, 1)
    assert condition.failure is not None
    assert condition.failure.reason == "PARTICIPANT_UNKNOWN"
    one.participants.unheard.clear()
    await one.answer("DO a 1")
    await world.until(SagaState.COMPLETED)
    assert [condition.participant for condition in one.engine.conditions()] == [PARTICIPANT]


async def test_a_step_that_is_served_no_more_waits_again(world: World) -> None:
    one = await world.coordinator()
    one.participants.unheard.add("test.v1.A")
    await world.start(one, "a")
    await asyncio.sleep(5)
    one.participants.unheard.clear()
    await one.answer("DO a 1")
    one.participants.unheard.add("test.v1.A")
    await world.start(one, "a", saga_id="saga-2")
    await asyncio.sleep(5)
    assert one.participants.waiting == 0
    one.participants.unheard.clear()
    await one.answer("DO a 1")
    await world.until(SagaState.COMPLETED, "saga-2")


# --- what is told ---------------------------------------------------------------------------------


async def test_the_condition_says_since_when_and_why(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    assert one.engine.circuit_of("test.v1.A").in_flight == 1
    assert one.engine.circuit_of("test.v1.A").since_ms == 0
    await asyncio.sleep(7)
    await down(one)
    since_ms = EPOCH_MS + int(now() * 1_000)
    await asyncio.sleep(5)
    condition = one.engine.circuit_of("test.v1.A")
    assert (condition.in_flight, condition.waiting) == (0, 1)
    assert condition.since_ms == pytest.approx(since_ms, abs=10)
    assert condition.failure is not None
    assert condition.failure.code == "UNAVAILABLE"


# --- thousands --------------------------------------------------------------------------


class Crowd:
    """A participant that answers everything after a while, and remembers how much came at once."""

    def __init__(self, one: Coordinator, seconds: float) -> None:
        self._one = one
        self._seconds = seconds
        self.under_way = 0
        self.most = 0
        self.rises: list[int] = []
        """How many were under way at most, in each of the first rounds."""

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sent = await self._one.participants.next()
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            loop.call_later(self._seconds, self._answer, sent)

    def _answer(self, sent: Sent) -> None:
        self.under_way -= 1
        sent.answered(Done(b"ok"))


async def test_five_thousand_sagas_that_waited_come_back_smoothly(world: World) -> None:
    one = await world.coordinator(max_sagas=10_000)
    await world.start(one, "a", saga_id="first")
    await down(one)
    for number in range(5_000):
        await world.start(one, "a", saga_id=f"saga-{number}")
    await asyncio.sleep(60)
    assert one.participants.waiting == 0
    one.participants.away.clear()
    crowd = Crowd(one, seconds=0.05)
    serving = asyncio.create_task(crowd.serve())
    await asyncio.sleep(1.0)  # it has been asked, and at most a few round trips are over
    async with asyncio.timeout(60):
        while one.counts.states[SagaState.COMPLETED] < 5_001:
            await asyncio.sleep(0.05)
    serving.cancel()
    assert FIRST_WINDOW < crowd.most <= LIMIT * 3 // 4
    assert one.counts.attempts == {"DO UNKNOWN": 1, "DO DONE": 5_001}


async def test_a_participant_that_comes_back_is_met_with_few_calls_at_first(world: World) -> None:
    one = await world.coordinator(max_sagas=10_000)
    await world.start(one, "a", saga_id="first")
    await down(one)
    for number in range(500):
        await world.start(one, "a", saga_id=f"saga-{number}")
    one.participants.away.clear()
    await asyncio.sleep(10)
    first = one.participants.waiting
    assert first == FIRST_WINDOW * 3 // 4
    for _ in range(first):
        (await one.participants.next()).answer(Done(b"ok"))
    await settle()
    assert first < one.participants.waiting <= 2 * first


# --- retries ----------------------------------------------------------------------------


async def test_a_participant_may_not_ask_to_be_left_alone_for_ever(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await one.answer("DO a 1", failed(retry_after_ms=3_600_000))
    before = now()
    await one.sent("DO a 2")
    assert now() - before == pytest.approx(30, abs=0.1)


async def test_an_answer_that_comes_after_its_attempt_was_given_up_changes_nothing(
    world: World,
) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    late = await one.sent("DO a 1")
    late.answer(failed())
    again = await one.sent("DO a 2")
    late.answer(Done(b"late"))
    await settle()
    assert (await world.saga()).steps[0].response is None
    again.answer(Done(b"in time"))
    await one.answer("DO b 1")
    saga = await world.until(SagaState.COMPLETED)
    assert saga.steps[0].response == b"in time"


async def test_a_participant_that_refuses_while_others_fail_stays_in_business(
    world: World,
) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    await one.answer("DO a 1", failed(FailureKind.MISCONFIGURED))
    await settle()
    assert one.participants.asked == []
