"""The real grpcurl, with nothing but reflection to know the mesh by."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from uuid_utils import uuid7

from local.commands import commands
from local.mesh import PARTICIPANTS, Mesh
from local.ports import Ports
from tests.e2e.grpcurl import Grpcurl

README = Path(__file__).parents[2] / "README.md"
COFFEE = {
    "product_id": "coffee",
    "quantity": 1,
    "unit_price": {"currency_code": "EUR", "units": "12", "nanos": 500_000_000},
}
RESERVATION = {"order_id": "by-hand", "items": [{"product_id": "spoon", "quantity": 1}]}


def saga_input(order_id: str, **changes: object) -> dict[str, object]:
    return {
        "@type": "type.googleapis.com/order.v1.PlaceOrderInput",
        "order_id": order_id,
        "customer_id": "ada",
        "items": [COFFEE],
        "payment_method": "pm_card_visa",
        **changes,
    }


@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("coordinator", "saga.v1.SagaService"),
        ("coordinator", "saga.v1.DefinitionService"),
        ("order", "order.v1.OrderService"),
        ("order", "order.v1.CreateOrder"),
        ("order", "order.v1.ConfirmOrder"),
        ("inventory", "inventory.v1.InventoryService"),
        ("inventory", "inventory.v1.ReserveStock"),
        ("payment", "payment.v1.PaymentService"),
        ("payment", "payment.v1.ChargePayment"),
        ("fulfillment", "fulfillment.v1.FulfillmentService"),
        ("fulfillment", "fulfillment.v1.RequestShipment"),
    ],
)
def test_a_server_lists_and_describes_what_it_serves(
    name: str, service: str, grpcurl: Grpcurl
) -> None:
    listed = grpcurl.ask(name, "list").split()
    assert {service, "grpc.health.v1.Health"} <= set(listed)
    described = grpcurl.ask(name, f"describe {service}")
    assert f"{service} is a service:" in described
    assert "rpc " in described


def test_a_step_service_has_exactly_do_and_compensate(grpcurl: Grpcurl) -> None:
    methods = grpcurl.ask("inventory", "list inventory.v1.ReserveStock").split()
    assert methods == [
        "inventory.v1.ReserveStock.Compensate",
        "inventory.v1.ReserveStock.Do",
    ]


def test_every_command_that_make_up_prints_works_as_printed(grpcurl: Grpcurl) -> None:
    name = f"try-{uuid7().hex[-8:]}"
    for command in commands(name, str(uuid7())):
        said = grpcurl.run(command)
        assert said.returncode == 0, f"{command.title}: {said.stderr}"


def test_every_command_of_the_readme_works_as_printed(mesh: Mesh, grpcurl: Grpcurl) -> None:
    found = re.search(r"## With grpcurl.*?```sh\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    script = found[1].replace("grpcurl -plaintext", f"{grpcurl.binary} -plaintext")
    for name in ("coordinator", *PARTICIPANTS):
        usual = Ports.model_fields[name].default
        script = script.replace(f"127.0.0.1:{usual} ", f"{mesh.address(name)} ")
    said = subprocess.run(
        ["bash", "-eu", "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert said.returncode == 0, said.stderr


def test_an_order_can_be_placed_and_its_saga_watched_to_the_end(grpcurl: Grpcurl) -> None:
    request = {
        "request_id": uuid7().hex,
        "customer_id": "ada",
        "items": [COFFEE],
        "payment_method": "pm_card_visa",
    }
    placed = grpcurl.call("order.v1.OrderService/PlaceOrder", request)[0]
    saga = {"saga_id": placed["saga_id"]}
    events = grpcurl.call("saga.v1.SagaService/WatchSaga", saga)
    assert events[0]["event"]["kind"] == "SAGA_EVENT_KIND_STARTED"
    assert events[-1]["event"]["state"] == "SAGA_STATE_COMPLETED"
    found = grpcurl.call("saga.v1.SagaService/GetSaga", saga)[0]["saga"]
    assert {step["state"] for step in found["steps"]} == {"STEP_STATE_DONE"}
    assert found["input"]["@type"].endswith("/order.v1.PlaceOrderInput")
    order = {"order_id": placed["order_id"]}
    shown = grpcurl.call("order.v1.OrderService/GetOrder", order)[0]["order"]
    assert shown["state"] == "ORDER_STATE_CONFIRMED"


def test_a_saga_is_started_with_json_whose_type_only_the_coordinator_reflects(
    grpcurl: Grpcurl,
) -> None:
    order_id = str(uuid7())
    request = {
        "saga_id": f"by-hand-{order_id}",
        "definition": "place-order",
        "input": saga_input(order_id),
    }
    method = "saga.v1.SagaService/StartSaga"
    started = grpcurl.call(method, request)[0]["saga"]
    assert started["saga_id"] == request["saga_id"]
    assert started["keys"]["order_id"] == order_id
    again = grpcurl.call(method, request)[0]["saga"]
    assert again["create_time"] == started["create_time"]
    request["input"] = saga_input(order_id, customer_id="bob")
    refused = grpcurl.refusal(method, request)
    assert "Code: AlreadyExists" in refused
    assert "SAGA_ID_REUSED" in refused


def test_a_step_is_done_by_hand_once_and_undone(grpcurl: Grpcurl) -> None:
    metadata = {"saga-id": f"hand-{uuid7().hex}", "saga-step": "reserve_stock"}
    step = "inventory.v1.ReserveStock"
    grpcurl.call("inventory.v1.InventoryService/SetStock", {"product_id": "spoon", "available": 9})
    done = [grpcurl.call(f"{step}/Do", RESERVATION, metadata) for _ in range(2)]
    assert done[0] == done[1]
    assert spoons(grpcurl) == 8
    undo = {"request": RESERVATION}
    for _ in range(2):
        grpcurl.call(f"{step}/Compensate", undo, metadata)
    assert spoons(grpcurl) == 9
    late = grpcurl.refusal(f"{step}/Do", RESERVATION, metadata)
    assert "Code: FailedPrecondition" in late
    assert "STEP_ALREADY_COMPENSATED" in late


@pytest.mark.parametrize("method", ["Do", "Compensate"])
def test_a_step_without_its_saga_says_how_to_set_it(method: str, grpcurl: Grpcurl) -> None:
    said = grpcurl.refusal(f"inventory.v1.ReserveStock/{method}", {})
    assert "Code: InvalidArgument" in said
    assert "grpcurl -H 'saga-id: demo-1' -H 'saga-step: reserve_stock'" in said


def spoons(grpcurl: Grpcurl) -> int:
    method = "inventory.v1.InventoryService/GetStock"
    return int(grpcurl.call(method, {"product_id": "spoon"})[0]["stock"]["available"])
