"""What the purge removes, what it keeps, and what the sweep gives back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from inventory_svc.steps import ReserveStock
from mesh.barrier.mongo import MongoBarrier
from mesh.barrier.mongo_operations import hold
from mesh.barrier.mongo_purge import MongoPurge, Tidied, purging
from mesh.barrier.mongo_shipping import Shipping
from mesh.errors import NotNow
from mesh.step import GuardedStep, StepCall
from protos.inventory.v1 import inventory_pb2
from tests.integration.inventory.warehouse import Warehouse, reserve
from tests.refusals import refused

ORDER = [("apple", 2), ("pear", 3)]
REQUEST = reserve(ORDER)
FULL = {"apple": (10, 0), "pear": (10, 0)}
HELD = {"apple": (8, 2), "pear": (7, 3)}


class Days:
    """A clock for the barrier and its purge, in days since the first one."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> int:
        return 1_700_000_000_000 + int(timedelta(days=self.now) / timedelta(milliseconds=1))


@pytest.fixture
def days() -> Days:
    return Days()


@pytest.fixture
def step(warehouse: Warehouse, days: Days) -> GuardedStep:
    return MongoBarrier(warehouse.database, clock=days).guard(ReserveStock())


@pytest.fixture
def purge(warehouse: Warehouse, days: Days) -> MongoPurge:
    return MongoPurge(warehouse.database, timedelta(days=400), clock=days)


def saga(number: int) -> StepCall:
    return StepCall(saga_id=f"saga-{number}", step="reserve_stock")


async def compensate(step: GuardedStep, call: StepCall) -> None:
    await step.compensate(call, inventory_pb2.ReserveStockCompensation(request=REQUEST))


async def test_tombstones_go_after_an_hour(
    warehouse: Warehouse, step: GuardedStep, purge: MongoPurge, days: Days
) -> None:
    await warehouse.fill({"apple": 10, "pear": 10})
    await step.do(saga(1), REQUEST)
    await compensate(step, saga(1))

    days.now = 0.9 / 24
    assert await purge.run() == Tidied()
    days.now = 1.1 / 24
    assert await purge.run() == Tidied(tombstones=2)

    assert await warehouse.keys("apple") == {}
    assert await warehouse.stock() == FULL
    assert await warehouse.record("saga-1") is not None


async def test_many_tombstones_of_one_product_go_in_one_pass(
    warehouse: Warehouse, step: GuardedStep, purge: MongoPurge, days: Days
) -> None:
    await warehouse.fill({"apple": 10, "pear": 10})
    await step.do(saga(0), REQUEST)
    released = {"state": "RELEASED", "quantity": 2, "time_ms": days()}
    many = {f"reservations.{saga(number).key}": released for number in range(1, 251)}
    await warehouse.database.stock.update_one({"_id": "apple"}, {"$set": many})

    days.now = 1
    assert await purge.run() == Tidied(tombstones=250)
    assert await warehouse.keys("apple") == {"saga-0": "HELD"}


async def test_a_held_reservation_stays_while_its_step_counts(
    warehouse: Warehouse, step: GuardedStep, purge: MongoPurge, days: Days
) -> None:
    await warehouse.fill({"apple": 10, "pear": 10})
    response = await step.do(saga(1), REQUEST)

    days.now = 399
    assert await purge.run() == Tidied()

    assert await warehouse.stock() == HELD
    assert await step.do(saga(1), REQUEST) == response
    await compensate(step, saga(1))
    assert await warehouse.stock() == FULL


async def test_after_the_retention_time_what_a_done_step_holds_is_consumed(
    warehouse: Warehouse, step: GuardedStep, purge: MongoPurge, days: Days
) -> None:
    await warehouse.fill({"apple": 10, "pear": 10})
    await step.do(saga(1), REQUEST)

    days.now = 401
    assert await purge.run() == Tidied(records=1)

    assert await warehouse.stock() == {"apple": (8, 0), "pear": (7, 0)}
    assert await warehouse.keys("apple") == {}
    assert await warehouse.record("saga-1") is None


async def test_settled_records_go_after_thirty_days(
    warehouse: Warehouse, step: GuardedStep, purge: MongoPurge, days: Days
) -> None:
    await warehouse.fill({"apple": 10})
    with pytest.raises(Exception, match="no product pear"):
        await step.do(saga(1), REQUEST)
    await compensate(step, saga(2))

    days.now = 29
    assert (await purge.run()).records == 0
    days.now = 31
    assert (await purge.run()).records == 2

    assert await warehouse.record("saga-1") is None
    assert await warehouse.record("saga-2") is None


