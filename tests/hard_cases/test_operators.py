"""S12 and S13: verbs that race with a saga's end, and effects that nothing can undo."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from coordinator.core.events import Aborted, StepDone
from coordinator.core.model import FailureKind, SagaState
from coordinator.journal.verbs import Verb, VerbKind, VerbOutcome, VerbState
from coordinator.participants.base import Done
from inventory_svc.store import connect
from mesh.barrier.mongo import Database
from mesh.barrier.mongo_operations import STOCK
from mesh.barrier.mongo_shipping import Shipping
from protos.inventory.v1 import inventory_pb2
from protos.saga.v1 import saga_pb2
from tests.contract.mongo_harness import ORDERED, PLENTY, MongoHarness
from tests.contract.postgres_harness import PostgresHarness
from tests.hard_cases import without
from tests.hard_cases.mesh import Coordinator, Mesh, NewWorld, Wire, mesh_of, step
from tests.unit.api.desk import Desk, KnownDefinitions, caller, compiled
from tests.unit.engine.world import World, failed


async def cancel_after_the_last_answer(world: World) -> VerbOutcome:
    """What becomes of a cancel that comes while the last step's answer is being written."""
    one = await world.coordinator()
    await world.start(one, "a")
    last = await one.sent("DO a 1")
    one.journal.hold()
    last.answer(Done(b"a-ok"))
    await asyncio.sleep(0.001)
    cancel = Verb(request_id="r", saga_id="saga-1", kind=VerbKind.CANCEL, reason="too late")
    await world.reader.post_verb(cancel)
    one.engine.verb_posted()
    await asyncio.sleep(0.5)
    one.journal.let_go()
    await asyncio.sleep(0.5)
    outcome = await world.reader.verb_outcome("r")
    assert outcome is not None
    return outcome


async def test_s12_a_cancel_that_comes_after_the_last_answer_is_refused(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world()
    outcome = await cancel_after_the_last_answer(world)
    assert outcome.state is VerbState.REFUSED
    assert (await world.saga()).state is SagaState.COMPLETED

    without.one_event_at_a_time(monkeypatch)
    without.compare_and_set(monkeypatch)
    world = new_world()
    outcome = await cancel_after_the_last_answer(world)
    assert outcome.state is VerbState.ACCEPTED, "both have won"
    kinds = [type(entry.event) for entry in await world.reader.entries("saga-1", 1, 10)]
    assert kinds == [StepDone, Aborted]


async def test_s12_a_last_answer_that_comes_after_a_cancel_is_undone(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    last = await one.sent("DO a 1")
    outcome = await world.verb(one, VerbKind.CANCEL)
    assert outcome.state is VerbState.ACCEPTED

    last.answer(Done(b"a-ok"))

    await one.answer("COMPENSATE a 1")
    await world.until(SagaState.COMPENSATED)


@pytest_asyncio.fixture
async def stock(mongodb_uri: str, mongo_database: str) -> AsyncIterator[Database]:
    async with connect(mongodb_uri) as client:
        yield client[mongo_database]


@pytest_asyncio.fixture
async def shop(
    stock: Database, postgres_harness: PostgresHarness
) -> AsyncIterator[tuple[Mesh, Wire, Wire]]:
    """A coordinator's mesh of stock in MongoDB and of orders in PostgreSQL."""
    inventory = MongoHarness(stock)
    await inventory.prepare()
    reserve, order = Wire(inventory.guarded()), Wire(postgres_harness.guarded())
    async with mesh_of([reserve, order]) as mesh:
        yield mesh, reserve, order


async def ship_what_cannot_be_sold(
    shop: tuple[Mesh, Wire, Wire], stock: Database, saga_id: str
) -> Coordinator:
    """Start a saga whose goods leave before a later step fails, and wait until that is undone."""
    mesh, reserve, order = shop
    order.lose_calls = 1
    reserve.served.clear()
    coordinator = await mesh.coordinator(saga_id)
    await coordinator.start(
        saga_id,
        step("reserve_stock", reserve, held_for(saga_id)),
        step("create_order", order, order.types.request(), timeout_ms=1_000),
    )
    await reserve.served.wait()
    await Shipping(stock).ship(saga_id)
    return coordinator


def held_for(order_id: str) -> inventory_pb2.ReserveStockRequest:
    items = [inventory_pb2.StockItem(product_id=p, quantity=n) for p, n in ORDERED.items()]
    return inventory_pb2.ReserveStockRequest(order_id=order_id, items=items)


async def ask(mesh: Mesh, coordinator: Coordinator, kind: VerbKind, step_name: str = "") -> None:
    """An operator who has sorted it out, or hopes so."""
    verb = Verb(
        request_id=kind.value,
        saga_id="saga-1",
        kind=kind,
        step=step_name,
        actor="ann",
        reason="the customer sends it back",
    )
    await mesh.reader.post_verb(verb)
    coordinator.engine.verb_posted()


async def test_s13_goods_that_were_shipped_leave_the_saga_stuck_for_an_operator_to_end(
    shop: tuple[Mesh, Wire, Wire], stock: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh, reserve, order = shop
    one = await ship_what_cannot_be_sold(shop, stock, "saga-1")
    saga = await mesh.until("saga-1", SagaState.STUCK)
    assert saga.stuck is not None
    assert (saga.stuck.reason, reserve.compensations) == ("STOCK_ALREADY_SHIPPED", 3)

    neighbour = step("create_order", order, order.types.request())
    assert (await one.run("saga-2", neighbour)).state is SagaState.COMPLETED
    await ask(mesh, one, VerbKind.RETRY)
    while reserve.compensations < 6:
        await asyncio.sleep(0.01)
    await mesh.until("saga-1", SagaState.STUCK)
    await ask(mesh, one, VerbKind.SKIP, "reserve_stock")
    await mesh.until("saga-1", SagaState.COMPENSATED)
    for product, quantity in ORDERED.items():
        document = await stock[STOCK].find_one({"_id": product})
        assert document is not None
        assert (document["available"], document["reserved"]) == (PLENTY - quantity, 0)

    without.giving_up(monkeypatch)
    await ship_what_cannot_be_sold(shop, stock, "saga-3")
    while reserve.compensations < 16:
        await asyncio.sleep(0.01)
    assert (await mesh.saga("saga-3")).state is SagaState.COMPENSATING, "and nobody is told"


async def test_s13_a_stuck_saga_says_why_and_what_is_legal_and_can_be_abandoned(
    world: World,
) -> None:
    one = await world.coordinator()
    desk = Desk(world, one, KnownDefinitions())
    desk.know(compiled("story", "a", "b"))
    await desk.start()
    await one.answer("DO a 1")
    await one.answer("DO b 1", failed(FailureKind.REJECTED))
    for attempt in (1, 2, 3):
        await one.answer(f"COMPENSATE a {attempt}", failed(FailureKind.REFUSED))
    await world.until(SagaState.STUCK)

    request = saga_pb2.ExplainSagaRequest(saga_id="saga-1")
    explained = await desk.sagas.ExplainSaga(request, caller())

    assert "TOLD" in explained.explanation
    assert set(explained.legal_verbs) == {"RetrySaga", "SkipStep", "AbandonSaga"}
    await world.verb(one, VerbKind.ABANDON)
    assert (await desk.get()).state == saga_pb2.SAGA_STATE_ABANDONED
