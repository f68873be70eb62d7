"""What a run comes to, in figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tests.chaos.invariants import violations
from tests.chaos.records import Call, Exit, History, Recovery, StoredSaga
from tests.chaos.schedule import Fault


def report(history: History) -> Iterator[str]:
    """The figures as lines."""
    run, faults = history.run, history.all(Fault)
    yield f"seed {run.seed}, {run.seconds:g} s of faults, {run.rate:g} orders a second"
    yield f"faults    {len(faults)}: {_counts(fault.kind for fault in faults)}"
    sagas = history.all(StoredSaga)
    yield f"sagas     {len(sagas)}: {_counts(saga.state for saga in sagas)}"
    yield f"recovery  {_recovery(history.all(Recovery))}"
    calls = history.all(Call)
    yield f"calls     {len(calls)}: {_counts(f'{call.method} {call.code}' for call in calls)}"
    if exits := history.all(Exit):
        yield f"exits     {len(exits)}: {_counts(ended.name for ended in exits)}"
    broken = violations(history)
    yield f"promises  {f'{len(broken)} violations' if broken else 'all held'}"
    yield from (f"  {line}" for line in broken)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all are not above; 0 when there are none."""
    ranked = sorted(values)
    return ranked[min(int(share * len(ranked)), len(ranked) - 1)] if ranked else 0.0


def _recovery(recoveries: Sequence[Recovery]) -> str:
    falls = Counter(recovery.kind for recovery in recoveries)
    if not falls:
        return "no coordinator had a running saga when it fell"
    return "; ".join(
        f"{count} sagas of a coordinator after {kind}: "
        + ", ".join(
            f"{name} {percentile([r.seconds for r in recoveries if r.kind == kind], share):.2f} s"
            for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
        )
        for kind, count in sorted(falls.items())
    )


def _counts(names: Iterable[str]) -> str:
    counted = Counter(names)
    return ", ".join(f"{name} {count}" for name, count in sorted(counted.items()))
