"""What only a real server shows of group commits: transactions, locks, lost connections."""

from __future__ import annotations

import asyncio

import pytest
from psycopg import AsyncConnection

from coordinator.journal import flush, group_commit
from coordinator.journal.base import AppendError, LeaseLost, RevisionConflict, Unwritable
from coordinator.journal.postgres import PostgresJournal
from tests.contract.journal.harness import LONG, Instance, begun, claim, finished
from tests.integration.journal.conftest import Database

_TRANSACTIONS = "SELECT count(DISTINCT xmin::text), count(*) FROM saga.saga_event"


async def _start_elsewhere(connection: AsyncConnection, saga_id: str) -> None:
    """Insert a saga's first event in a transaction that stays open: whoever starts it waits."""
    await connection.execute(
        """
        INSERT INTO saga.saga_event
          (saga_id, revision, time, kind, step, attempt, state, payload, commands)
        VALUES (%s, 1, now(), 'STARTED', '', 0, 'RUNNING', '', '')
        """,
        [saga_id],
    )


async def test_appends_that_are_ready_together_are_one_transaction(
    database: Database, mine: Instance
) -> None:
    await mine.write(*(begun(f"s{number}").append for number in range(20)))
    assert await database.rows(_TRANSACTIONS) == [(1, 20)]


async def test_what_arrives_during_a_group_commit_is_the_next_one(
    database: Database, mine: Instance
) -> None:
    blocker = await database.connect()
    await _start_elsewhere(blocker, "s0")
    first = mine.queue(begun("s0").append)
    await database.until_waiting("Lock")
    rest = [mine.queue(begun(f"s{number}").append) for number in range(1, 20)]
    await blocker.rollback()
    assert await asyncio.gather(first, *rest) == [None] * 20
    assert await database.rows(_TRANSACTIONS) == [(2, 20)]


async def test_a_start_that_meets_another_start_at_the_same_moment_is_a_conflict(
    database: Database, mine: Instance
) -> None:
    blocker = await database.connect()
    await _start_elsewhere(blocker, "s1")
    told = [mine.queue(begun(saga_id).append) for saga_id in ("s0", "s1", "s2")]
    await database.until_waiting("Lock")
    await blocker.commit()
    first, error, last = await asyncio.gather(*told)
    assert (first, last) == (None, None)
    assert isinstance(error, RevisionConflict)


async def test_a_renewal_does_not_wait_for_the_group_commit_in_progress(
    database: Database, mine: Instance
) -> None:
    blocker = await database.connect()
    await _start_elsewhere(blocker, "s1")
    told = mine.queue(begun("s1").append)
    await database.until_waiting("Lock")
    await mine.journal.renew_lease(mine.lease, LONG)
    assert not told.done()
    await blocker.rollback()
    assert await told is None


async def test_an_append_queued_under_a_former_lease_is_lost(
    database: Database, mine: Instance
) -> None:
    blocker = await database.connect()
    await blocker.execute("LOCK TABLE saga.saga_event IN SHARE MODE")
    told = mine.queue(begun("s1").append)
    await database.until_waiting("Lock")
    await mine.journal.acquire_lease("mine", LONG)
    await blocker.rollback()
    assert isinstance(await told, LeaseLost)
    await mine.tell(begun("s1").append)


async def test_a_new_lease_waits_for_the_group_commit_under_the_last_one(
    database: Database, mine: Instance
) -> None:
    blocker = await database.connect()
    await _start_elsewhere(blocker, "s1")
    told = mine.queue(begun("s1").append)
    await database.until_waiting("Lock")
    successor = asyncio.create_task(database.rig.join("mine"))
    await database.until_waiting("Lock", application="journal pool")
    assert not successor.done()
    await blocker.rollback()
    assert await told is None
    heir = await successor
    assert await claim(heir) == ["s1"]


async def test_a_claim_waits_for_the_dead_instances_group_commit_and_sees_it(
    database: Database, mine: Instance
) -> None:
    other = await database.rig.join("other")
    blocker = await database.connect()
    await _start_elsewhere(blocker, "s1")
    told = mine.queue(begun("s1").append)
    await database.until_waiting("Lock")
    await database.rig.expire(mine.lease)
    claiming = asyncio.create_task(claim(other))
    await database.until_waiting("Lock", application="journal pool")
    assert not claiming.done()
    await blocker.rollback()
    assert await told is None
    assert await claiming == ["s1"]


