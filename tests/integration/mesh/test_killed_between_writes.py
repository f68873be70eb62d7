"""A participant is killed (SIGKILL) after each of its writes; then the call is repeated."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from mesh.barrier.rules import Superseded
from tests.contract.postgres_harness import effects
from tests.forks import forkserver
from tests.integration.mesh import killed_participant
from tests.integration.mesh.killed_participant import Ask, Kind, Run, answer, charges, effects_of

MOST_WRITES = 60


@pytest.fixture(params=list(Kind))
async def first(request: pytest.FixtureRequest, engine: AsyncEngine, postgres_dsn: str) -> Run:
    """A Do by one of the barriers, with the tables that it needs."""
    async with engine.begin() as connection:
        await connection.run_sync(effects.create)
        await connection.run_sync(charges.create)
    return Run(dsn=postgres_dsn, kind=request.param, ask=Ask.DO, saga_id="saga-0")


async def every_kill(call: Run, engine: AsyncEngine, *prepare: Ask) -> AsyncIterator[Run]:
    """The call, killed at its first moment, its second and so on, each in a saga of its own."""
    for moment in itertools.count(1):
        assert moment < MOST_WRITES
        killed = replace(call, saga_id=f"saga-{moment}", kill_at=moment)
        for ask in prepare:
            await answer(replace(killed, ask=ask), engine)
        if await exit_code(killed) == 0:
            assert moment > 2, "too few kill points were reached"
            return
        yield killed


async def exit_code(call: Run) -> int:
    process = forkserver.Process(target=killed_participant.run, args=(call,))
    process.start()
    await asyncio.to_thread(process.join)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode


async def test_a_killed_do_has_one_effect_when_repeated(first: Run, engine: AsyncEngine) -> None:
    async for killed in every_kill(first, engine):
        response = await answer(killed, engine)

        assert response is not None
        assert await answer(killed, engine) == response
        assert await effects_of(killed, engine) == 1


async def test_a_killed_do_leaves_nothing_when_compensated(first: Run, engine: AsyncEngine) -> None:
    async for killed in every_kill(first, engine):
        await answer(replace(killed, ask=Ask.COMPENSATE), engine)

        assert await effects_of(killed, engine) == 0
        with pytest.raises(Superseded):
            await answer(killed, engine)


async def test_a_killed_rejection_is_rejected_when_repeated(
    first: Run, engine: AsyncEngine
) -> None:
    rejected = replace(first, ask=Ask.DO_REJECTED)
    async for killed in every_kill(rejected, engine):
        assert await answer(killed, engine) is None
        assert await answer(replace(killed, ask=Ask.DO), engine) is None
        assert await effects_of(killed, engine) == 0


async def test_a_killed_compensate_undoes_once_when_repeated(
    first: Run, engine: AsyncEngine
) -> None:
    compensate = replace(first, ask=Ask.COMPENSATE)
    async for killed in every_kill(compensate, engine, Ask.DO):
        await answer(killed, engine)

        assert await effects_of(killed, engine) == 0
        with pytest.raises(Superseded):
            await answer(replace(killed, ask=Ask.DO), engine)


async def test_a_killed_compensate_that_came_first_blocks_a_late_do_when_repeated(
    first: Run, engine: AsyncEngine
) -> None:
    async for killed in every_kill(replace(first, ask=Ask.COMPENSATE), engine):
        await answer(killed, engine)

        with pytest.raises(Superseded):
            await answer(replace(killed, ask=Ask.DO), engine)
        assert await effects_of(killed, engine) == 0
