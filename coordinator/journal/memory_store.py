"""What several `MemoryJournal`s share: the rows, the leases and the rules of a database, in memory.

Every operation is one step of the event loop, which makes each of them a transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from coordinator.core.model import SagaState
from coordinator.journal.base import (
    Append,
    AppendError,
    Claimed,
    Entry,
    InstanceIdInUse,
    Lease,
    LeaseLost,
    Parking,
    RevisionConflict,
    Standing,
    StoredSaga,
    UnreadableHistory,
    company,
)
from coordinator.journal.codec import Row, clean, clean_keys, clean_verb, decode
from coordinator.journal.limits import check_page, check_saga_ids, check_saga_page, check_texts
from coordinator.journal.memory_definitions import MemoryDefinitions
from coordinator.journal.verbs import UnknownSaga, Verb, VerbIdReused, VerbOutcome, VerbState


@dataclass(slots=True)
class _Saga:
    saga_id: str
    definition: str
    definition_hash: str
    state: SagaState
    keys: Mapping[str, str]
    epoch: int
    """Of the lease that owns it."""
    created_ms: int
    updated_ms: int
    rows: list[Row] = field(default_factory=list)
    claims: int = 0
    wake_ms: int = 0
    """When it stops being parked; 0 when it is not."""


@dataclass(slots=True)
class _Post:
    verb: Verb
    outcome: VerbOutcome


class MemoryStore:
    """The rows. `now_ms` is the clock by which leases are judged: milliseconds since the epoch."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._epoch = 0
        self._leases: dict[str, Lease] = {}
        self._sagas: dict[str, _Saga] = {}
        self._posts: dict[str, _Post] = {}
        self.definitions = MemoryDefinitions(now_ms)

    # --- leases ---------------------------------------------------------------

    def acquire(self, instance_id: str, length_ms: int, after: Lease | None) -> Lease:
        """Give the instance a new lease."""
        held = self._leases.get(instance_id)
        if held and after and held.epoch != after.epoch and self.holds(held):
            raise InstanceIdInUse(instance_id)
        self._epoch += 1
        now = self._now_ms()
        self._leases[instance_id] = lease = Lease(instance_id, self._epoch, now, now + length_ms)
        return lease

    def holds(self, lease: Lease) -> bool:
        """Whether the lease is the instance's newest and has not expired."""
        held = self._leases.get(lease.instance_id)
        return held is not None and held.epoch == lease.epoch and held.expires_ms > self._now_ms()

    def renew(self, lease: Lease, length_ms: int) -> Lease:
        """Extend a lease that is held."""
        self._must_hold(lease)
        now = self._now_ms()
        renewed = replace(lease, now_ms=now, expires_ms=now + length_ms)
        self._leases[lease.instance_id] = renewed
        return renewed

    def release(self, lease: Lease) -> None:
        """End a lease that is held."""
        if self.holds(lease):
            del self._leases[lease.instance_id]

    def _must_hold(self, lease: Lease) -> None:
        if not self.holds(lease):
            raise LeaseLost(f"epoch {lease.epoch} of {lease.instance_id} is not held")

    # --- sagas, the owner's side ----------------------------------------------

    def write(self, lease: Lease, append: Append, row: Row) -> AppendError | None:
        """Write one append under a lease that is held."""
        saga = self._sagas.get(row.saga_id)
        if self.has(row, lease):
            return None
        if row.revision != (len(saga.rows) if saga else 0) + 1:
            return RevisionConflict(f"revision {row.revision} does not follow in {row.saga_id}")
        if saga is None:
            self._sagas[row.saga_id] = saga = _new_saga(append, row, lease.epoch)
        saga.rows.append(row)
        saga.claims = 0
        if append.state_changed:
            saga.state, saga.updated_ms = append.saga.state, row.time_ms
        if append.verb_id:
            self._decide(append.verb_id, VerbOutcome(VerbState.ACCEPTED))
        return None

    def has(self, row: Row, lease: Lease) -> bool:
        """Whether exactly this event is kept, a first one in a saga of this lease."""
        saga = self._sagas.get(row.saga_id)
        if saga is None or (row.revision == 1 and saga.epoch != lease.epoch):
            return False
        return row in saga.rows[row.revision - 1 : row.revision]

    def claim(self, lease: Lease, limit: int, passing_over: frozenset[str]) -> Claimed:
        """Give the lease the least suspected of the unfinished sagas that no live lease owns."""
        self._must_hold(lease)
        check_page(limit)
        live = {held.epoch for held in self._leases.values() if self.holds(held)}
        self._leases = {name: held for name, held in self._leases.items() if held.epoch in live}
        free = [
            saga
            for saga in self._sagas.values()
            if saga.epoch not in live and not saga.state.final and saga.saga_id not in passing_over
            if saga.wake_ms <= self._now_ms()
        ]
        free.sort(key=lambda saga: (saga.claims, saga.created_ms, saga.saga_id))
        alike = [saga for saga in free if saga.claims == free[0].claims]
        chosen = alike[: company(free[0].claims, limit)] if free else []
        for saga in chosen:
            _count_claim(saga, lease)
        to_run = [saga for saga in chosen if saga.state is not SagaState.STUCK]
        unreadable = [saga for saga in to_run if not _readable(saga)]
        for saga in unreadable:
            _give_back(saga)
        return Claimed(
            sagas=[
                _stored(saga) if saga in to_run else _listed(saga)
                for saga in chosen
                if saga.epoch == lease.epoch
            ],
            unreadable=frozenset(saga.saga_id for saga in unreadable),
        )

    def acquit(self, lease: Lease, saga_ids: Sequence[str]) -> None:
        """Count no claim against these sagas of the lease."""
        check_texts(*saga_ids)
        for saga_id in saga_ids:
            saga = self._sagas.get(saga_id)
            if saga is not None and saga.epoch == lease.epoch:
                saga.claims = 0

    def park(self, lease: Lease, parkings: Sequence[Parking]) -> frozenset[str]:
        """Make sagas nobody's until their time."""
        check_texts(*(parking.saga_id for parking in parkings))
        parked = [parking for parking in parkings if self._may_park(lease, parking)]
        for parking in parked:
            saga = self._sagas[parking.saga_id]
            saga.epoch, saga.claims, saga.wake_ms = 0, 0, parking.until_ms
        return frozenset(parking.saga_id for parking in parked)

    def _may_park(self, lease: Lease, parking: Parking) -> bool:
        saga = self._sagas.get(parking.saga_id)
        if saga is None or saga.state.final or saga.epoch != lease.epoch:
            return False
        posts = (post for post in self._posts.values() if post.verb.saga_id == saga.saga_id)
        undecided = any(post.outcome.state is VerbState.PENDING for post in posts)
        return len(saga.rows) == parking.revision and not undecided

    def reload(self, lease: Lease, saga_id: str) -> StoredSaga | None:
        """One unfinished saga of this lease."""
        check_texts(saga_id)
        saga = self._sagas.get(saga_id)
        if saga is None or saga.state.final or saga.epoch != lease.epoch:
            return None
        return _stored(saga)

    # --- sagas, anyone's side -------------------------------------------------

    def load(self, saga_id: str) -> StoredSaga | None:
        """One saga with its entries."""
        check_texts(saga_id)
        saga = self._sagas.get(saga_id)
        return None if saga is None else _stored(saga)

    def entries(self, saga_id: str, after_revision: int, limit: int) -> Sequence[Entry]:
        """A page of one saga's entries."""
        check_texts(saga_id)
        check_page(limit, after_revision=after_revision)
        saga = self._sagas.get(saga_id)
        rows = saga.rows[after_revision : after_revision + limit] if saga else []
        return [decode(row) for row in rows]

    def list_sagas(
        self,
        definition: str,
        states: frozenset[SagaState],
        keys: Mapping[str, str],
        before: tuple[int, str] | None,
        limit: int,
    ) -> Sequence[StoredSaga]:
        """A page of sagas without entries."""
        check_saga_page(definition, keys, before, limit)
        found = [
            saga
            for saga in self._sagas.values()
            if (not definition or saga.definition == definition)
            and (not states or saga.state in states)
            and keys.items() <= saga.keys.items()
            and (before is None or (saga.created_ms, saga.saga_id) < before)
        ]
        found.sort(key=lambda saga: (saga.created_ms, saga.saga_id), reverse=True)
        return [_listed(saga) for saga in found[:limit]]

    def standings(self, saga_ids: Sequence[str]) -> Mapping[str, Standing]:
        """The standings of those sagas that exist."""
        check_saga_ids(saga_ids)
        known = (self._sagas[name] for name in saga_ids if name in self._sagas)
        owners = {held.epoch: name for name, held in self._leases.items() if self.holds(held)}
        return {
            saga.saga_id: Standing(
                saga.definition_hash,
                saga.state,
                "" if saga.state.final else owners.get(saga.epoch, ""),
                saga.wake_ms,
            )
            for saga in known
        }

    def revisions(self, saga_ids: Sequence[str]) -> Mapping[str, int]:
        """The newest revisions of those sagas that exist."""
        check_saga_ids(saga_ids)
        return {name: len(self._sagas[name].rows) for name in saga_ids if name in self._sagas}

    def purge(self, finished_for_ms: int, limit: int) -> int:
        """Forget the oldest of the sagas that ended long ago."""
        check_page(limit)
        until_ms = self._now_ms() - finished_for_ms
        over = [s for s in self._sagas.values() if s.state.final and s.updated_ms <= until_ms]
        over.sort(key=lambda saga: (saga.updated_ms, saga.saga_id))
        gone = {saga.saga_id for saga in over[:limit]}
        self._sagas = {name: saga for name, saga in self._sagas.items() if name not in gone}
        self._posts = {
            name: post for name, post in self._posts.items() if post.verb.saga_id not in gone
        }
        return len(gone)

    def damage(self, saga_id: str) -> None:
        """Make the newest event of a saga one that no version can read."""
        rows = self._sagas[saga_id].rows
        rows[-1] = replace(rows[-1], payload=b"\xff")

    # --- verbs ----------------------------------------------------------------

    def post_verb(self, verb: Verb) -> None:
        """Put a verb into the inbox."""
        verb = clean_verb(verb)
        if verb.saga_id not in self._sagas:
            raise UnknownSaga(f"there is no saga {verb.saga_id}")
        post = self._posts.setdefault(verb.request_id, _Post(verb, VerbOutcome(VerbState.PENDING)))
        if post.verb != verb:
            raise VerbIdReused(f"{verb.request_id} is the id of another verb")
        if post.outcome.state is VerbState.PENDING:
            saga = self._sagas[verb.saga_id]
            saga.wake_ms = min(saga.wake_ms, self._now_ms())

    def verb_outcome(self, request_id: str) -> VerbOutcome | None:
        """What came of a verb."""
        check_texts(request_id)
        post = self._posts.get(request_id)
        return None if post is None else replace(post.outcome, revision=post.verb.revision)

    def pending_verbs(self, lease: Lease) -> Sequence[Verb]:
        """Undecided verbs that this lease may decide."""
        return [post.verb for post in self._posts.values() if self._decidable(post, lease)]

    def refuse_verb(self, lease: Lease | None, request_id: str, explanation: str) -> None:
        """Refuse a verb that this lease may decide."""
        check_texts(request_id)
        post = self._posts.get(request_id)
        if post is not None and self._decidable(post, lease):
            self._decide(request_id, VerbOutcome(VerbState.REFUSED, clean(explanation)))

    def _decidable(self, post: _Post, lease: Lease | None) -> bool:
        saga = self._sagas[post.verb.saga_id]
        ours = lease is not None and saga.epoch == lease.epoch
        return post.outcome.state is VerbState.PENDING and (ours or saga.state.final)

    def _decide(self, request_id: str, outcome: VerbOutcome) -> None:
        post = self._posts.get(request_id)
        if post is not None and post.outcome.state is VerbState.PENDING:
            post.outcome = outcome


