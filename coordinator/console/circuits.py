"""How participants do, as gauges: read from the engine whenever somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry
from typing_extensions import override

from coordinator.engine.gate import Condition


class CircuitGauges(Collector):
    """One series of each gauge for every participant that was called."""

    def __init__(
        self, registry: CollectorRegistry, conditions: Callable[[], Sequence[Condition]]
    ) -> None:
        """`conditions` is called from the thread that serves the metrics."""
        self._conditions = conditions
        registry.register(self)

    @override
    def collect(self) -> Iterable[GaugeMetricFamily]:
        conditions = self._conditions()
        yield _gauge(
            "saga_circuit_open",
            "1 while a participant is away and calls to it wait.",
            {condition.participant: condition.open for condition in conditions},
        )
        yield _gauge(
            "saga_calls_in_flight",
            "Calls to a participant that were sent and have no answer yet.",
            {condition.participant: condition.in_flight for condition in conditions},
        )
        yield _gauge(
            "saga_calls_waiting",
            "Calls to a participant that wait until they may be sent.",
            {condition.participant: condition.waiting for condition in conditions},
        )


def _gauge(name: str, words: str, values: dict[str, int]) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, words, labels=["participant"])
    for participant, value in values.items():
        gauge.add_metric([participant], value)
    return gauge
