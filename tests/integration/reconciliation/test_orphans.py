"""Orphans planted behind every barrier are found, and nothing else is."""

from __future__ import annotations

import asyncio

from coordinator.reconciliation.base import Summary
from tests.integration.reconciliation.shop import Shop


async def test_honest_sagas_of_every_outcome_leave_no_orphan(shop: Shop) -> None:
    await shop.completed("completed")
    await shop.compensated("compensated")
    await shop.rejected("rejected")

    assert await shop.orphans() == []


async def test_a_do_by_hand_is_found(shop: Shop) -> None:
    await shop.completed("known")
    await shop.do_by_hand("nobodys")
    await shop.do_by_hand("known", "another_step")

    assert await shop.orphans() == [
        "known another_step UNKNOWN_SAGA",
        "nobodys the_step UNKNOWN_SAGA",
    ]


async def test_a_compensation_that_a_participant_forgot_is_found(shop: Shop) -> None:
    await shop.compensated("saga-1")
    await shop.rewind("saga-1")

    assert await shop.orphans() == ["saga-1 the_step STILL_HELD"]


async def test_an_effect_that_a_participant_forgot_is_found(shop: Shop) -> None:
    await shop.completed("saga-1")
    await shop.completed("saga-2")
    await shop.harness.forget("saga-1")

    assert await shop.orphans() == ["saga-1 the_step MISSING"]


async def test_no_false_alarm_while_sagas_run_and_compensate(shop: Shop) -> None:
    runs = [shop.completed(f"done-{n}") for n in range(15)]
    runs += [shop.compensated(f"undone-{n}") for n in range(15)]
    running = asyncio.gather(*runs)
    rounds = 0
    while not running.done() or rounds == 0:
        assert await shop.orphans() == []
        rounds += 1
    await running

    assert await shop.orphans() == []


async def test_a_participant_that_is_away_is_named(shop: Shop) -> None:
    await shop.completed("saga-1")
    await shop.server.stop()

    (summary,) = await shop.findings()

    assert isinstance(summary, Summary)
    (why,) = summary.unreachable.values()
    assert why.startswith("shop: UNAVAILABLE, ")
