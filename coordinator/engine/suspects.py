"""Sagas that may kill whoever runs them: how the guilty one is found, and nobody else suffers.

Theory of operation
-------------------
A process that dies says nothing of why. All that is known is whose sagas it ran. So every claim
counts against a saga, on its row in the journal (`StoredSaga.claims`), until it is known that
nobody died of it: because it made progress, which the journal notes by itself, or because its owner
acquits it. A claim that still counts when the next one is made is a death of its owner.

Sagas against which no claim counts are claimed in bulk, and run at once. Those that one death
counts against come in companies of ten, and those with more come alone (`journal.base.company`).
A company is on trial: it is claimed only when the trial of everybody before is over, and nobody
else is claimed until its own is. So a death in the trial counts against the company and nobody
else, and the third death that counts against a saga is one that it died alone with its owner. It
is POISONOUS then: the fourth who claims it makes it STUCK without running it.

A trial is over as soon as its saga has written an event, has nothing in hand (it waits for a timer
or for a participant that is away), has left memory, or has run for two seconds. A call that stands
in line for room is in hand: once it has its turn it may kill again. This is what keeps the innocent
from being convicted by deaths of other causes: a saga that merely waits is on trial for a moment
only, and whoever gives up its lease, or stops when it is told to, acquits before anything else,
under the old lease. To be convicted without guilt a saga must be in hand at three deaths in a row,
each within two seconds of its claim, in the last two of which all but nine others, and then all
others, were spared.

What it costs: a saga that kills later than two seconds after it was claimed, without an event
before, is acquitted each time. And suspects are tried one company after the other.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.core.model import Failure, FailureKind
from coordinator.engine.ports import Ports
from coordinator.engine.runner import Runner
from coordinator.journal.base import Lease, StoredSaga

POISON = Failure(
    kind=FailureKind.MISCONFIGURED,
    code="INTERNAL",
    reason="SAGA_POISONOUS",
    message="three coordinators in a row stopped while they ran it, the last one alone with it",
)

_DEATHS = 3
_TRIAL_MS = 2_000
_LOOK_SECONDS = 0.02


def suspected(stored: StoredSaga) -> bool:
    """Whether an owner has died that ran this saga, as it was claimed."""
    return stored.claims > 1


def poisonous(stored: StoredSaga) -> bool:
    """Whether so many have died, besides the present claim, that it is run no more."""
    return stored.claims > _DEATHS


class AwaitsTrial(Exception):
    """The saga is suspected and its company has not had its turn: nobody may run it before."""


@dataclass(frozen=True, slots=True)
class _Trial:
    lease: Lease
    """Under which the saga was claimed."""
    revision: int
    until_ms: int
    """Monotonic."""


class Suspects:
    """The claimed sagas of which it is not known yet whether one dies of them."""

    def __init__(self, ports: Ports, runner: Runner) -> None:
        self._journal = ports.journal
        self._clock = ports.clock
        self._runner = runner
        self._trials: dict[str, _Trial] = {}

    def watch(self, lease: Lease, stored: StoredSaga) -> None:
        """A claimed saga is about to be run."""
        if stored.claims:
            until_ms = self._clock.monotonic_ms() + _TRIAL_MS
            self._trials[stored.saga_id] = _Trial(lease, stored.revision, until_ms)

    def spare(self, lease: Lease, saga_ids: Sequence[str]) -> None:
        """Sagas were claimed, perhaps, and will not be run under this lease."""
        for saga_id in saga_ids:
            self._trials[saga_id] = _Trial(lease, revision=0, until_ms=0)

    async def settle(self) -> None:
        """Return when every trial is over.

        Raises:
            JournalUnavailable: it cannot be written down.
        """
        while self._trials:
            await self.acquit()
            if self._trials:
                await asyncio.sleep(_LOOK_SECONDS)

    async def acquit(self) -> None:
        """Acquit those whose trial is over.

        Raises:
            JournalUnavailable: it cannot be written down; they are still watched.
        """
        over = {i: trial for i, trial in self._trials.items() if self._is_over(i, trial)}
        acquitted = defaultdict(list)
        for saga_id, trial in over.items():
            if not self._has_moved(saga_id, trial):  # else the journal has acquitted it by itself
                acquitted[trial.lease].append(saga_id)
        for lease, saga_ids in acquitted.items():
            await self._journal.acquit(lease, saga_ids)
        for saga_id, trial in over.items():
            if self._trials.get(saga_id) is trial:
                del self._trials[saga_id]

    def _is_over(self, saga_id: str, trial: _Trial) -> bool:
        live = self._runner.get(saga_id)
        if live is None or self._clock.monotonic_ms() >= trial.until_ms:
            return True
        return (live.idle and not live.in_line) or self._has_moved(saga_id, trial)

    def _has_moved(self, saga_id: str, trial: _Trial) -> bool:
        live = self._runner.get(saga_id)
        return live is not None and live.saga.revision > trial.revision
