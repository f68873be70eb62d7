"""What goes wrong and when: a pure function of the seed.

Faults come at random moments and overlap, but one target suffers one fault at a time. A process is
killed and comes back after a while, or is paused and goes on; a link does what `link.Mode` says;
the payment provider turns difficult in the ways of its switches.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class FaultKind(StrEnum):
    """How something goes wrong."""

    KILL = "KILL"
    PAUSE = "PAUSE"
    CUT = "CUT"
    RESET = "RESET"
    SILENT = "SILENT"
    SLOW = "SLOW"
    LOSSY = "LOSSY"
    RATE_LIMIT = "RATE_LIMIT"
    ERROR_BEFORE = "ERROR_BEFORE"
    ERROR_AFTER = "ERROR_AFTER"
    DROP_BEFORE = "DROP_BEFORE"
    DROP_AFTER = "DROP_AFTER"
    LOSE_TO_CONFIRM = "LOSE_TO_CONFIRM"
    REFUND_PENDING = "REFUND_PENDING"


PROVIDER = "provider"
OF_PROCESS = (FaultKind.KILL, FaultKind.KILL, FaultKind.PAUSE)
OF_LINK = (
    FaultKind.CUT,
    FaultKind.RESET,
    FaultKind.SILENT,
    FaultKind.SLOW,
    FaultKind.LOSSY,
)
OF_PROVIDER = (
    FaultKind.RATE_LIMIT,
    FaultKind.ERROR_BEFORE,
    FaultKind.ERROR_AFTER,
    FaultKind.DROP_BEFORE,
    FaultKind.DROP_AFTER,
    FaultKind.LOSE_TO_CONFIRM,
    FaultKind.REFUND_PENDING,
)

_EVERY_SECONDS = 1.2
"""Mean time between two faults."""
_LASTS_SECONDS = ((0.2, 2.0), (2.0, 5.0), (5.0, 9.0))
_LASTS_WEIGHTS = (5, 4, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong, in seconds from the first order on."""

    kind: FaultKind
    target: str
    at: float
    until: float


def schedule(
    seed: int, seconds: float, *, processes: Sequence[str], links: Sequence[str]
) -> tuple[Fault, ...]:
    """All faults of a run by the time they begin; the last is over after `seconds`."""
    chance = random.Random(f"faults {seed}")
    groups: Mapping[tuple[FaultKind, ...], Sequence[str]] = {
        OF_PROCESS: processes,
        OF_LINK: links,
        OF_PROVIDER: [PROVIDER],
    }
    faults: list[Fault] = []
    free_at: dict[str, float] = {}
    at = chance.expovariate(1 / _EVERY_SECONDS)
    while at < seconds:
        (kinds,) = chance.choices(list(groups), weights=(4, 5, 1))
        target, kind = chance.choice(groups[kinds]), chance.choice(kinds)
        (lasts,) = chance.choices(_LASTS_SECONDS, weights=_LASTS_WEIGHTS)
        until = at + chance.uniform(*lasts)
        if until < seconds and free_at.get(target, 0.0) < at:
            faults.append(Fault(kind=kind, target=target, at=round(at, 2), until=round(until, 2)))
            free_at[target] = until + 0.5
        at += chance.expovariate(1 / _EVERY_SECONDS)
    return tuple(faults)
