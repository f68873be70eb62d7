"""The journal's port: what is durable, who may write it, and when.

Contract, for every implementation (`tests/contract/journal/` holds each to it):

Append
- `append` queues one event with its commands and returns at once; `done` hears of it exactly once,
  on the event loop, never before `append` has returned, and with None only when it is on disk.
- Appends of one saga are queued one at a time: the caller waits for `done` before the next.
- An append is identified by (saga_id, revision). Writing the same one again is success; another
  event at that revision is `RevisionConflict`, and nothing of it is written. Conflicts are also:
  an event that does not follow the newest one on disk, and the start of a saga that another lease
  has started, be it with the same bytes.
- All appends that are ready go out together (group commit) and the next group gathers meanwhile.
  One that the store cannot hold (`Unwritable`) never keeps its neighbours from being written.
- While the store is away, appends wait in order and are tried again; a commit whose answer was lost
  is read back, never assumed. `available` is False meanwhile, so that callers can refuse new work.

Lease
- An instance writes under a lease: (instance_id, epoch, expiry), judged by the store's clock alone.
  Every group commit checks in the same transaction that the lease is held and not expired;
  otherwise nothing of it is written and each append hears `LeaseLost`.
- An append belongs to the lease that was held when it was queued; under a later one it is lost.
- `acquire_lease` always gives a new, higher epoch, which fences every earlier holder of the id: a
  process that starts goes on where the one before it ended. One that finds itself fenced by another
  that is alive leaves the id to it (`InstanceIdInUse`), or the two would fence each other for ever.
- A saga belongs to the lease that started or claimed it. `claim` gives an instance unfinished sagas
  whose lease is no longer held, its own former ones among them. Before it takes a dead instance's
  sagas it ends that instance's lease, which waits for a group commit in progress there. No saga is
  ever given to two live leases.
- A saga may kill whoever runs it. A claim counts against it (`StoredSaga.claims`) until it makes
  progress or its owner acquits it, from before its history is read: reading may be what kills.
  Suspects are given out in ever smaller company, the least suspected first (`company`): after three
  crashes the guilty one is alone, and its neighbours run.

Parking
- A saga that waits long need not be in anybody's memory: its owner parks it until a time, and it is
  nobody's. Whoever claims from then on takes it, as any saga that nobody owns, and not before; a
  verb that is posted for it makes that time now. Parking is no progress and no suspicion.

Inbox
- A verb (cancel, retry, skip, abandon) is posted by any instance and decided by the saga's owner:
  accepted by being named in an `Append`, in the same transaction, or refused. It is decided once.
- A finished saga needs no owner: its undecided verbs are shown to every lease, and any may refuse.

Retention
- `purge` deletes finished sagas with all that belongs to them, oldest first, in small batches, long
  after their end. It never touches an unfinished one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct, field

from coordinator.core.commands import Call
from coordinator.core.events import Event
from coordinator.core.model import SagaState
from coordinator.core.saga import Saga
from coordinator.journal.verbs import Verb, VerbOutcome


class AppendError(Exception):
    """An append that was not written."""


class RevisionConflict(AppendError):
    """The history on disk is not the one this event belongs to: drop the saga and load it."""


class LeaseLost(AppendError):
    """The lease is no longer held: this instance may write nothing for its sagas."""


class ClaimUnknown(LeaseLost):
    """The lease may own sagas that were never handed out; it must be given up to have them run."""

    def __init__(self, words: str, saga_ids: Sequence[str]) -> None:
        super().__init__(words)
        self.saga_ids = saga_ids


class Unwritable(AppendError):
    """The store refuses this event's data, whoever writes it."""


class JournalUnavailable(Exception):
    """The store is away; nothing was read, and what should be written may or may not be."""


class JournalBusy(JournalUnavailable):
    """The store is there, and this instance asks too much of it at once; nothing was done."""


class InstanceIdInUse(Exception):
    """Another process holds the lease of this instance: two run under one id."""


class UnreadableHistory(Exception):
    """A history on disk that this version cannot read: written by a newer one, or damaged."""