async def test_a_connection_cut_before_the_commit_is_followed_by_a_commit(
    database: Database, mine: Instance
) -> None:
    first, second, third = finished("s1")
    await mine.tell(first)
    blocker = await database.connect()
    await _start_elsewhere(blocker, "s2")
    told = [mine.queue(append) for append in (second, begun("s2").append)]
    backend = await database.until_waiting("Lock")
    await database.rows("SELECT pg_terminate_backend(%s)", backend)
    await blocker.rollback()
    assert await asyncio.gather(*told) == [None, None]
    await mine.tell(third)
    assert await database.rows("SELECT saga_id, revision FROM saga.saga_event ORDER BY 1, 2") == [
        ("s1", 1),
        ("s1", 2),
        ("s1", 3),
        ("s2", 1),
    ]


async def test_a_lock_that_is_held_too_long_delays_and_loses_nothing(
    database: Database, mine: Instance
) -> None:
    blocker = await database.connect()
    await _start_elsewhere(blocker, "s1")
    told = mine.queue(begun("s1").append)
    backend = await database.until_waiting("Lock")
    await database.rows("SELECT pg_cancel_backend(%s)", backend)  # as statement_timeout does
    while mine.journal.available:
        await asyncio.sleep(0)
    await blocker.rollback()
    assert await told is None
    assert mine.journal.available


async def test_data_that_postgresql_refuses_is_found_among_many_and_named_without_its_content(
    database: Database, mine: Instance, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "".join(f"{number:04x}" for number in range(2_000))
    too_long, secret = begun(long).append, begun(f"s{long}", card="4242424242424242").append
    sagas = [begun(f"s{number:02}") for number in range(30)]
    appends = [saga.append for saga in sagas]
    answers = await mine.write(*appends[:7], secret, *appends[7:20], too_long, *appends[20:])
    assert [place for place, answer in enumerate(answers) if answer is not None] == [7, 21]
    for place in (7, 21):
        assert isinstance(answers[place], Unwritable)
        assert "424242" not in str(answers[place])
    assert "424242" not in capsys.readouterr().out
    assert await database.rows("SELECT count(*) FROM saga.saga") == [(30,)]
    await mine.tell(*(saga.done("a") for saga in sagas))


async def test_one_that_fails_to_hear_leaves_its_neighbours_hearing(
    mine: Instance, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: AppendError | None) -> None:
        raise ZeroDivisionError

    before = mine.queue(begun("s1").append)
    mine.journal.append(begun("s2").append, fail)
    after = mine.queue(begun("s3").append)
    assert [await before, await after] == [None, None]
    assert [record.exc_info and record.exc_info[0] for record in caplog.records] == [
        ZeroDivisionError
    ]


async def test_closing_writes_what_is_queued_and_refuses_what_comes_after(
    database: Database, mine: Instance
) -> None:
    told = [mine.queue(begun(f"s{number}").append) for number in range(50)]
    assert isinstance(mine.journal, PostgresJournal)
    await mine.journal.close()
    assert await asyncio.gather(*told) == [None] * 50
    (error,) = await mine.write(begun("late").append)
    assert isinstance(error, LeaseLost)
    assert await database.rows("SELECT count(*) FROM saga.saga") == [(50,)]


async def test_a_bug_that_ends_the_writer_leaves_nobody_waiting_and_the_lease_to_others(
    database: Database, mine: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bug(Exception):
        pass

    async def fail(*_: object) -> None:
        raise Bug

    monkeypatch.setattr(group_commit, "write", fail)
    told = [mine.queue(begun(saga_id).append) for saga_id in ("s1", "s2")]
    for error in await asyncio.gather(*told):
        assert isinstance(error, LeaseLost)
    assert not mine.journal.available
    (late,) = await mine.write(begun("s3").append)
    assert isinstance(late, LeaseLost)
    assert isinstance(mine.journal, PostgresJournal)
    with pytest.raises(Bug):
        await mine.journal.renew_lease(mine.lease, LONG)
    with pytest.raises(Bug):
        await mine.journal.close()


async def test_closing_without_the_server_refuses_what_is_queued(mine: Instance) -> None:
    mine.link.cut()
    first = mine.queue(begun("s1").append)
    while mine.journal.available:
        await asyncio.sleep(0)
    second = mine.queue(begun("s2").append)
    assert isinstance(mine.journal, PostgresJournal)
    await mine.journal.close()
    for told in (first, second):
        assert isinstance(await told, LeaseLost)


async def test_groups_are_written_by_a_new_plan_now_and_then(
    mine: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables grow from nothing to millions, and a plan for empty ones is a bad one."""
    plans = 0

    async def counted(connection: AsyncConnection) -> None:
        nonlocal plans
        plans += 1
        await flush.replan(connection)

    monkeypatch.setattr(group_commit, "_GROUPS_BY_A_PLAN", 2)
    monkeypatch.setattr(group_commit, "replan", counted)
    for append in (*finished("s1"), *finished("s2")):
        await mine.tell(append)
    assert plans == 3
