"""How calls to participants travel: read from the participants whenever somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry
from typing_extensions import override

from coordinator.participants.base import Ways


class WayMetrics(Collector):
    """A gauge of open streams and a counter of calls by each way, for every participant."""

    def __init__(self, registry: CollectorRegistry, ways: Callable[[], Sequence[Ways]]) -> None:
        """`ways` is called from the thread that serves the metrics."""
        self._ways = ways
        registry.register(self)

    @override
    def collect(self) -> Iterable[Metric]:
        streams = GaugeMetricFamily(
            "saga_streams",
            "Step streams to a participant that are open.",
            labels=["participant"],
        )
        calls = CounterMetricFamily(
            "saga_calls",
            "Calls to a participant, by the way they went: on a stream, or by themselves.",
            labels=["participant", "way"],
        )
        for ways in self._ways():
            streams.add_metric([ways.participant], ways.streams)
            calls.add_metric([ways.participant, "stream"], ways.streamed)
            calls.add_metric([ways.participant, "alone"], ways.alone)
        return streams, calls
