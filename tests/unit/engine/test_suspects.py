"""A saga that kills its owners is found; nobody is convicted for somebody else's deed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest
from msgspec.structs import replace

from coordinator.core.events import Aborted, Started, Stuck
from coordinator.core.model import Definition, SagaState
from coordinator.engine import takeover
from coordinator.engine.gate import FIRST_WINDOW
from coordinator.journal import memory_store
from coordinator.journal.base import Claimed, ClaimUnknown, JournalUnavailable, Lease
from coordinator.journal.memory import MemoryJournal
from coordinator.journal.verbs import VerbKind, VerbState
from coordinator.participants.base import Done
from coordinator.participants.memory import Sent
from tests.builders import definition
from tests.unit.engine.world import Coordinator, World, failed, settle

SAGAS = [f"saga-{number:02}" for number in range(1, 31)]
GUILTY = "saga-07"
MANY_LIVES = 8


def story_of(saga_id: str) -> Definition:
    """One step, served by a participant of its own, so that no saga waits for another's call."""
    (step,) = definition("a").steps
    own = replace(step, service=f"{saga_id}.v1.A", timeout_ms=600_000)
    return replace(definition("a"), steps=(own,), hash=saga_id)


async def live(world: World, coordinator: Coordinator) -> list[Sent] | None:
    """What is sent, and has no answer, until the guilty one is STUCK; None for who dies of it."""
    sent: list[Sent] = []
    while (await world.saga(GUILTY)).state is not SagaState.STUCK:
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                sent.append(await coordinator.participants.next())
                if sent[-1].attempt.saga_id == GUILTY:
                    await coordinator.kill()
                    return None
    return sent


async def try_them_all(world: World) -> tuple[set[str], int]:
    """Which sagas are convicted, and how many owners died before."""
    coordinator, deaths = await world.coordinator(), 0
    for saga_id in SAGAS:
        await world.start(coordinator, story=story_of(saga_id), saga_id=saga_id)
    while (sent := await live(world, coordinator)) is None:
        deaths += 1
        coordinator = await world.coordinator()
    for call in sent:
        call.answer(Done(b"a-ok"))
    await asyncio.sleep(100)
    while coordinator.participants.waiting:
        (await coordinator.participants.next()).answer(Done(b"a-ok"))
    await settle()
    ends = {saga_id: (await world.saga(saga_id)).state for saga_id in SAGAS}
    assert set(ends.values()) <= {SagaState.STUCK, SagaState.COMPLETED}
    return {saga_id for saga_id, state in ends.items() if state is SagaState.STUCK}, deaths


async def test_the_one_saga_that_kills_its_owners_is_isolated_and_its_neighbours_run(
    world: World,
) -> None:
    convicts, deaths = await try_them_all(world)
    assert convicts == {GUILTY}
    assert deaths == 4  # who started it, and the three who claimed it
    stuck = (await world.saga(GUILTY)).stuck
    assert stuck is not None
    assert stuck.reason == "SAGA_POISONOUS"


async def test_a_convict_that_is_let_go_and_kills_again_is_convicted_again(world: World) -> None:
    one = await calling_saga(world)
    for sentence in (1, 2):
        for deaths in range(3):
            await one.kill()
            one = await world.coordinator()
            await one.participants.next()
            assert (await claims(world)) == deaths + 1
        await one.kill()
        one = await world.coordinator()
        await world.until(SagaState.STUCK)
        await world.verb(one, VerbKind.RETRY, request_id=f"{sentence}")
        await one.participants.next()


async def test_claimed_all_at_once_its_neighbours_would_be_convicted_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_store, "company", lambda claims, limit: limit)
    convicts, _ = await try_them_all(world)
    assert convicts > {GUILTY}


async def test_the_next_company_waits_until_the_last_is_acquitted(world: World) -> None:
    one = await world.coordinator()
    for saga_id in SAGAS:
        await world.start(one, story=story_of(saga_id), saga_id=saga_id)
    for _ in range(2):  # claimed twice: every one is a suspect
        await one.kill()
        one = await world.coordinator()
        await settle()
    assert one.participants.waiting == 10
    await asyncio.sleep(1.9)
    assert one.participants.waiting == 10
    for _ in range(10):
        (await one.participants.next()).answer(Done(b"a-ok"))
    await asyncio.sleep(0.1)
    assert one.participants.waiting == 10


async def test_a_suspect_is_not_even_claimed_while_somebody_else_may_kill(world: World) -> None:
    """Its claim would count against it, though it was not run."""
    one = await calling_saga(world)
    await one.kill()
    one = await world.coordinator()
    await world.start(one, story=story_of("saga-2"), saga_id="saga-2")
    await settle()
    await one.kill()
    one = await world.coordinator()
    await asyncio.sleep(1.9)
    assert (await claims(world), one.counts.sagas_claimed) == (1, 1)
    await asyncio.sleep(0.2)
    assert (await claims(world), one.counts.sagas_claimed) == (2, 2)


