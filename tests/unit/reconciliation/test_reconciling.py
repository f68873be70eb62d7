from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from prometheus_client import CollectorRegistry

from coordinator.console.orphans import OrphanGauges
from coordinator.reconciliation.base import OrphanKind
from coordinator.reconciliation.reconciler import window_ms
from coordinator.reconciliation.reconciling import Reconciling
from mesh.effects import EffectKey, EffectState
from tests.unit.reconciliation.audit import Audit

STRAY = EffectKey("stray", "stock")
NONE = dict.fromkeys(OrphanKind, 0)
HOUR = 3_600


class Told:
    """Hears of every participant that was compared."""

    def __init__(self) -> None:
        self.by_participant: dict[str, Mapping[OrphanKind, int]] = {}
        self.times: list[float] = []

    def reconciled(self, participant: str, orphans: Mapping[OrphanKind, int]) -> None:
        self.by_participant[participant] = orphans
        self.times.append(asyncio.get_running_loop().time())


async def turns(audit: Audit, seconds: float, *, every: float = HOUR) -> Told:
    """What was told in so much time, with chances of one half."""
    told = Told()
    reconciler = audit.reconciler()
    duty = Reconciling(reconciler, told, every_seconds=every, chance=lambda: 0.5)
    task = asyncio.create_task(duty.run())
    await asyncio.sleep(seconds)
    task.cancel()
    return told


async def test_books_are_compared_every_so_often(audit: Audit) -> None:
    told = await turns(audit, 2.6 * HOUR)

    assert told.by_participant == {"inventory": NONE, "payment": NONE}
    assert [round(time / HOUR, 1) for time in told.times[::2]] == [0.5, 1.5, 2.5]


async def test_orphans_are_counted_by_participant_and_kind(audit: Audit) -> None:
    audit.plant(STRAY, EffectState.HELD)

    told = await turns(audit, 1, every=1)

    assert told.by_participant["inventory"] == NONE | {OrphanKind.UNKNOWN_SAGA: 1}
    assert told.by_participant["payment"] == NONE


async def test_a_participant_that_is_away_is_not_counted_as_compared(audit: Audit) -> None:
    audit.records.away.add("payment")

    assert (await turns(audit, 1, every=1)).by_participant.keys() == {"inventory"}


async def test_a_journal_that_is_away_is_tried_again(audit: Audit) -> None:
    audit.plant(STRAY, EffectState.HELD)
    audit.world.reader.cut()
    mending = asyncio.get_running_loop().call_later(5, audit.world.reader.mend)

    told = await turns(audit, 10, every=1)

    assert mending.when() < told.times[0]


async def test_books_are_never_compared_when_nobody_wants_it(audit: Audit) -> None:
    assert (await turns(audit, HOUR, every=0)).times == []


async def test_what_was_found_is_shown_as_gauges(audit: Audit) -> None:
    registry = CollectorRegistry()
    gauges = OrphanGauges(registry, now_ms=lambda: 1_500)
    gauges.reconciled("payment", NONE | {OrphanKind.MISSING: 2})

    labels = {"participant": "payment", "kind": "MISSING"}
    assert registry.get_sample_value("saga_orphans", labels) == 2
    labels = {"participant": "payment", "kind": "STILL_HELD"}
    assert registry.get_sample_value("saga_orphans", labels) == 0
    labels = {"participant": "payment"}
    assert registry.get_sample_value("saga_reconciled_timestamp_seconds", labels) == 1.5


@pytest.mark.parametrize(("kept", "compared"), [(30, 29), (365, 30), (1, 0.5), (31, 30)])
def test_only_what_both_sides_keep_is_compared(kept: float, compared: float) -> None:
    assert window_ms(kept) == compared * 86_400_000
