"""The migrated database: what it refuses, and that it is quick to ask when it is full."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import alembic.command
from alembic.config import Config
from msgspec.structs import replace
from psycopg.errors import IntegrityError
from sqlalchemy import NullPool, create_engine, inspect

from coordinator.core.model import SagaState
from coordinator.journal.tables import metadata
from coordinator.journal.verbs import VerbKind, VerbState
from local.until import until
from mesh.postgres import driver_url
from tests.contract.journal.harness import Instance, begun, claim, finished, ids
from tests.contract.journal.test_inbox import verb
from tests.contract.journal.test_reader import listed
from tests.integration.journal.conftest import Database

_IMPOSSIBLE = {
    "a saga without a state": "UPDATE saga.saga SET state = NULL",
    "two events at one revision": "INSERT INTO saga.saga_event SELECT * FROM saga.saga_event",
    "a verb for no saga": "UPDATE saga.saga_inbox SET saga_id = 's3'",
    "no known verb": "UPDATE saga.saga_inbox SET verb = 'LOSE'",
    "a verb in no known state": "UPDATE saga.saga_inbox SET state = 'LOST', decide_time = now()",
    "a pending verb that is decided": "UPDATE saga.saga_inbox SET decide_time = now()",
    "a decided verb that is not": "UPDATE saga.saga_inbox SET state = 'ACCEPTED'",
    "a verb bound to a revision before all": "UPDATE saga.saga_inbox SET revision = -1",
    "an explanation of nothing": "UPDATE saga.saga_inbox SET explanation = 'because'",
    "a lease of nobody": "UPDATE saga.instance SET instance_id = ''",
    "an epoch before all": "UPDATE saga.instance SET epoch = 0",
    "one epoch for two": "INSERT INTO saga.instance SELECT 'x', epoch, now() FROM saga.instance",
    "a definition without a name": (
        "INSERT INTO saga.definition (name, hash, source, descriptors) VALUES ('', 'h', '', '')"
    ),
}


async def test_impossible_rows_cannot_be_stored(database: Database, mine: Instance) -> None:
    await mine.tell(begun("s1").append, begun("s2").append)
    await mine.journal.post_verb(verb("v1"))
    stored = [what for what, how in _IMPOSSIBLE.items() if not await _is_refused(database, how)]
    assert stored == []


async def _is_refused(database: Database, statement: str) -> bool:
    try:
        await database.admin.execute(statement)
    except IntegrityError:
        return True
    return False


async def test_every_verb_and_each_of_its_states_can_be_stored(
    database: Database, mine: Instance
) -> None:
    found = await database.rows(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c'"
    )
    checks = {str(name): str(definition) for name, definition in found}
    for constraint, values in {
        "saga_inbox_verb": [kind.value for kind in VerbKind],
        "saga_inbox_state": [state.value for state in VerbState],
    }.items():
        for value in values:
            assert f"'{value}'" in checks[constraint]


async def test_a_saga_is_finished_in_every_final_state_and_in_no_other(
    database: Database, mine: Instance
) -> None:
    for state in SagaState:
        told = begun(state.value)
        await mine.tell(told.append)
        done = told.done("a")
        await mine.tell(replace(done, saga=replace(done.saga, state=state), state_changed=True))
    ended = "SELECT saga_id FROM saga.saga WHERE finish_time IS NOT NULL AND state = saga_id"
    assert {saga_id for (saga_id,) in await database.rows(ended)} == {
        state.value for state in SagaState if state.final
    }


async def test_the_tables_are_those_of_the_migrated_database(
    database: Database, mine: Instance
) -> None:
    engine = create_engine(driver_url(database.dsn))
    found = inspect(engine)
    assert set(found.get_table_names("saga")) == {table.name for table in metadata.sorted_tables}
    for table in metadata.sorted_tables:
        there = {
            (column["name"], str(column["type"]), column["nullable"])
            for column in found.get_columns(table.name, "saga")
        }
        here = {
            (column.name, str(column.type.compile(engine.dialect)), column.nullable)
            for column in table.columns
        }
        assert {(n, t.partition(" COLLATE")[0], nullable) for n, t, nullable in there} == {
            (n, t.replace(" WITH TIME ZONE", ""), nullable) for n, t, nullable in here
        }
        key = found.get_pk_constraint(table.name, "saga")["constrained_columns"]
        assert key == [column.name for column in table.primary_key]
    engine.dispose()


async def test_a_history_that_cannot_be_read_is_passed_over_by_claims(
    database: Database, mine: Instance
) -> None:
    for number in range(3):
        await mine.tell(begun(f"s{number}", at_ms=1_000 + number).append)
    await mine.journal.release_lease(mine.lease)
    await database.admin.execute(
        "UPDATE saga.saga_event SET payload = '\\xff' WHERE saga_id = 's1'"
    )
    other = await database.rig.join("other")
    assert await claim(other) == ["s0", "s2"]
    assert await claim(other) == []
    assert await database.rows("SELECT epoch FROM saga.saga WHERE saga_id = 's1'") == [(0,)]


_FINISHED_SAGAS = """
INSERT INTO saga.saga
SELECT 'old-' || n, 'story', 'story-1', 'COMPLETED', jsonb_build_object('order_id', 'o' || n),
       'gone', 1, 0, 0, at, at, at
