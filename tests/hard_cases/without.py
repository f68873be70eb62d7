"""Mechanisms, switched off one at a time: what a hard case looks like to those who do without."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from google.protobuf.message import Message
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.core import retry
from coordinator.core.decide import Decision
from coordinator.core.events import Event
from coordinator.core.model import Definition, FailureKind
from coordinator.engine import gate
from coordinator.engine.live import Intent, Live
from coordinator.engine.runner import Runner
from coordinator.journal.base import Append, AppendError, Lease
from coordinator.journal.codec import Row as JournalRow
from coordinator.journal.memory import MemoryJournal, _Waiting
from coordinator.journal.memory_store import MemoryStore
from coordinator.participants import outcome
from mesh.barrier import mongo, rows, rules
from mesh.barrier.along import Along
from mesh.barrier.mongo_algorithm import Algorithm
from mesh.barrier.mongo_operations import Document, Script
from mesh.barrier.rules import BarrierState
from mesh.errors import Conflict
from mesh.step import StepCall, StepTypes
from tests.unit.engine.world import Definitions
from tests.unit.mongo_barrier.mutants import NoTombstoneInTheBarrier, NoTombstoneInTheStock


def tombstones(patch: pytest.MonkeyPatch) -> None:
    """A Compensate that finds nothing leaves nothing."""

    async def insert_none(tx: AsyncConnection, call: StepCall, service: str) -> bool:
        try:
            await rows.read(tx, call)
        except Conflict:
            return True
        return False

    async def lock_if_there(tx: AsyncConnection, call: StepCall) -> rows.Row:
        try:
            return await lock(tx, call)
        except Conflict:
            return _undone("payment.v1.ChargePayment")  # the barrier that reads its tombstone

    lock = rows.lock
    patch.setattr(rows, "insert_tombstone", insert_none)
    patch.setattr(rows, "lock", lock_if_there)
    patch.setattr(mongo, "Algorithm", NoTombstoneInTheBarrier)


def _undone(service: str) -> rows.Row:
    return rows.Row(
        service=service,
        state=BarrierState.COMPENSATED,
        request=None,
        request_sha256=None,
        response=None,
        rejection=None,
        note={},
        stage=0,
    )


def looking_again(patch: pytest.MonkeyPatch) -> None:
    """A Compensate undoes what it sees, and a Do goes on as it began."""

    async def note(
        tx: AsyncConnection,
        call: StepCall,
        here: rows.Row,
        changed: rows.Note,
        along: Along | None = None,
    ) -> bool:
        found = await rows.read(tx, call)
        return await honest(tx, call, found, changed, along)

    honest = rows.note
    tombstones(patch)
    patch.setattr(rows, "note", note)
    patch.setattr(mongo, "Algorithm", NoTombstoneInTheStock)


def stored_responses(patch: pytest.MonkeyPatch) -> None:
    """A repeated Do is answered OK, and no more."""
    honest = rows.Row.outcome

    def empty(
        self: rows.Row, call: StepCall, request: Message, types: StepTypes
    ) -> rows.Outcome | None:
        found = honest(self, call, request, types)
        return types.response() if self.state is BarrierState.DONE else found

    patch.setattr(rows.Row, "outcome", empty)


def stored_refusals(patch: pytest.MonkeyPatch) -> None:
    """A refusal takes its row back with everything else."""

    async def take_back(
        tx: AsyncConnection, call: StepCall, service: str, request: Message, rejection: bytes
    ) -> bool:
        raise rules.thaw(rejection)

    patch.setattr(rows, "insert_rejected", take_back)


def giving_back(patch: pytest.MonkeyPatch) -> None:
    """What a Do of many items has taken before it failed stays taken."""

    def nothing(self: Algorithm, record: Document) -> Script[None]:
        yield from ()

    patch.setattr(Algorithm, "_give_all_back", nothing)


def expiry(patch: pytest.MonkeyPatch) -> None:
    """A Do is welcome however late."""

    def welcome(call: StepCall, now_ms: int) -> None:
        """Whatever the time."""

    patch.setattr(rules, "refuse_expired", welcome)


def unknown_outcomes(patch: pytest.MonkeyPatch) -> None:
    """No answer is taken for a no, as most engines do."""
    everything = dict.fromkeys(outcome.KINDS, (FailureKind.REJECTED, FailureKind.UNKNOWN))
    patch.setattr(outcome, "KINDS", everything)


def unproven_refusals(patch: pytest.MonkeyPatch) -> None:
    """A refusal is believed whoever says it."""
    believed: Mapping[object, tuple[FailureKind, FailureKind]] = {
        code: (FailureKind.REJECTED, undo) if do is FailureKind.REFUSED else (do, undo)
        for code, (do, undo) in outcome.KINDS.items()
    }
    patch.setattr(outcome, "KINDS", believed)


def epochs(patch: pytest.MonkeyPatch) -> None:
    """Who once held a lease may write for ever."""

    def unfenced(self: MemoryJournal, waiting: _Waiting) -> AppendError | None:
        assert waiting.lease is not None
        return self._store.write(waiting.lease, waiting.append, waiting.row)

    patch.setattr(MemoryJournal, "_write", unfenced)


def compare_and_set(patch: pytest.MonkeyPatch) -> None:
    """An event is put behind the newest one, whatever it was decided upon."""
    honest = MemoryStore.write

    def behind(
        self: MemoryStore, lease: Lease, append: Append, row: JournalRow
    ) -> AppendError | None:
        saga = self._sagas.get(row.saga_id)
        revision = (len(saga.rows) if saga else 0) + 1
        return honest(self, lease, append, replace(row, revision=revision))

    patch.setattr(MemoryStore, "write", behind)


def owners_of_starts(patch: pytest.MonkeyPatch) -> None:
    """The start of a saga that is there already, with the same bytes, is a start."""

    def same(self: MemoryStore, row: JournalRow, lease: Lease) -> bool:
        saga = self._sagas.get(row.saga_id)
        return saga is not None and row in saga.rows[row.revision - 1 : row.revision]

    patch.setattr(MemoryStore, "has", same)


def giving_up(patch: pytest.MonkeyPatch) -> None:
    """A Compensate that is refused is tried for ever."""
    patch.setattr(retry, "HOPELESS_LIMIT", 1 << 30)


def one_event_at_a_time(patch: pytest.MonkeyPatch) -> None:
    """What comes next is decided on what was true before."""
    honest = Runner.submit

    def hasty(self: Runner, live: Live, intent: Intent) -> None:
        live.writing = False
        honest(self, live, intent)

    patch.setattr(Runner, "submit", hasty)


def write_before_act(patch: pytest.MonkeyPatch) -> None:
    """A call is sent as soon as it is decided."""
    honest = Runner._write

    def hasty(self: Runner, live: Live, event: Event, decision: Decision, intent: Intent) -> None:
        self._sender.act(live, decision.commands)
        honest(self, live, event, decision, intent)

    patch.setattr(Runner, "_write", hasty)


def pinned_definitions(patch: pytest.MonkeyPatch) -> None:
    """A saga goes on with the newest version, whatever it has begun with."""

    async def newest(self: Definitions, content_hash: str) -> Definition:
        return list(self.by_hash.values())[-1]

    patch.setattr(Definitions, "load", newest)


def limits_of_calls(patch: pytest.MonkeyPatch) -> None:
    """Everything that waits for a participant goes at once."""
    patch.setattr(gate, "FIRST_WINDOW", 1 << 20)


def reserved_calls(patch: pytest.MonkeyPatch) -> None:
    """Compensations have no share of their own, and no precedence."""
    patch.setattr(gate, "_RESERVED", 1 << 20)
