from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from typing_extensions import override

from coordinator.core.model import SagaState
from coordinator.journal.base import JournalUnavailable
from coordinator.journal.verbs import VerbKind
from coordinator.reconciliation.base import THERE, Orphan, Summary
from coordinator.reconciliation.reconciler import SAGAS
from mesh.effects import Effect, EffectKey, EffectState
from tests.unit.reconciliation.audit import PARTICIPANTS, STEPS, WINDOW_MS, Audit, Records

STOCK, MONEY = (EffectKey("saga-1", step) for step in STEPS)


async def test_honest_sagas_of_every_outcome_leave_no_orphan(audit: Audit) -> None:
    await audit.completed("completed")
    await audit.compensated("compensated")
    await audit.stuck("stuck")
    audit.slow = 3_600
    await audit.start("running")

    assert await audit.orphans() == []
    assert (await audit.summary()).effects == 3


@pytest.mark.parametrize("state", sorted(THERE))
async def test_an_effect_of_a_saga_that_nobody_knows_is_an_orphan(
    audit: Audit, state: EffectState
) -> None:
    audit.plant(STOCK, state)

    (orphan, summary) = await audit.findings()

    assert isinstance(orphan, Orphan)
    assert orphan.saga_state is None
    assert orphan.effect_ms == audit.records.stored["inventory"][STOCK].updated_ms
    assert orphan.explanation.startswith(f"inventory records step stock as {state}, and ")
    assert await audit.orphans() == ["inventory saga-1 stock UNKNOWN_SAGA"]
    assert await audit.summary() == summary


@pytest.mark.parametrize("state", sorted(set(EffectState) - THERE))
async def test_an_effect_that_is_not_there_is_nobodys_orphan(
    audit: Audit, state: EffectState
) -> None:
    audit.plant(STOCK, state)

    assert await audit.orphans() == []


@pytest.mark.parametrize("state", sorted(THERE))
async def test_what_a_compensated_saga_still_holds_is_an_orphan(
    audit: Audit, state: EffectState
) -> None:
    await audit.compensated()
    audit.plant(STOCK, state)

    assert await audit.orphans() == ["inventory saga-1 stock STILL_HELD"]


async def test_what_was_proved_never_done_and_is_held_is_an_orphan(audit: Audit) -> None:
    await audit.compensated()
    audit.plant(MONEY, EffectState.HELD)

    assert await audit.orphans() == ["payment saga-1 money STILL_HELD"]


async def test_what_an_operator_undid_by_hand_may_still_be_on_record(audit: Audit) -> None:
    await audit.stuck()
    await audit.world.verb(audit.coordinator, VerbKind.SKIP, step="stock")
    await audit.world.until(SagaState.COMPENSATED)

    assert audit.records.stored["inventory"][STOCK].state is EffectState.HELD
    assert await audit.orphans() == []


async def test_an_abandoned_saga_is_not_judged(audit: Audit) -> None:
    await audit.stuck()
    await audit.world.verb(audit.coordinator, VerbKind.ABANDON)
    await audit.world.until(SagaState.ABANDONED)

    assert await audit.orphans() == []


@pytest.mark.parametrize("ended", [Audit.completed, Audit.compensated])
async def test_an_effect_of_a_step_that_was_never_called_is_an_orphan(
    audit: Audit, ended: Callable[[Audit], Awaitable[None]]
) -> None:
    await ended(audit)
    audit.plant(EffectKey("saga-1", "gift"), EffectState.HELD)

    assert await audit.orphans() == ["payment saga-1 gift UNKNOWN_SAGA"]


async def test_a_record_that_a_completed_saga_must_have_is_missed(audit: Audit) -> None:
    await audit.completed()
    audit.lose("payment", MONEY)
    audit.plant(STOCK, EffectState.COMPENSATED)

    assert sorted(await audit.orphans()) == [
        "inventory saga-1 stock MISSING",
        "payment saga-1 money MISSING",
    ]


async def test_what_is_older_than_what_both_sides_keep_is_not_compared(audit: Audit) -> None:
    audit.plant(STOCK, EffectState.HELD, age_ms=WINDOW_MS + 10)
    await audit.completed("old")
    audit.lose("payment", EffectKey("old", "money"))
    await asyncio.sleep(WINDOW_MS / 1_000 + 1)

    assert await audit.orphans() == []
    assert (await audit.summary()).effects == 0