FROM generate_series(1, 100000) AS n, LATERAL (SELECT to_timestamp(n)) AS happened (at)
"""
_THEIR_EVENTS = """
INSERT INTO saga.saga_event
SELECT saga_id, revision, create_time, CASE revision WHEN 1 THEN 'STARTED' ELSE 'STEP_DONE' END,
       CASE revision WHEN 1 THEN '' ELSE 'a' END, revision - 1, NULL, '', ''
FROM saga.saga, generate_series(1, 2) AS revision WHERE saga_id LIKE 'old-%'
"""
_ROWS_READ = """
SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = 'saga')
     + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = 'saga')
"""


async def test_no_hot_statement_reads_whole_tables_however_many_sagas_are_finished(
    database: Database, mine: Instance
) -> None:
    await mine.tell(*finished("first"))  # plans are made now, while the tables are empty
    await database.admin.execute(_FINISHED_SAGAS)
    await database.admin.execute(_THEIR_EVENTS)
    await database.admin.execute("SELECT pg_stat_force_next_flush()")
    ((before,),) = await database.rows(_ROWS_READ)

    await mine.write(*(begun(f"s{number}", order_id=f"o{number}").append for number in range(100)))
    told, late = begun("last"), begun("last")
    await mine.tell(told.append, told.done("a"))
    await mine.write(late.failed("a"))  # a conflict is read back
    await mine.tell(told.done("b"))
    await database.admin.execute("ANALYZE")  # makes new plans
    await mine.journal.post_verb(verb("v1"))
    await mine.journal.pending_verbs(mine.lease)
    await mine.journal.refuse_verb("v1", "no")
    await mine.journal.load("s1")
    await mine.journal.entries("s1", 0, 10)
    running, stuck = frozenset({SagaState.RUNNING}), frozenset({SagaState.STUCK})
    assert ids(await listed(mine, limit=1)) == ["s99"]
    assert len(await listed(mine, states=running, limit=50)) == 50
    assert await listed(mine, states=stuck) == []
    assert ids(await listed(mine, keys={"order_id": "o7"})) == ["s7", "old-7"]
    await mine.journal.release_lease(mine.lease)
    other = await database.rig.join("other")
    assert len(await claim(other, 50)) == 50

    await database.cleanup.aclose()  # sessions report what they did when they end
    assert await until(database.is_alone, seconds=20)
    ((after,),) = await database.rows(_ROWS_READ)
    assert int(str(after)) - int(str(before)) < 5_000


async def test_a_migration_that_is_taken_back_and_made_again_keeps_every_saga(
    database: Database, mine: Instance
) -> None:
    await mine.tell(begun("awake").append, begun("parked").append)
    await database.admin.execute(
        "UPDATE saga.saga SET epoch = -1, wake_time = now() WHERE saga_id = 'parked'"
    )
    await asyncio.to_thread(_run, alembic.command.downgrade, database.dsn, "0002")
    await asyncio.to_thread(_run, alembic.command.upgrade, database.dsn, "head")
    assert await database.rows("SELECT saga_id, epoch FROM saga.saga ORDER BY saga_id") == [
        ("awake", mine.lease.epoch),
        ("parked", 0),
    ]


def _run(command: Callable[[Config, str], None], dsn: str, revision: str) -> None:
    engine = create_engine(driver_url(dsn), poolclass=NullPool)
    with engine.connect() as connection:
        config = Config()
        config.set_main_option("script_location", "coordinator.journal:migrations")
        config.attributes.update(connection=connection, version_table="coordinator_journal_version")
        command(config, revision)