def _new_saga(append: Append, row: Row, epoch: int) -> _Saga:
    return _Saga(
        saga_id=row.saga_id,
        definition=append.saga.definition.name,
        definition_hash=append.saga.definition.hash,
        state=append.saga.state,
        keys=clean_keys(append.saga.keys),
        epoch=epoch,
        created_ms=row.time_ms,
        updated_ms=row.time_ms,
    )


def _count_claim(saga: _Saga, lease: Lease) -> None:
    """Who runs a saga suspects it; nobody runs one that is STUCK."""
    saga.claims = 0 if saga.state is SagaState.STUCK else saga.claims + 1
    saga.epoch, saga.wake_ms = lease.epoch, 0


def _give_back(saga: _Saga) -> None:
    saga.claims, saga.epoch = max(saga.claims - 1, 0), 0


def _readable(saga: _Saga) -> bool:
    try:
        _stored(saga)
    except UnreadableHistory:
        return False
    return True


def _stored(saga: _Saga) -> StoredSaga:
    return replace(_listed(saga), entries=tuple(decode(row) for row in saga.rows))


def _listed(saga: _Saga) -> StoredSaga:
    return StoredSaga(
        saga_id=saga.saga_id,
        definition=saga.definition,
        definition_hash=saga.definition_hash,
        state=saga.state,
        entries=(),
        created_ms=saga.created_ms,
        updated_ms=saga.updated_ms,
        keys=saga.keys,
        revision=len(saga.rows),
        claims=saga.claims,
    )
