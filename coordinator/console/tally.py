"""Counters of what happens thousands of times a second: adding one costs no lock and no look-up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry
from typing_extensions import override

KeyT = TypeVar("KeyT")


class Tally(Collector, Generic[KeyT]):
    """A counter with one series for each key. `counts` belongs to the event loop's thread."""

    def __init__(
        self,
        name: str,
        words: str,
        labels: Sequence[str],
        *,
        series: dict[KeyT, Sequence[str]],
        registry: CollectorRegistry,
    ) -> None:
        """`series` are the values of the labels of each key; all are shown from the beginning."""
        self._name, self._words, self._labels = name, words, labels
        self._series = series
        self.counts = dict.fromkeys(series, 0)
        registry.register(self)

    @override
    def collect(self) -> Iterable[Metric]:
        """What is counted by now; called from the thread that serves the metrics."""
        family = CounterMetricFamily(self._name, self._words, labels=self._labels)
        for key, values in self._series.items():
            family.add_metric(values, self.counts[key])
        yield family
