"""Prometheus metrics of one coordinator, served as text at `/metrics` of the console port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from coordinator.console.tally import Tally
from coordinator.core.model import Direction, FailureKind, SagaState
from coordinator.engine.errors import Excess


class Metrics:
    """What the engine counts (`engine.ports.Stats`)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._attempts = Tally(
            "saga_attempts",
            "Answers of participants, by direction and outcome.",
            ("direction", "outcome"),
            series={
                (direction, outcome): (direction.value, outcome)
                for direction in Direction
                for outcome in ("DONE", *(kind.value for kind in FailureKind))
            },
            registry=self.registry,
        )
        self._ended = Tally(
            "saga_ended",
            "Sagas that reached a final state or STUCK, by state.",
            ("state",),
            series={state: (state.value,) for state in SagaState if state.ended},
            registry=self.registry,
        )
        self._shed = Counter(
            "saga_shed",
            "Starts that were refused because there was too much to do, and too much of what.",
            ("reason",),
            registry=self.registry,
        )
        self._purged = Counter(
            "saga_purged",
            "Finished sagas that this instance has deleted after their retention.",
            registry=self.registry,
        )
        self._claimed = Counter(
            "saga_claimed",
            "Sagas that were taken over because nobody ran them.",
            registry=self.registry,
        )
        self._unrunnable = Gauge(
            "saga_unrunnable",
            "Unfinished sagas that this release cannot run: definition gone, history not readable.",
            registry=self.registry,
        )
        self._clock_jumps = Counter(
            "saga_clock_jumps",
            "Jumps of the database's clock by more than 5 s.",
            registry=self.registry,
        )

        # All begin at zero: an alert on an increase would miss the first of its kind otherwise.
        for excess in Excess:
            self._shed.labels(excess.value)

    def attempt(self, direction: Direction, outcome: str) -> None:
        """One answer: DONE, or the kind of failure."""
        self._attempts.counts[direction, outcome] += 1

    def ended(self, state: SagaState) -> None:
        """One saga reached a final state, or STUCK."""
        self._ended.counts[state] += 1

    def shed(self, excess: Excess) -> None:
        """One saga was refused at the door."""
        self._shed.labels(excess.value).inc()

    def claimed(self, count: int) -> None:
        """So many sagas were claimed that nobody ran."""
        self._claimed.inc(count)

    def unrunnable(self, count: int) -> None:
        """So many sagas cannot be run by this release now."""
        self._unrunnable.set(count)

    def clock_jumped(self) -> None:
        """The database's clock has jumped."""
        self._clock_jumps.inc()

    def purged(self, count: int) -> None:
        """So many finished sagas were deleted."""
        self._purged.inc(count)

    def gauge(self, name: str, words: str, read: Callable[[], float]) -> None:
        """Show a number that is read when somebody asks."""
        Gauge(name, words, registry=self.registry).set_function(read)


@contextmanager
def serving(metrics: Metrics, *, host: str, port: int) -> Iterator[None]:
    """Serve the metrics while inside, from a thread of its own."""
    server, thread = start_http_server(port, host, metrics.registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