def company(claims: int, limit: int) -> int:
    """How many sagas are claimed together that were claimed `claims` times without progress."""
    return min(limit, {0: limit, 1: 10}.get(claims, 1))


class InvalidQuery(ValueError):
    """A question that no store could answer: an impossible page, or a text that no row can have."""


class Append(Struct, frozen=True, kw_only=True, gc=False):
    """One event to be made durable, with the commands decided by it."""

    saga: Saga
    """The saga after the event; `saga.revision` is the event's."""
    event: Event
    commands: tuple[Call, ...]
    state_changed: bool
    """Whether `saga.state` differs from the state before; True for the first event."""
    verb_id: str = ""
    """Request id of the verb that this event accepts; empty for none."""


class Entry(Struct, frozen=True, kw_only=True, gc=False):
    """One event as it is on disk."""

    revision: int
    event: Event
    commands: tuple[Call, ...]


class StoredSaga(Struct, frozen=True, kw_only=True, gc=False):
    """A saga as it is on disk; fold `entries` to get its present state."""

    saga_id: str
    definition: str
    definition_hash: str
    state: SagaState
    entries: tuple[Entry, ...]
    """All of them, oldest first, without gaps; empty in lists, and where it is claimed STUCK."""
    created_ms: int
    updated_ms: int
    """When `state` last changed."""
    keys: Mapping[str, str] = field(default_factory=dict)
    revision: int = 0
    """How many events it has."""
    claims: int = 0
    """How often it was claimed since its newest event, or since it was acquitted; three mean that
    it kills its owners. Always 0 while it is STUCK: nobody runs it, so nobody dies of it."""


class Standing(Struct, frozen=True, gc=False):
    """What a saga runs, and where it is."""

    definition_hash: str
    state: SagaState
    owner: str = ""
    """The instance that runs it; empty when it is finished, parked, or nobody's yet again."""
    parked_until_ms: int = 0
    """By the store's clock; 0 when it is not parked."""


class Claimed(Struct, frozen=True, kw_only=True, gc=False):
    """What a claim has found; all empty when no unfinished saga is left without an owner."""

    sagas: Sequence[StoredSaga]
    """They are ours now, all suspected alike until this claim was counted."""
    unreadable: frozenset[str] = frozenset()
    """Ids of sagas whose history this version cannot read; left to others."""


class Parking(Struct, frozen=True, gc=False):
    """A saga that has nothing to do for a while."""

    saga_id: str
    revision: int
    """The newest that its owner knows."""
    until_ms: int
    """When it has, by the store's clock."""


class Lease(Struct, frozen=True, gc=False):
    """The right to write, until `expires_ms` by the store's clock."""

    instance_id: str
    epoch: int
    now_ms: int
    """The store's clock when the lease was acquired or renewed."""
    expires_ms: int


