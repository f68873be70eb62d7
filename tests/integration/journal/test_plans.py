"""Every hot statement looks up what it needs, however many sagas wait or are finished."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from psycopg import AsyncConnection
from sqlalchemy import Connection, Engine, event

from coordinator.core.model import SagaState
from coordinator.journal import flush
from coordinator.journal.base import Lease, Parking
from coordinator.journal.codec import encode
from mesh.postgres import set_all
from tests.contract.journal.harness import Instance, begun, claim
from tests.contract.journal.test_inbox import verb
from tests.contract.journal.test_reader import listed
from tests.integration.journal.conftest import Database

_LARGE = {"saga", "saga_event", "saga_inbox"}
_DAY_MS = 86_400_000

_SAGAS = """
INSERT INTO saga.saga
SELECT kind || n, 'story', 'story-1', state, jsonb_build_object('order_id', 'o' || n), 'gone',
       CASE kind WHEN 'mine-' THEN %s ELSE n %% 3 + 1000000 END, 0, 0, at, at,
       CASE kind WHEN 'old-' THEN at END
FROM (VALUES ('old-', 'COMPLETED', 8000), ('mine-', 'RUNNING', 3000), ('dead-', 'RUNNING', 300))
       AS filled (kind, state, sagas),
     generate_series(1, sagas) AS n, LATERAL (SELECT to_timestamp(n)) AS happened (at)
"""
_EVENTS = """
INSERT INTO saga.saga_event
SELECT saga_id, 1, create_time, 'STARTED', '', 0, 'RUNNING', '', '' FROM saga.saga
ON CONFLICT DO NOTHING
"""
_VERBS = """
INSERT INTO saga.saga_inbox (request_id, saga_id, verb, step, actor, reason, state, decide_time)
SELECT saga_id, saga_id, 'CANCEL', '', 'ann', 'told to', 'REFUSED', create_time FROM saga.saga
"""


@dataclass
class Plans:
    """The plans of all statements that SQLAlchemy sends, as PostgreSQL explains them."""

    scans: list[str] = field(default_factory=list)
    """Of large tables, in words: "saga by saga_pkey", "ALL of saga"."""

    async def of(self, asked: Awaitable[object]) -> set[str]:
        """How the large tables were searched for an answer."""
        self.scans.clear()
        await asked
        return set(self.scans)

    def note(self, plan: Mapping[str, Any], *, first_few: bool = False) -> None:
        """Find the scans in a plan; `first_few` when a limit is right above."""
        table = plan.get("Relation Name")
        if table in _LARGE and "Scan" in plan["Node Type"]:
            self.scans.append(_words(plan, table, first_few=first_few))
        first_few = plan["Node Type"] == "Limit" or (first_few and _hands_on(plan))
        for part in plan.get("Plans", ()):
            self.note(part, first_few=first_few)


def _hands_on(plan: Mapping[str, Any]) -> bool:
    """Whether this node asks for no more rows than it is asked for."""
    return plan["Node Type"] in {"LockRows", "Result", "Append", "Merge Append", "Subquery Scan"}


def _words(plan: Mapping[str, Any], table: str, *, first_few: bool) -> str:
    searched = plan["Plans"][0] if plan["Node Type"] == "Bitmap Heap Scan" else plan
    index = searched.get("Index Name", "no index")
    if "Index Cond" in searched:
        return f"{table} by {index}"
    return f"first of {index}" if first_few else f"ALL of {table} by {index}"


@pytest.fixture
def plans() -> Iterator[Plans]:
    """Has every statement of the journal's pools explained right before it is executed."""
    found = Plans()

    def explain(
        connection: Connection, _: object, query: str, values: Mapping[str, Any], *__: object
    ) -> None:
        if "saga." in query:
            with closing(connection.connection.cursor()) as cursor:
                cursor.execute(f"EXPLAIN (FORMAT JSON) {query}", values)
                ((plan,),) = cursor.fetchall()
                found.note(plan[0]["Plan"])

    event.listen(Engine, "before_cursor_execute", explain)
    yield found
    event.remove(Engine, "before_cursor_execute", explain)


@pytest_asyncio.fixture
async def full(database: Database, mine: Instance) -> Instance:
    """An instance of 3,000 unfinished sagas, among 8,000 finished ones and 300 of the dead."""
    await _fill(database, mine.lease)
    await database.admin.execute("ANALYZE")
    return mine


async def _fill(database: Database, lease: Lease) -> None:
    await database.admin.execute(_SAGAS, [lease.epoch])
    await database.admin.execute(_EVENTS)
    await database.admin.execute(_VERBS)


async def test_a_claim_skips_from_epoch_to_epoch_and_takes_the_first_of_the_dead(
    full: Instance, plans: Plans
) -> None:
    assert await plans.of(claim(full, 100)) == {
        "first of saga_parked",
        "saga by saga_claimable",
        "saga by saga_pkey",
        "saga_event by saga_event_pkey",
    }
    for _ in range(2):
        await claim(full, 100)
    nothing = plans.of(claim(full, 100))
    assert await nothing == {"first of saga_parked", "saga by saga_claimable"}


