from __future__ import annotations

import asyncio

import grpc
import pytest
from uuid_utils import uuid7

from protos.fulfillment.v1 import fulfillment_pb2
from tests.integration.fulfillment.warehouse import Warehouse
from tests.refusals import refused

REQUESTED = fulfillment_pb2.SHIPMENT_STATE_REQUESTED
SHIPPED = fulfillment_pb2.SHIPMENT_STATE_SHIPPED
CANCELLED = fulfillment_pb2.SHIPMENT_STATE_CANCELLED

STEP = (("saga-id", "demo-1"), ("saga-step", "request_shipment"))
CUPS = fulfillment_pb2.ShipmentItem(product_id="cup", quantity=2)
PLATE = fulfillment_pb2.ShipmentItem(product_id="plate", quantity=1)
WANTED = fulfillment_pb2.RequestShipmentRequest(order_id="order-1", items=[CUPS, PLATE])
UNDO = fulfillment_pb2.RequestShipmentCompensation(request=WANTED)


def left(shipment_id: str, tracking_code: str = "T-1") -> fulfillment_pb2.ConfirmShipmentRequest:
    return fulfillment_pb2.ConfirmShipmentRequest(
        shipment_id=shipment_id, tracking_code=tracking_code
    )


async def request(warehouse: Warehouse) -> str:
    answer = await warehouse.request_shipment.Do(WANTED, metadata=STEP)
    shipment_id: str = answer.shipment_id
    return shipment_id


async def test_a_shipment_is_requested_with_its_items(warehouse: Warehouse) -> None:
    shipment = await warehouse.shipment(await request(warehouse))
    assert (shipment.order_id, shipment.saga_id) == ("order-1", "demo-1")
    assert list(shipment.items) == [CUPS, PLATE]
    assert (shipment.state, shipment.tracking_code) == (REQUESTED, "")


async def test_parallel_duplicates_request_one_shipment(warehouse: Warehouse) -> None:
    answers = await asyncio.gather(*(request(warehouse) for _ in range(10)))
    assert answers == [answers[0]] * 10
    assert await warehouse.count() == 1


async def test_a_shipment_of_nothing_is_rejected_and_not_written(warehouse: Warehouse) -> None:
    nothing = fulfillment_pb2.RequestShipmentRequest(order_id="order-1")
    for _ in ("first", "again"):
        async with refused() as refusal:
            await warehouse.request_shipment.Do(nothing, metadata=STEP)
        assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
        assert (refusal.reason, refusal.outcome) == ("SHIPMENT_INVALID", "rejected")
        assert refusal.fields == ["items"]
    assert await warehouse.count() == 0


async def test_a_compensated_shipment_is_called_off(warehouse: Warehouse) -> None:
    shipment_id = await request(warehouse)
    for _ in ("first", "again"):
        await warehouse.request_shipment.Compensate(UNDO, metadata=STEP)
    assert (await warehouse.shipment(shipment_id)).state == CANCELLED


async def test_a_request_that_comes_after_its_compensation_is_refused(warehouse: Warehouse) -> None:
    await warehouse.request_shipment.Compensate(UNDO, metadata=STEP)
    async with refused() as refusal:
        await request(warehouse)
    assert refusal.reason == "STEP_ALREADY_COMPENSATED"
    assert await warehouse.count() == 0


async def test_goods_that_have_left_are_not_called_off(warehouse: Warehouse) -> None:
    shipment_id = await request(warehouse)
    await warehouse.shipments.ConfirmShipment(left(shipment_id))
    for _ in ("first", "again"):
        async with refused() as refusal:
            await warehouse.request_shipment.Compensate(UNDO, metadata=STEP)
        assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
        assert refusal.reason == "SHIPMENT_ALREADY_SENT"
        assert refusal.metadata["state"] == "SHIPPED"
        assert refusal.outcome is None
    assert (await warehouse.shipment(shipment_id)).state == SHIPPED


async def test_a_confirmation_again_changes_nothing(warehouse: Warehouse) -> None:
    shipment_id = await request(warehouse)
    first = await warehouse.shipments.ConfirmShipment(left(shipment_id))
    assert (first.shipment.state, first.shipment.tracking_code) == (SHIPPED, "T-1")
    assert await warehouse.shipments.ConfirmShipment(left(shipment_id)) == first


async def test_another_tracking_code_is_refused(warehouse: Warehouse) -> None:
    shipment_id = await request(warehouse)
    await warehouse.shipments.ConfirmShipment(left(shipment_id, "T-1"))
    async with refused() as refusal:
        await warehouse.shipments.ConfirmShipment(left(shipment_id, "T-2"))
    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == "SHIPMENT_ALREADY_CONFIRMED"
    assert (await warehouse.shipment(shipment_id)).tracking_code == "T-1"


async def test_a_shipment_that_was_called_off_does_not_leave(warehouse: Warehouse) -> None:
    shipment_id = await request(warehouse)
    await warehouse.request_shipment.Compensate(UNDO, metadata=STEP)
    async with refused() as refusal:
        await warehouse.shipments.ConfirmShipment(left(shipment_id))
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.reason == "SHIPMENT_CANCELLED"
    assert refusal.metadata == {"state": "CANCELLED", "allowed_states": "REQUESTED"}
    assert list(refusal.preconditions) == ["allowed in: REQUESTED"]
    assert (await warehouse.shipment(shipment_id)).state == CANCELLED


async def test_calling_off_and_leaving_at_once_ends_in_one_of_the_two(
    warehouse: Warehouse,
) -> None:
    shipment_id = await request(warehouse)
    answers = await asyncio.gather(
        warehouse.request_shipment.Compensate(UNDO, metadata=STEP),
        warehouse.shipments.ConfirmShipment(left(shipment_id)),
        return_exceptions=True,
    )
    called_off, has_left = (not isinstance(answer, Exception) for answer in answers)
    assert called_off != has_left
    expected = CANCELLED if called_off else SHIPPED
    assert (await warehouse.shipment(shipment_id)).state == expected


async def test_the_newest_shipment_of_an_order_is_found(warehouse: Warehouse) -> None:
    await request(warehouse)
    other_saga = (("saga-id", "demo-2"), ("saga-step", "request_shipment"))
    newest = await warehouse.request_shipment.Do(WANTED, metadata=other_saga)
    found = await warehouse.shipments.GetShipment(
        fulfillment_pb2.GetShipmentRequest(order_id="order-1")
    )
    assert found.shipment.shipment_id == newest.shipment_id


@pytest.mark.parametrize(
    "wanted",
    [
        fulfillment_pb2.GetShipmentRequest(),
        fulfillment_pb2.GetShipmentRequest(shipment_id=str(uuid7()), order_id="order-1"),
        fulfillment_pb2.GetShipmentRequest(shipment_id="shipment-1"),
    ],
    ids=["no id", "both ids", "malformed id"],
)
async def test_a_shipment_is_read_by_exactly_one_id(
    warehouse: Warehouse, wanted: fulfillment_pb2.GetShipmentRequest
) -> None:
    async with refused() as refusal:
        await warehouse.shipments.GetShipment(wanted)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.fields) == ["shipment_id"]


async def test_an_unknown_shipment_is_not_found(warehouse: Warehouse) -> None:
    shipment_id = str(uuid7())
    async with refused() as refusal:
        await warehouse.shipment(shipment_id)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "SHIPMENT_NOT_FOUND")
    async with refused() as refusal:
        await warehouse.shipments.ConfirmShipment(left(shipment_id))
    assert refusal.reason == "SHIPMENT_NOT_FOUND"
