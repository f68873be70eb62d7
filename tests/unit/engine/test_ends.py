"""Who waits for a saga to end hears of it once, wherever it runs, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import pytest

from coordinator.core.model import FailureKind, SagaState
from coordinator.core.saga import Saga
from coordinator.engine.ends import Ends, EndsElsewhere
from coordinator.journal.base import JournalUnavailable, Standing
from coordinator.journal.memory import MemoryJournal, MemoryStore
from coordinator.journal.verbs import VerbKind
from tests.unit.engine.world import Coordinator, World, failed


class Looked(MemoryJournal):
    """A journal that counts looks, and says of the sagas what the test has put there."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(lambda: 0))
        self.looks: list[Sequence[str]] = []
        self.states: dict[str, SagaState] = {}
        self.away = False

    async def standings(self, saga_ids: Sequence[str]) -> Mapping[str, Standing]:
        self.looks.append(saga_ids)
        if self.away:
            raise JournalUnavailable("away")
        return {name: Standing("", self.states[name]) for name in saga_ids if name in self.states}


@pytest.fixture
def journal() -> Looked:
    return Looked()


@pytest.fixture
async def ends(journal: Looked) -> AsyncIterator[Ends]:
    ends = Ends(lambda saga_id: saga_id.startswith("mine"))
    looking = asyncio.create_task(EndsElsewhere(journal, ends).run())
    yield ends
    looking.cancel()


def heard_of(ends: Ends, saga_id: str) -> list[Saga | SagaState]:
    """What somebody hears who waits for a saga from now on."""
    heard: list[Saga | SagaState] = []
    ends.wait(saga_id, heard.append)
    return heard


async def ended(one: Coordinator, saga_id: str = "saga-1") -> Saga | SagaState:
    """Wait for an end, as long as it takes."""
    future: asyncio.Future[Saga | SagaState] = asyncio.get_running_loop().create_future()
    one.engine.when_ended(saga_id, future.set_result)
    return await future


# --- here -----------------------------------------------------------------------------


async def test_an_end_here_is_told_at_once_with_the_saga(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    waiting = asyncio.create_task(ended(one))
    await one.answer("DO a 1")
    saga = await waiting
    assert isinstance(saga, Saga)
    assert saga.state is SagaState.COMPLETED
    assert len(one.engine.ends) == 0


async def test_every_way_to_end_is_an_end(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    waiting = asyncio.create_task(ended(one))
    await one.answer("DO a 1")
    await one.answer("DO b 1", failed(FailureKind.REJECTED))
    for attempt in (1, 2, 3):
        await one.answer(f"COMPENSATE a {attempt}", failed(FailureKind.REFUSED))
    stuck = await waiting
    waiting = asyncio.create_task(ended(one))
    await world.verb(one, VerbKind.RETRY)
    await one.answer("COMPENSATE a 4")
    undone = await waiting
    assert isinstance(stuck, Saga)
    assert isinstance(undone, Saga)
    assert (stuck.state, undone.state) == (SagaState.STUCK, SagaState.COMPENSATED)


async def test_everybody_who_waits_hears_and_who_called_it_off_does_not(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    heard: list[str] = []
    one.engine.when_ended("saga-1", lambda _: heard.append("first"))
    call_off = one.engine.when_ended("saga-1", lambda _: heard.append("second"))
    one.engine.when_ended("saga-1", lambda _: heard.append("third"))
    call_off()
    call_off()
    await one.answer("DO a 1")
    await world.until(SagaState.COMPLETED)
    assert heard == ["first", "third"]


def test_who_is_called_off_by_another_who_hears_first_hears_nothing() -> None:
    ends = Ends(lambda _: True)
    heard: list[str] = []
    calls_off: list[Callable[[], None]] = []

    def first(_: Saga | SagaState) -> None:
        heard.append("first")
        calls_off[0]()

    ends.wait("s1", first)
    calls_off.append(ends.wait("s1", lambda _: heard.append("second")))
    ends.tell("s1", SagaState.COMPLETED)
    assert heard == ["first"]


def test_nothing_is_left_of_those_who_called_it_off() -> None:
    ends = Ends(lambda _: True)
    calls_off = [ends.wait(f"s{number % 3}", lambda _: None) for number in range(9)]
    assert len(ends) == 3
    for call_off in calls_off:
        call_off()
    assert len(ends) == 0


# --- elsewhere ------------------------------------------------------------------------


async def test_an_end_elsewhere_is_found_soon(world: World) -> None:
    one, two = await world.coordinator("one"), await world.coordinator("two")
    await world.start(one, "a")
    looking = asyncio.create_task(EndsElsewhere(world.reader, two.engine.ends).run())
    waiting = asyncio.create_task(ended(two))
    await asyncio.sleep(2)
    assert not waiting.done()
    await one.answer("DO a 1")
    async with asyncio.timeout(0.6):
        assert await waiting is SagaState.COMPLETED
    looking.cancel()


async def test_a_saga_that_another_instance_took_over_is_heard_of(world: World) -> None:
    one, two = await world.coordinator("one"), await world.coordinator("two")
    await world.start(one, "a")
    looking = asyncio.create_task(EndsElsewhere(world.reader, one.engine.ends).run())
    waiting = asyncio.create_task(ended(one))
    await one.sent("DO a 1")
    one.journal.cut()  # as if it were frozen: no heartbeat arrives
    await two.answer("DO a 1")
    assert await waiting is SagaState.COMPLETED
    looking.cancel()


async def test_what_has_ended_before_it_was_asked_for_is_an_end(
    journal: Looked, ends: Ends
) -> None:
    journal.states = {"s1": SagaState.COMPENSATED, "s2": SagaState.STUCK, "s3": SagaState.RUNNING}
    heard = {name: heard_of(ends, name) for name in ("s1", "s2", "s3", "unknown")}
    await asyncio.sleep(1.2)
    assert heard == {
        "s1": [SagaState.COMPENSATED],
        "s2": [SagaState.STUCK],
        "s3": [],
        "unknown": [],
    }


async def test_what_runs_here_is_not_looked_for(journal: Looked, ends: Ends) -> None:
    heard_of(ends, "mine-1")
    heard_of(ends, "s1")
    await asyncio.sleep(2.1)
    assert journal.looks == [["s1"]] * 4


async def test_while_nobody_waits_nobody_looks(journal: Looked, ends: Ends) -> None:
    await asyncio.sleep(60)
    call_off = ends.wait("s1", lambda _: None)
    await asyncio.sleep(0.6)
    call_off()
    await asyncio.sleep(60)
    assert journal.looks == [["s1"]]


async def test_who_waits_goes_on_waiting_while_the_journal_is_away(
    journal: Looked, ends: Ends
) -> None:
    heard = heard_of(ends, "s1")
    journal.away, journal.states = True, {"s1": SagaState.COMPLETED}
    await asyncio.sleep(5)
    assert heard == []
    journal.away = False
    await asyncio.sleep(0.6)
    assert heard == [SagaState.COMPLETED]


async def test_many_sagas_are_looked_at_in_parts_with_a_breath_between_them(
    journal: Looked, ends: Ends
) -> None:
    journal.states = {"s10000": SagaState.COMPLETED}
    heard = [heard_of(ends, f"s{number}") for number in range(10_001)]
    await asyncio.sleep(0.51)
    assert [len(asked) for asked in journal.looks] == [1_000]
    await asyncio.sleep(0.2)
    assert [len(asked) for asked in journal.looks] == [1_000] * 10 + [1]
    assert heard[-1] == [SagaState.COMPLETED]
