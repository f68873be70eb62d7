"""What a run comes to, in figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tests.chaos.invariants import violations
from tests.chaos.records import Call, Exit, History, Recovery, StoredSaga
from tests.chaos.schedule import Fault

_RESTART_SECONDS = 5.0
"""How long after its fault a killed process may still be starting."""


def report(history: History) -> Iterator[str]:
    """The figures as lines."""
    run, faults = history.run, history.all(Fault)
    yield f"seed {run.seed}, {run.seconds:g} s of faults, {run.rate:g} orders a second"
    yield f"faults    {len(faults)}: {_counts(fault.kind for fault in faults)}"
    sagas = history.all(StoredSaga)
    yield f"sagas     {len(sagas)}: {_counts(saga.state for saga in sagas)}"
    yield f"recovery  {_recovery(history.all(Recovery), faults)}"
    calls = history.all(Call)
    yield f"calls     {len(calls)}: {_counts(f'{call.method} {call.code}' for call in calls)}"
    if exits := history.all(Exit):
        yield f"exits     {len(exits)}: {_counts(ended.name for ended in exits)}"
    broken = violations(history)
    yield f"promises  {f'{len(broken)} violations' if broken else 'all held'}"
    yield from (f"  {line}" for line in broken)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all are not above; there is at least one."""
    ranked = sorted(values)
    return ranked[min(int(share * len(ranked)), len(ranked) - 1)]


def _recovery(recoveries: Sequence[Recovery], faults: Sequence[Fault]) -> str:
    alone = [recovery.seconds for recovery in recoveries if not _was_hindered(recovery, faults)]
    return (
        f"{_percentiles([recovery.seconds for recovery in recoveries])};"
        f" with PostgreSQL and the other coordinator well: {_percentiles(alone)}"
    )


def _percentiles(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none"
    p50, p99, longest = (percentile(seconds, share) for share in (0.5, 0.99, 1.0))
    return f"{len(seconds)} sagas, p50 {p50:.2f} s, p99 {p99:.2f} s, max {longest:.2f} s"


def _was_hindered(recovery: Recovery, faults: Sequence[Fault]) -> bool:
    """Whether the journal, or a coordinator that could take over, suffered at the same time."""
    return any(
        fault.at < recovery.at + recovery.seconds
        and fault.until + _RESTART_SECONDS > recovery.at
        and fault.target != recovery.coordinator
        and _is_needed(fault.target)
        for fault in faults
    )


def _is_needed(target: str) -> bool:
    """Whether a takeover needs it: PostgreSQL, a coordinator, or the link between them."""
    client, _, server = target.partition(">")
    return client == "postgres" or (client.startswith("coordinator") and server in ("", "postgres"))


def _counts(names: Iterable[str]) -> str:
    counted = Counter(names)
    return ", ".join(f"{name} {count}" for name, count in sorted(counted.items()))