async def test_open_business_is_never_purged(
    warehouse: Warehouse, step: GuardedStep, purge: MongoPurge, days: Days
) -> None:
    await warehouse.fill({"apple": 10, "pear": 10})
    await step.do(saga(1), REQUEST)
    barrier = warehouse.database.barrier
    for state in ("DOING", "REJECTING", "COMPENSATING", "SHIPPING"):
        await barrier.update_one({"_id": saga(1).key}, {"$set": {"state": state}})
        days.now += 1_000
        assert await purge.run() == Tidied()

    assert await warehouse.stock() == HELD


async def test_a_document_that_only_kept_tombstones_goes_with_them(
    warehouse: Warehouse, step: GuardedStep, purge: MongoPurge, days: Days
) -> None:
    with pytest.raises(Exception, match="no product apple"):
        await step.do(saga(1), REQUEST)
    assert await warehouse.database.stock.count_documents({}) == 2

    days.now = 1
    await purge.run()
    await purge.run()

    assert await warehouse.database.stock.count_documents({}) == 0


@pytest.mark.parametrize("paused_days", [1, 31], ids=["compensated", "purged"])
async def test_what_a_do_holds_that_was_paused_for_too_long_is_given_back(
    warehouse: Warehouse, step: GuardedStep, purge: MongoPurge, days: Days, paused_days: int
) -> None:
    await warehouse.fill({"apple": 10, "pear": 10})
    await step.do(saga(1), REQUEST)
    await compensate(step, saga(1))
    days.now = paused_days
    await purge.run()
    late = hold(saga(1).key, "apple", 2, days())
    assert (await warehouse.database.stock.update_one(late.where, late.change)).matched_count == 1

    assert await purge.run() == Tidied(swept=1)

    assert await warehouse.stock() == FULL


async def test_a_late_do_is_still_refused_when_its_tombstones_are_gone(
    warehouse: Warehouse, step: GuardedStep, purge: MongoPurge, days: Days
) -> None:
    await warehouse.fill({"apple": 10, "pear": 10})
    await step.do(saga(1), REQUEST)
    await compensate(step, saga(1))
    days.now = 1
    await purge.run()

    async with refused() as refusal:
        await warehouse.do("saga-1", ORDER)

    assert refusal.reason == "STEP_ALREADY_COMPENSATED"
    assert await warehouse.stock() == FULL


async def test_the_purge_runs_in_the_background_of_the_service(
    warehouse: Warehouse, step: GuardedStep, days: Days
) -> None:
    await warehouse.fill({"apple": 10, "pear": 10})
    await step.do(saga(1), REQUEST)
    await compensate(step, saga(1))
    database = warehouse.database

    async with purging(database, done_retention=timedelta(days=400), every=timedelta(0)):
        while await warehouse.keys("apple") or await warehouse.record("saga-1"):
            pass


async def test_what_was_shipped_is_known_as_long_as_its_step_could_be_compensated(
    warehouse: Warehouse, step: GuardedStep, purge: MongoPurge, days: Days
) -> None:
    await warehouse.fill({"apple": 10, "pear": 10})
    await step.do(saga(1), REQUEST)
    await Shipping(warehouse.database, clock=days).ship("order-1")

    days.now = 399
    assert await purge.run() == Tidied(tombstones=2)
    with pytest.raises(NotNow, match="has been shipped"):
        await compensate(step, saga(1))
    days.now = 401
    assert await purge.run() == Tidied(records=1)

    assert await warehouse.stock() == {"apple": (8, 0), "pear": (7, 0)}


async def test_what_a_do_holds_that_was_paused_until_long_after_it_was_shipped_is_given_back(
    warehouse: Warehouse, step: GuardedStep, purge: MongoPurge, days: Days
) -> None:
    await warehouse.fill({"apple": 10, "pear": 10})
    await step.do(saga(1), REQUEST)
    await Shipping(warehouse.database, clock=days).ship("order-1")
    days.now = 1
    await purge.run()
    late = hold(saga(1).key, "apple", 2, days())
    assert (await warehouse.database.stock.update_one(late.where, late.change)).matched_count == 1

    assert await purge.run() == Tidied(swept=1)

    assert await warehouse.stock() == {"apple": (8, 0), "pear": (7, 0)}