class Journal(Protocol):
    """The owner's side: write, hold the lease, claim."""

    @property
    def available(self) -> bool:
        """Whether the last contact with the store went well."""
        ...

    def append(self, append: Append, done: Callable[[AppendError | None], None]) -> None:
        """Queue one event under the present lease; `done` hears when it is on disk, or why not."""
        ...

    async def acquire_lease(
        self, instance_id: str, length_ms: int, *, after: Lease | None = None
    ) -> Lease:
        """Take the lease of this instance with a new epoch and write under it from now on.

        `after` is the one that this process held before; None takes the lease from whoever has it.

        Raises:
            InstanceIdInUse: another process has taken it since, and holds it.
            JournalUnavailable: the store is away.
        """
        ...

    async def renew_lease(self, lease: Lease, length_ms: int) -> Lease:
        """Extend the lease; the answer carries the store's clock.

        Raises:
            LeaseLost: it expired or another epoch holds it.
            JournalUnavailable: the store is away.
        """
        ...

    async def release_lease(self, lease: Lease) -> None:
        """Let others claim this instance's sagas at once. Releasing a lost lease does nothing.

        Raises:
            JournalUnavailable: the store is away.
        """
        ...

    async def claim(
        self, lease: Lease, limit: int, *, passing_over: frozenset[str] = frozenset()
    ) -> Claimed:
        """Take up to `limit` unfinished sagas that no live instance owns.

        The least suspected first, all of them claimed equally often before and no more than
        `company` allows; among these the oldest. Sagas in `passing_over` are left to others, and so
        are those whose history this version cannot read. STUCK ones come without entries: there is
        nothing to run, and there may be many.

        Raises:
            LeaseLost: the lease is not held any more.
            ClaimUnknown: it may own sagas that the store did not come to hand out: acquire a new
                one, under which they are claimed again.
            JournalUnavailable: the store is away.
        """
        ...

    async def acquit(self, lease: Lease, saga_ids: Sequence[str]) -> None:
        """Count no claim against these sagas any more: they were run, and nobody died of it.

        Those that the lease does not own are left as they are.

        Raises:
            JournalUnavailable: the store is away.
        """
        ...

    async def park(self, lease: Lease, parkings: Sequence[Parking]) -> frozenset[str]:
        """Make sagas nobody's until their time; returns the ids of those that are.

        The others stay the lease's: those that it does not own, whose revision is another by now,
        that are finished, or for which a verb is undecided.

        Raises:
            JournalUnavailable: the store is away; nothing is parked.
            ClaimUnknown: they may be parked or not: acquire a new lease, under which those that are
                not are claimed again.
        """
        ...

    async def reload(self, lease: Lease, saga_id: str) -> StoredSaga | None:
        """One saga if it is unfinished and owned by this lease; None otherwise.

        Raises:
            UnreadableHistory: its history cannot be read.
            JournalUnavailable: the store is away.
        """
        ...

    async def pending_verbs(self, lease: Lease) -> Sequence[Verb]:
        """Undecided verbs for sagas that this lease owns or that are finished, oldest first.

        Raises:
            JournalUnavailable: the store is away.
        """
        ...

    async def refuse_verb(self, request_id: str, explanation: str) -> None:
        """Decide a verb as refused.

        Nothing happens when it is decided already, or when its saga is unfinished and not owned
        by the present lease.

        Raises:
            JournalUnavailable: the store is away.
        """
        ...


class Retention(Protocol):
    """The side that forgets."""

    async def purge(self, *, finished_for_ms: int, limit: int) -> int:
        """Delete up to `limit` sagas that ended at least this long ago by the store's clock.

        Returns how many; 0 as well while another instance is at it.

        Raises:
            JournalUnavailable: the store is away.
        """
        ...


class Reader(Protocol):
    """Anyone's side: read what is on disk, and post verbs.

    All raise `JournalUnavailable`, and `InvalidQuery` for pages and texts that cannot be; what
    returns entries may raise `UnreadableHistory`.
    """

    async def load(self, saga_id: str) -> StoredSaga | None:
        """One saga with all of its entries; None when there is none."""
        ...

    async def entries(self, saga_id: str, after_revision: int, limit: int) -> Sequence[Entry]:
        """Entries after a revision, oldest first; empty when there are none or no such saga."""
        ...

    async def list_sagas(
        self,
        *,
        definition: str,
        states: frozenset[SagaState],
        keys: Mapping[str, str],
        before: tuple[int, str] | None,
        limit: int,
    ) -> Sequence[StoredSaga]:
        """Sagas without entries, newest first by (created_ms, saga_id), strictly before `before`.

        An empty `definition`, `states` or `keys` does not restrict.
        """
        ...

    async def standings(self, saga_ids: Sequence[str]) -> Mapping[str, Standing]:
        """The standings of those of up to 10,000 sagas that exist, by id."""
        ...

    async def revisions(self, saga_ids: Sequence[str]) -> Mapping[str, int]:
        """The newest revisions of those of up to 10,000 sagas that exist, by id."""
        ...

    async def post_verb(self, verb: Verb) -> None:
        """Put a verb into the inbox; the same verb again changes nothing.

        Raises:
            UnknownSaga: its saga does not exist.
            VerbIdReused: the request id belongs to another verb.
        """
        ...

    async def verb_outcome(self, request_id: str) -> VerbOutcome | None:
        """What came of a verb so far; None when there is no such verb."""
        ...