async def test_the_owner_finds_its_sagas_and_verbs_by_their_keys(
    full: Instance, plans: Plans
) -> None:
    journal, lease = full.journal, full.lease
    one_saga = {"saga by saga_pkey", "saga_event by saga_event_pkey"}
    assert await plans.of(journal.reload(lease, "mine-7")) == one_saga
    acquittal = await plans.of(journal.acquit(lease, ["mine-7", "mine-8"]))
    assert acquittal <= {"saga by saga_suspect", "saga by saga_pkey"}
    await journal.post_verb(verb("v1", "mine-7"))
    pending = await plans.of(journal.pending_verbs(lease))
    assert pending == {"ALL of saga_inbox by saga_inbox_pending", "saga by saga_pkey"}
    refusal = await plans.of(journal.refuse_verb("v1", "no"))
    assert all(" by saga_inbox_p" in scan or scan == "saga by saga_pkey" for scan in refusal)


async def test_parking_looks_up_by_key_and_waking_by_time(full: Instance, plans: Plans) -> None:
    journal, lease = full.journal, full.lease
    parkings = [Parking(f"mine-{number}", 1, lease.now_ms - 1) for number in range(3)]
    by_key = {"saga by saga_pkey", "saga_event by saga_event_pkey"}
    parked = await plans.of(journal.park(lease, parkings))
    assert parked == by_key | {"saga_inbox by saga_inbox_of_saga"}
    woken = await plans.of(claim(full, 100))
    assert any(scan.endswith("saga_parked") for scan in woken)
    assert not any(scan.startswith("ALL") for scan in woken)


async def test_lists_by_state_read_a_page_of_that_state(full: Instance, plans: Plans) -> None:
    unfinished = frozenset(state for state in SagaState if not state.final)
    revision = "saga_event by saga_event_pkey"
    for states in (unfinished, frozenset({SagaState.STUCK}), frozenset({SagaState.ABANDONED})):
        for before in (None, (2_000_000, "mine-2000")):
            scans = await plans.of(listed(full, states=states, before=before))
            assert scans == {"saga by saga_in_state", revision}
    assert await plans.of(listed(full)) == {"first of saga_newest", revision}
    completed = await plans.of(listed(full, states=frozenset({SagaState.COMPLETED})))
    assert completed == {"first of saga_newest", revision}
    keyed = await plans.of(listed(full, keys={"order_id": "o7"}))
    assert keyed == {"saga by saga_keys", revision}


async def test_readers_find_single_sagas_by_their_keys(full: Instance, plans: Plans) -> None:
    one_saga = {"saga by saga_pkey", "saga_event by saga_event_pkey"}
    assert await plans.of(full.journal.load("old-7")) == one_saga
    assert await plans.of(full.journal.entries("old-7", 0, 10)) == {"saga_event by saga_event_pkey"}
    asked = [f"old-{number}" for number in range(500)]
    assert await plans.of(full.journal.standings(asked)) == {"saga by saga_pkey"}
    assert await plans.of(full.journal.revisions(asked)) == one_saga
    assert await plans.of(full.journal.verb_outcome("old-7")) == {"saga_inbox by saga_inbox_pkey"}


async def test_a_purge_reads_the_oldest_and_deletes_by_key(full: Instance, plans: Plans) -> None:
    purge = full.journal.purge
    assert await plans.of(purge(finished_for_ms=_DAY_MS, limit=500)) == {
        "saga by saga_finished",
        "saga by saga_pkey",
        "saga_event by saga_event_pkey",
        "saga_inbox by saga_inbox_of_saga",
    }
    nothing = plans.of(purge(finished_for_ms=40_000 * _DAY_MS, limit=500))
    assert await nothing == {"saga by saga_finished"}


async def test_a_group_commit_looks_up_by_key_whenever_its_plan_was_made(
    database: Database, mine: Instance
) -> None:
    async with await AsyncConnection.connect(database.dsn, autocommit=True) as writer:
        await set_all(writer, flush.SETTINGS)
        await flush.prepare(writer)
        await database.admin.execute("VACUUM ANALYZE")
        made_when_known_to_be_empty = await _plan_of_group_commits(writer)
        told = begun("told")
        for append in (told.append, told.done("a")):
            packed = flush.pack(append, encode(append))
            assert await flush.write(writer, mine.lease, [packed]) == 1
        await _fill(database, mine.lease)
        made_when_empty = await _plan_of_group_commits(writer)
        await database.admin.execute("UPDATE saga.saga SET claims = 1 WHERE saga_id < 'mine-2'")
        await database.admin.execute("ANALYZE")
        made_when_full = await _plan_of_group_commits(writer)
    for scans in (made_when_known_to_be_empty, made_when_empty, made_when_full):
        assert "saga_event by saga_event_pkey" in scans
        assert "saga_inbox by saga_inbox_pkey" in scans
        assert not [scan for scan in scans if scan.startswith("ALL")]


async def _plan_of_group_commits(writer: AsyncConnection) -> set[str]:
    """How the statement that a writer has prepared searches the large tables."""
    found = await writer.execute(
        "SELECT name, cardinality(parameter_types) FROM pg_prepared_statements"
        " WHERE name = 'write_group'"
    )
    ((name, parameters),) = await found.fetchall()
    nulls = ", ".join(["NULL"] * parameters)
    explained = await writer.execute(f"EXPLAIN (FORMAT JSON) EXECUTE {name} ({nulls})")
    ((plan,),) = await explained.fetchall()
    plans = Plans()
    plans.note(plan[0]["Plan"])
    return set(plans.scans)
