"""One trace per saga, by what an OTLP receiver is sent, whoever dies in between."""

from __future__ import annotations

from local.mesh import Mesh
from local.sandbox import Sandbox
from local.scenarios import DECLINED, VISA
from local.shop import Shop
from local.until import until
from tests.e2e.receiver import CLIENT, SERVER, Receiver, Seen

STEPS = {
    "create_order": ("order", "order.v1.CreateOrder"),
    "reserve_stock": ("inventory", "inventory.v1.ReserveStock"),
    "charge_payment": ("payment", "payment.v1.ChargePayment"),
    "request_shipment": ("fulfillment", "fulfillment.v1.RequestShipment"),
    "confirm_order": ("order", "order.v1.ConfirmOrder"),
}
UNDONE = ("reserve_stock", "create_order")


async def finished(shop: Shop, saga_id: str) -> None:
    async for _ in shop.watch(saga_id):
        pass


async def arrived(receiver: Receiver, saga_id: str, *wanted: tuple[str, int]) -> list[Seen]:
    """The spans of a saga, once these (name, kind) are among them."""

    async def all_there() -> bool:
        there = {(span.name, span.kind) for span in receiver.of_saga(saga_id)}
        return set(wanted) <= there

    assert await until(all_there, seconds=15), [
        (span.name, span.kind) for span in receiver.of_saga(saga_id)
    ]
    return receiver.of_saga(saga_id)


def both(*methods: str) -> list[tuple[str, int]]:
    return [(method, kind) for method in methods for kind in (CLIENT, SERVER)]


def one(spans: list[Seen], name: str, kind: int) -> Seen:
    (found,) = [span for span in spans if (span.name, span.kind) == (name, kind)]
    return found


async def test_a_saga_is_one_trace_from_the_order_to_its_last_step(
    shop: Shop, receiver: Receiver
) -> None:
    placed = await shop.place({"coffee": 1}, VISA)
    await finished(shop, placed.saga_id)
    calls = both(*(f"{service}/Do" for _, service in STEPS.values()))
    spans = await arrived(receiver, placed.saga_id, *calls)
    assert len({span.trace_id for span in spans}) == 1
    for step, (owner, service) in STEPS.items():
        client = one(spans, f"{service}/Do", CLIENT)
        server = one(spans, f"{service}/Do", SERVER)
        assert (client.service, server.service) == ("coordinator", owner)
        assert server.parent_id == client.span_id
        assert client.attributes["saga.step"] == server.attributes["saga.step"] == step
        assert client.attributes["saga.attempt"] == 1
    whole = receiver.of_trace(spans[0].trace_id)
    placing = one(whole, "order.v1.OrderService/PlaceOrder", SERVER)
    starting = one(whole, "saga.v1.SagaService/StartSaga", SERVER)
    assert placing.service == "order"
    assert starting.service == "coordinator"


async def test_a_compensation_is_linked_to_what_it_undoes(shop: Shop, receiver: Receiver) -> None:
    placed = await shop.place({"coffee": 1}, DECLINED)
    await finished(shop, placed.saga_id)
    undone = [STEPS[step][1] for step in UNDONE]
    calls = both(*(f"{service}/Compensate" for service in undone))
    spans = await arrived(receiver, placed.saga_id, *calls)
    assert len({span.trace_id for span in spans}) == 1
    for service in undone:
        done = one(spans, f"{service}/Do", CLIENT)
        assert one(spans, f"{service}/Compensate", CLIENT).links == (done.span_id,)


async def test_the_trace_goes_on_after_the_coordinator_was_killed(
    shop: Shop, receiver: Receiver, mesh: Mesh, sandbox: Sandbox
) -> None:
    await sandbox.slow_down(1_000)
    placed = await shop.place({"coffee": 1}, VISA)
    assert await sandbox.until_charging()
    before = await arrived(receiver, placed.saga_id, *both("inventory.v1.ReserveStock/Do"))
    await mesh.services["coordinator"].kill()
    await sandbox.slow_down(0)
    await mesh.services["coordinator"].start()
    await finished(shop, placed.saga_id)
    after = await arrived(receiver, placed.saga_id, *both("order.v1.ConfirmOrder/Do"))
    assert {span.trace_id for span in after} == {before[0].trace_id}


async def test_no_span_carries_a_card(shop: Shop, receiver: Receiver) -> None:
    placed = await shop.place({"coffee": 1}, VISA)
    await finished(shop, placed.saga_id)
    await arrived(receiver, placed.saga_id, *both("payment.v1.ChargePayment/Do"))
    assert not [span for span in receiver.spans if "pm_card" in span.raw]
