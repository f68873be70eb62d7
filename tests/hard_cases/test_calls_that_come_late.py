"""S1, S3 and S15: a Do that lands when nobody expects it any more."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest
from sqlalchemy import func, update
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.core.model import SagaState
from coordinator.engine.sender import LATENESS_MS
from mesh.barrier import purge as purging
from mesh.barrier.mongo_purge import SETTLED_RETENTION as SETTLED_IN_MONGO
from mesh.barrier.purge import SETTLED_RETENTION, purge
from mesh.barrier.tables import barrier
from mesh.clock import wall_clock_ms
from mesh.errors import MeshError
from mesh.step import StepCall
from tests.contract.barrier_harness import BarrierHarness
from tests.contract.test_barrier import insist
from tests.hard_cases import without
from tests.hard_cases.mesh import Mesh, Wire, mesh_of, step


async def time_out_and_land(mesh: Mesh, wire: Wire, saga_id: str, harness: BarrierHarness) -> int:
    """How many effects a saga has that was undone because its only Do did not arrive in time."""
    wire.lose_calls = 1
    coordinator = await mesh.coordinator(saga_id)
    lost = step("create_order", wire, harness.request(), timeout_ms=100)
    assert (await coordinator.run(saga_id, lost)).state is SagaState.COMPENSATED
    await wire.deliver_late()
    return await harness.effects_held(saga_id)


async def test_s01_a_do_that_times_out_and_lands_later_leaves_no_effect(
    postgres_harness: BarrierHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Wire(postgres_harness.guarded())
    async with mesh_of([wire]) as mesh:
        assert await time_out_and_land(mesh, wire, "saga-1", postgres_harness) == 0
        assert wire.compensations == 1

        without.unknown_outcomes(monkeypatch)
        assert await time_out_and_land(mesh, wire, "saga-2", postgres_harness) == 1
        assert wire.compensations == 1, "nothing to undo, it believed"
        monkeypatch.undo()

        without.tombstones(monkeypatch)
        assert await time_out_and_land(mesh, wire, "saga-3", postgres_harness) == 1


async def undo(harness: BarrierHarness, call: StepCall) -> None:
    guarded = harness.guarded()
    compensation = guarded.types.compensation(request=harness.request())
    await insist(lambda: guarded.compensate(call, compensation))


async def nothing_is_held(harness: BarrierHarness, saga_id: str) -> bool:
    try:
        return await harness.effects_held(saga_id) == 0
    except AssertionError:  # a part of it is
        return False


async def undone_first(harness: BarrierHarness, saga_id: str) -> bool:
    """Whether nothing is held when a Do comes after its Compensate."""
    call = StepCall(saga_id=saga_id, step="reserve_stock")
    await undo(harness, call)
    with suppress(MeshError):
        await harness.guarded().do(call, harness.request())
    return await nothing_is_held(harness, saga_id)


async def undone_meanwhile(harness: BarrierHarness, saga_id: str) -> bool:
    """Whether nothing is held when a Compensate comes in the middle of its Do."""
    call = StepCall(saga_id=saga_id, step="reserve_stock")
    pause = harness.pause()
    doing = asyncio.create_task(harness.guarded().do(call, harness.request()))
    await pause.reached()
    guarded = harness.guarded()
    compensation = guarded.types.compensation(request=harness.request())
    undoing = asyncio.create_task(guarded.compensate(call, compensation))
    await harness.underway(undoing)
    pause.resume()
    await asyncio.wait({doing, undoing})
    undoing.result()
    assert doing.exception() is None or isinstance(doing.exception(), MeshError)
    return await nothing_is_held(harness, saga_id)


async def test_s03_a_compensate_before_its_do_wins(
    harness: BarrierHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await undone_first(harness, "saga-1")

    without.tombstones(monkeypatch)
    assert not await undone_first(harness, "saga-2")


async def test_s03_a_compensate_during_its_do_wins(
    harness: BarrierHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await undone_meanwhile(harness, "saga-1")

    without.looking_again(monkeypatch)
    assert not await undone_meanwhile(harness, "saga-2")


async def land_after_the_purge(
    harness: BarrierHarness, engine: AsyncEngine, saga_id: str, *, late_ms: int
) -> int:
    """How many effects there are when a Do lands this long after its Compensate, and a purge."""
    sent_ms = wall_clock_ms()
    call = StepCall(saga_id=saga_id, step="create_order", not_after_ms=sent_ms + LATENESS_MS)
    await undo(harness, call)
    ago = func.clock_timestamp() - timedelta(milliseconds=late_ms)
    async with engine.begin() as tx:
        await tx.execute(update(barrier).values(update_time=ago))
    await purge(engine, done_retention=timedelta(days=400))
    with suppress(MeshError):
        await harness.guarded(lambda: sent_ms + late_ms).do(call, harness.request())
    return await harness.effects_held(saga_id)


async def test_s15_a_do_that_comes_after_its_row_was_purged_is_refused_for_its_age(
    postgres_harness: BarrierHarness, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_month = 31 * 24 * 3_600_000
    assert await land_after_the_purge(postgres_harness, engine, "saga-1", late_ms=a_month) == 0

    without.expiry(monkeypatch)
    assert await land_after_the_purge(postgres_harness, engine, "saga-2", late_ms=a_month) == 1


async def test_s15_no_row_is_purged_while_a_call_may_still_arrive(
    postgres_harness: BarrierHarness, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_time = LATENESS_MS - 1_000
    assert await land_after_the_purge(postgres_harness, engine, "saga-1", late_ms=in_time) == 0

    monkeypatch.setattr(purging, "SETTLED_RETENTION", timedelta(seconds=30))
    assert await land_after_the_purge(postgres_harness, engine, "saga-2", late_ms=in_time) == 1


def test_s15_rows_outlive_every_call_that_the_coordinator_can_make() -> None:
    longest_timeout = timedelta(hours=1)  # a definition with a longer one is refused
    longest_call = timedelta(milliseconds=LATENESS_MS) + longest_timeout

    assert longest_call < SETTLED_RETENTION
    assert longest_call < SETTLED_IN_MONGO
