"""Finished sagas are purged in batches until none is left, again and again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from pydantic import ValidationError

from coordinator.journal.base import JournalUnavailable
from coordinator.retention import Purging
from coordinator.settings import Settings
from tests.virtual_time import VirtualLoop


@dataclass
class Store:
    """Sagas to purge; its clock is the loop's."""

    sagas: int
    away: int = 0
    """How many times it does not answer."""
    asked: list[tuple[float, int]] = field(default_factory=list)
    """When, and for how many at most."""

    async def purge(self, *, finished_for_ms: int, limit: int) -> int:
        assert finished_for_ms == 30 * 86_400_000
        self.asked.append((asyncio.get_running_loop().time(), limit))
        if self.away:
            self.away -= 1
            raise JournalUnavailable("too slow")
        count = min(limit, self.sagas)
        self.sagas -= count
        return count


def told_after(store: Store, seconds: float) -> list[int]:
    """What a duty on this store tells of its batches within so many seconds."""
    counts: list[int] = []

    async def run() -> None:
        purging = Purging(store, days=30, purged=counts.append, every_seconds=300, pause_seconds=1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await purging.run()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())
    return counts


def test_batches_follow_each_other_after_a_pause_until_nothing_is_left() -> None:
    store = Store(sagas=1_200)
    assert told_after(store, 299) == [500, 500, 200, 0]
    assert [when for when, _ in store.asked] == [0, 1, 2, 3]


def test_what_ended_since_is_purged_some_minutes_later() -> None:
    store = Store(sagas=0)
    told_after(store, 650)
    assert [when for when, _ in store.asked] == [0, 300, 600]


def test_a_batch_that_took_too_long_is_followed_by_smaller_ones_and_these_by_larger() -> None:
    store = Store(sagas=1_000, away=2)
    assert told_after(store, 899)[:3] == [125, 250, 500]
    assert [limit for _, limit in store.asked[:5]] == [500, 250, 125, 250, 500]


def test_a_saga_is_never_kept_for_less_than_a_day() -> None:
    given = {"postgres_dsn": "postgresql://x", "participants": "order:50052"}
    assert Settings.model_validate(given).retention_days == 30
    with pytest.raises(ValidationError, match="retention_days"):
        Settings.model_validate({**given, "retention_days": 0.9})