async def test_a_participant_that_is_away_is_named_and_the_others_are_compared(
    audit: Audit,
) -> None:
    await audit.completed()
    audit.lose("payment", MONEY)
    audit.lose("inventory", STOCK)
    audit.records.away.add("inventory")

    assert await audit.orphans() == ["payment saga-1 money MISSING"]
    summary = await audit.summary()
    assert summary.participants == PARTICIPANTS
    assert summary.unreachable == {"inventory": "inventory: UNAVAILABLE, gone fishing"}


class LeavesEarly(Records):
    @override
    async def find(self, participant: str, keys: Sequence[EffectKey]) -> Sequence[Effect]:
        self.away.add(participant)
        return await super().find(participant, keys)


async def test_a_participant_that_leaves_on_the_way_is_named(audit: Audit) -> None:
    audit.records = LeavesEarly()
    await audit.completed()

    summary = await audit.summary("payment")

    assert summary.participants == ("payment",)
    assert summary.unreachable == {"payment": "payment: UNAVAILABLE, gone fishing"}


async def test_only_those_who_are_asked_are_compared(audit: Audit) -> None:
    await audit.completed()
    audit.lose("payment", MONEY)
    audit.records.away.add("payment")

    summary = await audit.summary("inventory")

    assert (summary.orphans, summary.participants, summary.unreachable) == (0, ("inventory",), {})


async def test_a_step_that_nobody_serves_any_more_is_named(audit: Audit) -> None:
    await audit.completed()
    del audit.whose["test.v1.Money"]

    summary = await audit.summary()

    assert list(summary.unreachable.values()) == [
        "test.v1.Money: no participant that answers serves it"
    ]


async def test_a_definition_that_is_not_to_be_had_is_named(audit: Audit) -> None:
    await audit.completed()
    audit.world.definitions.by_hash.clear()

    summary = await audit.summary()

    assert (summary.effects, summary.orphans) == (2, 0)
    assert list(summary.unreachable.values()) == ["definition: stock-money is not stored"]


async def test_a_history_that_cannot_be_read_is_named(audit: Audit) -> None:
    await audit.compensated()
    audit.plant(STOCK, EffectState.HELD)
    audit.world.store.damage("saga-1")

    (told,) = (await audit.summary()).unreachable.values()

    assert told.startswith("journal: a history cannot be read")


async def test_without_the_journal_nothing_is_said(audit: Audit) -> None:
    audit.plant(STOCK, EffectState.HELD)
    audit.world.reader.cut()

    with pytest.raises(JournalUnavailable):
        await audit.findings()


async def test_many_pages_are_compared_as_one(audit: Audit) -> None:
    names = [f"saga-{number}" for number in range(SAGAS + 1)]
    await asyncio.gather(*(audit.completed(name) for name in names))
    audit.records.page = 7
    audit.lose("payment", EffectKey(names[0], "money"))
    audit.lose("payment", EffectKey(names[-1], "money"))
    audit.plant(EffectKey("stray", "stock"), EffectState.DOING)

    summary = await audit.summary()

    assert (summary.effects, summary.orphans) == (2 * SAGAS + 1, 3)


class OldPage(Records):
    """Tells of the inventory what it read a while ago; what is asked for by key is as it is now."""

    def __init__(self, now: Records, told: Sequence[Effect]) -> None:
        super().__init__()
        self.stored = now.stored
        self._told = told

    @override
    async def held(self, participant: str, since_ms: int) -> AsyncIterator[Sequence[Effect]]:
        yield self._told if participant == "inventory" else ()


async def test_a_compensation_after_its_page_was_read_is_no_false_alarm(audit: Audit) -> None:
    await audit.stuck()
    page = [audit.records.stored["inventory"][STOCK]]
    audit.stubborn.clear()
    await audit.world.verb(audit.coordinator, VerbKind.RETRY)
    await audit.world.until(SagaState.COMPENSATED)
    audit.records = OldPage(audit.records, page)

    assert await audit.orphans() == []


async def test_no_false_alarm_while_sagas_run_and_compensate(audit: Audit) -> None:
    audit.slow, audit.records.page, audit.records.slow = 0.05, 20, 0.1
    names = [f"saga-{number}" for number in range(200)]
    audit.refusing.update(names[::2])

    async def place(name: str) -> None:
        await asyncio.sleep(audit.chance.random())
        await audit.start(name)

    placing = [asyncio.create_task(place(name)) for name in names]
    compared = 0
    while not all(placed.done() for placed in placing):
        findings = await audit.findings()
        assert [it for it in findings if isinstance(it, Orphan)] == []
        compared += sum(it.effects for it in findings if isinstance(it, Summary))

    assert compared > 0
