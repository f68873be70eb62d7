"""Sagas that are STUCK, as gauges: how many of each definition, and since when the oldest.

They are counted in the journal, so every instance shows the same, and a restart hides none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry
from typing_extensions import override

from coordinator.core.model import SagaState
from coordinator.journal.base import JournalUnavailable, Reader

log = structlog.get_logger(__name__)

_STUCK = frozenset({SagaState.STUCK})
_MOST = 10_000
"""More than this need no exact count to be an alarm."""


@dataclass(slots=True)
class _Stuck:
    count: int
    since_ms: int


class StuckGauges(Collector):
    """Counts every so often; in between, and while the journal is away, shows the last count."""

    def __init__(
        self, registry: CollectorRegistry, reader: Reader, *, every_seconds: float = 15
    ) -> None:
        self._reader = reader
        self._every_seconds = every_seconds
        self._stuck: Mapping[str, _Stuck] = {}
        registry.register(self)

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            try:
                self._stuck = await self._count()
            except JournalUnavailable as error:
                log.debug("stuck.journal_away", why=str(error))
            await asyncio.sleep(self._every_seconds)

    @override
    def collect(self) -> Iterable[GaugeMetricFamily]:
        counts = GaugeMetricFamily(
            "saga_stuck", "Sagas that are STUCK now, of all instances.", labels=["definition"]
        )
        oldest = GaugeMetricFamily(
            "saga_stuck_since_timestamp_seconds",
            "Since when the oldest of them is STUCK.",
            labels=["definition"],
        )
        for definition, stuck in self._stuck.items():
            counts.add_metric([definition], stuck.count)
            oldest.add_metric([definition], stuck.since_ms / 1_000)
        return counts, oldest

    async def _count(self) -> Mapping[str, _Stuck]:
        found: dict[str, _Stuck] = {}
        for saga in await self._reader.list_sagas(
            definition="", states=_STUCK, keys={}, before=None, limit=_MOST
        ):
            stuck = found.setdefault(saga.definition, _Stuck(0, saga.updated_ms))
            stuck.count += 1
            stuck.since_ms = min(stuck.since_ms, saga.updated_ms)
        return found
