"""The store of a simulation: a database's accidents, and an eye of its own on every write."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from coordinator.core.events import AttemptFailed, Stuck
from coordinator.core.model import Direction, SagaState
from coordinator.journal.base import Append, AppendError, Claimed, Lease, Unwritable
from coordinator.journal.codec import Row
from coordinator.journal.memory import MemoryStore
from coordinator.journal.verbs import VerbState
from coordinator.participants.base import Attempt

EPOCH_MS = 1_700_000_000_000
TRIES = 3
"""So many Compensates must fail before a saga may be STUCK."""
DEATHS = 3
"""So many owners must stop while they try a saga before it is held guilty."""
TRIAL_SECONDS = 5.0
"""How long after its claim a saga may still be on trial, those before it included."""


class Broken(AssertionError):
    """A promise that did not hold, with how it came to that."""


@dataclass(slots=True)
class Suspicion:
    """What this world has done to those who ran a saga, since its last progress or acquittal."""

    claimed: float = -TRIAL_SECONDS
    """When it was claimed last."""
    strikes: int = 0
    """How many owners were struck by the world during its trial."""
    poisonings: int = 0
    """How many died, of whatever saga."""


class WatchedStore(MemoryStore):
    """Its clock can be set, its data refused, and leases be ended, as by somebody else."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(self.now_ms)
        self._tell = tell
        self._set_ahead_ms = 0
        self._refusing = False
        self._refused: set[str] = set()
        self._suspicions: dict[str, Suspicion] = {}
        self._poison_moved = False
        """A poisonous saga has made progress, which acquits it and not those who run beside it."""
        self._convicted: set[str] = set()
        """Sagas that may be held guilty: so many of their owners have stopped."""
        self._sendable: dict[tuple[str, str, Direction, int], bytes] = {}
        self.unlucky: set[str] = set()
        """Instances whose link is going to be cut: struck as soon as they claim."""
        self.poison: set[str] = set()
        """Sagas that kill whoever runs them, until they are STUCK."""

    def now_ms(self) -> int:
        return EPOCH_MS + int(_now() * 1_000) + self._set_ahead_ms

    # --- accidents ------------------------------------------------------------

    def set_clock(self, ahead_ms: int) -> None:
        """Let the clock jump: every lease may seem to be over."""
        for instance_id in list(self._leases):
            self.strike(instance_id)
        self._set_ahead_ms += ahead_ms

    def end_lease(self, instance_id: str) -> None:
        """Let an instance be taken for dead."""
        self._leases.pop(instance_id, None)

    def refuse_next(self) -> None:
        """Refuse the data of the next event that is no start; a conviction is always storable."""
        self._refusing = True

    def strike(self, instance_id: str, *, poison: str = "") -> None:
        """An instance may not be able to acquit anybody any more; remember whose fault it is."""
        for saga_id in self._tried_by(instance_id):
            suspicion = self._suspicions[saga_id]
            suspicion.claimed = -TRIAL_SECONDS
            if poison:
                suspicion.poisonings += 1
            else:
                suspicion.strikes += 1

    def _tried_by(self, instance_id: str) -> Iterable[str]:
        lease = self._leases.get(instance_id)
        since = _now() - TRIAL_SECONDS
        for saga_id, suspicion in self._suspicions.items():
            ours = lease is None or self._sagas[saga_id].epoch == lease.epoch
            if ours and suspicion.claimed > since:
                yield saga_id

    # --- the eye --------------------------------------------------------------

    def claim(self, lease: Lease, limit: int, passing_over: frozenset[str]) -> Claimed:
        claimed = super().claim(lease, limit, passing_over)
        for stored in claimed.sagas:
            suspicion = self._suspicions.setdefault(stored.saga_id, Suspicion())
            suspicion.claimed = _now()
            if self._looks_guilty(stored.saga_id, suspicion):
                self._convicted.add(stored.saga_id)
        if lease.instance_id in self.unlucky:
            self.strike(lease.instance_id)
        return claimed

    def _looks_guilty(self, saga_id: str, seen: Suspicion) -> bool:
        """The innocent can only look so when somebody else's death came while they were alone."""
        bad_luck = seen.strikes > 0 or self._poison_moved
        guilty = saga_id in self.poison
        return (guilty or bad_luck) and seen.strikes + seen.poisonings >= DEATHS

    def acquit(self, lease: Lease, saga_ids: Sequence[str]) -> None:
        super().acquit(lease, saga_ids)
        for saga_id in saga_ids:
            if not self._sagas[saga_id].claims:
                self._suspicions.pop(saga_id, None)

    def write(self, lease: Lease, append: Append, row: Row) -> AppendError | None:
        newest = self._leases.get(lease.instance_id)
        if newest is None or newest.epoch != lease.epoch or newest.expires_ms <= self.now_ms():
            raise Broken(f"{row.saga_id} {row.revision} is written under a lease that is lost")
        again = self.has(row, lease)
        if not again and self._refuses(row):
            self._refusing = False
            self._refused.add(row.saga_id)
            self._tell(f"{row.kind} of {row.saga_id} is refused by the store")
            return Unwritable("told")
        error = super().write(lease, append, row)
        if error is None and not again:
            self._see(append, row)
        return error

    def _refuses(self, row: Row) -> bool:
        return self._refusing and row.revision > 1 and row.saga_id not in self.poison

    def _see(self, append: Append, row: Row) -> None:
        self._poison_moved |= row.saga_id in self.poison and row.revision > 1
        for call in append.commands:
            self._sendable[row.saga_id, call.step, call.direction, call.attempt] = call.request
        if append.state_changed and append.saga.state is SagaState.STUCK:
            self._tell(f"{row.saga_id} is STUCK by {row.kind}")
            if not self._explained(append):
                raise Broken(f"{row.saga_id} is STUCK, and nothing in this world explains it")
            self.poison.discard(row.saga_id)
        self._suspicions.pop(row.saga_id, None)
        self._convicted.discard(row.saga_id)

    def _explained(self, append: Append) -> bool:
        event, saga_id = append.event, append.saga.saga_id
        if isinstance(event, AttemptFailed):
            return event.direction is Direction.COMPENSATE and event.attempt >= TRIES
        if isinstance(event, Stuck) and event.failure.reason == "SAGA_POISONOUS":
            return saga_id in self._convicted
        return saga_id in self._refused

    # --- what is there --------------------------------------------------------

    def knows(self, attempt: Attempt) -> bool:
        """Whether exactly this attempt is on disk."""
        key = (attempt.saga_id, attempt.step, attempt.direction, attempt.attempt)
        return self._sendable.get(key) == attempt.request

    def state(self, saga_id: str) -> SagaState:
        """The state of a saga that was started."""
        if saga_id not in self._sagas:
            raise Broken(f"{saga_id} was started and is not there")
        return self._sagas[saga_id].state

    def revision(self, saga_id: str) -> int:
        """How many events it has."""
        return len(self._sagas[saga_id].rows)

    def definition(self, saga_id: str) -> str:
        """The hash of its definition."""
        return self._sagas[saga_id].definition_hash

    def accepted(self) -> Counter[tuple[str, int]]:
        """How many verbs were accepted of those that were bound to a saga's revision."""
        return Counter(
            (post.verb.saga_id, post.verb.revision)
            for post in self._posts.values()
            if post.verb.revision and post.outcome.state is VerbState.ACCEPTED
        )

    @property
    def undecided(self) -> bool:
        """Whether there is a verb that nobody has decided."""
        return any(post.outcome.state is VerbState.PENDING for post in self._posts.values())


def _now() -> float:
    return asyncio.get_running_loop().time()
