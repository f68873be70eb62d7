"""Prometheus gauges of what the last reconciliation found."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Gauge

from coordinator.reconciliation.base import OrphanKind


class OrphanGauges:
    """What is shown of reconciliations. `now_ms` is the journal's clock."""

    def __init__(self, registry: CollectorRegistry, *, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._orphans = Gauge(
            "saga_orphans",
            "Effects that a participant holds and should not, or should hold and does not.",
            ("participant", "kind"),
            registry=registry,
        )
        self._reconciled = Gauge(
            "saga_reconciled_timestamp_seconds",
            "When this instance has compared a participant's effects with the journal last.",
            ("participant",),
            registry=registry,
        )

    def reconciled(self, participant: str, orphans: Mapping[OrphanKind, int]) -> None:
        """See `Counts.reconciled`."""
        for kind, count in orphans.items():
            self._orphans.labels(participant, kind.value).set(count)
        self._reconciled.labels(participant).set(self._now_ms() / 1_000)