async def test_a_verb_does_not_run_a_suspect_before_its_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "_COMPANY", 1)
    one = await calling_saga(world)
    for _ in range(3):
        await one.kill()
        one = await world.coordinator()
        await one.sent("DO a 1")
    await world.start(one, story=story_of("saga-2"), saga_id="saga-2")
    await one.sent("DO a 1")
    await one.kill()
    one = await world.coordinator()  # runs the other, and has the suspect wait for the end of that
    assert (await one.sent("DO a 1")).attempt.saga_id == "saga-2"
    assert await claims(world) == 4
    outcome = await world.verb(one, VerbKind.CANCEL)
    assert outcome.state is VerbState.ACCEPTED
    await one.sent("COMPENSATE a 1")
    stored = await world.reader.load("saga-1")
    assert stored is not None
    assert [type(entry.event) for entry in stored.entries] == [Started, Stuck, Aborted]


# --- the innocent ---------------------------------------------------------------------------


async def waiting_saga(world: World) -> Coordinator:
    """A saga that waits for its next attempt for a long time."""
    one = await world.coordinator()
    story = definition("a")
    (step,) = story.steps
    patient = replace(step, retry=replace(step.retry, max_interval_ms=3_600_000))
    await world.start(one, story=replace(story, steps=(patient,)))
    await one.answer("DO a 1", failed(retry_after_ms=3_600_000))
    await settle()
    return one


async def calling_saga(world: World) -> Coordinator:
    """A saga whose call has no answer for a long time."""
    one = await world.coordinator()
    await world.start(one, story=story_of("saga-1"))
    await one.participants.next()
    return one


async def claims(world: World) -> int:
    stored = await world.reader.load("saga-1")
    assert stored is not None
    assert stored.state is SagaState.RUNNING
    return stored.claims


async def test_a_saga_that_merely_waits_is_not_convicted_by_any_number_of_deaths(
    world: World,
) -> None:
    one = await waiting_saga(world)
    for _ in range(MANY_LIVES):
        await one.kill()
        one = await world.coordinator()
        await settle()
        assert await claims(world) == 0
    await one.sent("DO a 2")


async def test_without_acquittal_a_saga_that_merely_waits_would_be_convicted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def acquit(self: MemoryJournal, lease: Lease, saga_ids: Sequence[str]) -> None:
        """Forget to."""

    async def park(self: MemoryJournal, lease: Lease, parkings: object) -> frozenset[str]:
        """Park none: that would acquit it too."""
        return frozenset()

    monkeypatch.setattr(MemoryJournal, "acquit", acquit)
    monkeypatch.setattr(MemoryJournal, "park", park)
    one = await waiting_saga(world)
    for _ in range(MANY_LIVES):
        await one.kill()
        one = await world.coordinator()
        await settle()
    assert (await world.saga()).state is SagaState.STUCK


async def test_a_call_that_stands_in_line_for_room_is_still_on_trial(world: World) -> None:
    """Acquitted while others have their turn, it would kill uncounted whenever it has its own."""
    one = await world.coordinator()
    for number in range(FIRST_WINDOW):
        await world.start(one, "a", saga_id=f"saga-0{number}")
    await world.start(one, "a")  # the last in line
    await one.kill()
    one = await world.coordinator()
    await settle()
    assert one.engine.circuit_of("test.v1.A").waiting
    await asyncio.sleep(1)
    assert await claims(world) == 1
    await asyncio.sleep(2)
    assert await claims(world) == 0


async def test_a_slow_participant_convicts_no_saga_whose_owners_live_for_a_while(
    world: World,
) -> None:
    one = await calling_saga(world)
    for _ in range(MANY_LIVES):
        await one.kill()
        one = await world.coordinator()
        await asyncio.sleep(3.1)
        assert await claims(world) == 0


async def test_a_saga_is_not_convicted_by_claims_whose_answers_are_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await calling_saga(world)
    await one.kill()
    lost = 0

    async def claim(
        self: MemoryJournal,
        lease: Lease,
        limit: int,
        *,
        passing_over: frozenset[str] = frozenset(),
    ) -> Claimed:
        nonlocal lost
        claimed = self._store.claim(lease, limit, passing_over)
        if claimed.sagas and lost < MANY_LIVES:
            lost += 1
            raise ClaimUnknown("no answer", [stored.saga_id for stored in claimed.sagas])
        return claimed

    monkeypatch.setattr(MemoryJournal, "claim", claim)
    one = await world.coordinator()
    await one.sent("DO a 1")
    assert lost == MANY_LIVES
    assert await claims(world) == 1


async def test_a_saga_is_not_convicted_by_leases_that_are_lost_while_its_owner_lives(
    world: World,
) -> None:
    one = await calling_saga(world)
    await one.kill()
    one = await world.coordinator()
    for _ in range(5):
        await settle()
        assert await claims(world) == 1
        one.journal.cut()
        await asyncio.sleep(4)
        one.journal.mend()
        await one.ready()
    assert await claims(world) == 1


async def test_a_saga_is_not_convicted_by_owners_that_stop_when_they_are_told_to(
    world: World,
) -> None:
    one = await calling_saga(world)
    for _ in range(MANY_LIVES):
        await one.kill()
        await one.engine.release()
        assert await claims(world) == 0
        one = await world.coordinator()
        await settle()


async def test_an_acquittal_that_the_journal_was_away_for_is_made_up_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(self: MemoryJournal, lease: Lease, saga_ids: Sequence[str]) -> None:
        raise JournalUnavailable("away for a moment")

    one = await waiting_saga(world)
    await one.kill()
    with monkeypatch.context() as patched:
        patched.setattr(MemoryJournal, "acquit", away)
        one = await world.coordinator()
        await settle()
        assert await claims(world) == 1
    await asyncio.sleep(1.1)
    assert await claims(world) == 0
