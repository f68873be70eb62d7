"""Operators on the running mesh: a refund that fails makes sagas STUCK, and people end them."""

from __future__ import annotations

import asyncio
import sys

import pytest
import pytest_asyncio
from google.protobuf import any_pb2
from uuid_utils import uuid7

from local.mesh import Mesh
from local.sandbox import Sandbox
from local.scenarios import VISA
from local.shop import Shop
from protos.order.v1 import order_pb2
from protos.saga.v1 import saga_pb2

HARD_TO_UNDO = """
name: hard-to-undo
input: order.v1.PlaceOrderInput
keys: {customer_id: input.customer_id}
steps:
- name: charge_payment
  service: payment.v1.ChargePayment
  request: |
    payment.v1.ChargePaymentRequest{
      order_id: input.order_id,
      amount: google.type.Money{currency_code: 'EUR', units: 5},
      payment_method: input.payment_method}
  compensation_retry: {max_attempts: 1}
- name: reserve_stock
  service: inventory.v1.ReserveStock
  request: |
    inventory.v1.ReserveStockRequest{
      order_id: input.order_id,
      items: [inventory.v1.StockItem{product_id: 'grinder', quantity: 1}]}
"""
"""Charges, finds nothing in stock, and has to give the money back."""
REFUNDS_FAIL = {"faults": [{"operation": "create_refund", "kind": "refund_fails", "rate": 1.0}]}


@pytest_asyncio.fixture
async def customer(shop: Shop, sandbox: Sandbox) -> str:
    """Somebody whose refunds fail; nobody else is called like that."""
    await shop.definitions.RegisterDefinition(
        saga_pb2.RegisterDefinitionRequest(source=HARD_TO_UNDO)
    )
    await sandbox.switch(REFUNDS_FAIL)
    return uuid7().hex


async def stick(shop: Shop, customer: str) -> saga_pb2.Saga:
    """A STUCK saga of the customer."""
    order = order_pb2.PlaceOrderInput(
        order_id=str(uuid7()), customer_id=customer, payment_method=VISA
    )
    packed = any_pb2.Any()
    packed.Pack(order)
    request = saga_pb2.StartSagaRequest(definition="hard-to-undo", input=packed)
    saga: saga_pb2.Saga = (await shop.sagas.StartSaga(request)).saga
    watched = shop.sagas.WatchSaga(saga_pb2.WatchSagaRequest(saga_id=saga.saga_id))
    while (await watched.read()).event.state != saga_pb2.SAGA_STATE_STUCK:
        pass
    watched.cancel()
    return await shop.saga(saga.saga_id)


async def saga_command(mesh: Mesh, *arguments: str) -> tuple[int, str]:
    """Exit code and output of the `saga` command, in a pipe."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", "--address", mesh.address("coordinator"), *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_a_stuck_saga_is_explained_and_ended_by_hand(shop: Shop, customer: str) -> None:
    stuck = await stick(shop, customer)
    explain = saga_pb2.ExplainSagaRequest(saga_id=stuck.saga_id)
    answer = await shop.sagas.ExplainSaga(explain)
    assert "It halted: step charge_payment, FAILED_PRECONDITION REFUND_FAILED" in answer.explanation
    assert list(answer.legal_verbs) == ["RetrySaga", "SkipStep", "AbandonSaga"]
    (payment,) = answer.participants
    assert (payment.participant, payment.circuit) == ("payment", saga_pb2.CIRCUIT_STATE_CLOSED)
    skip = saga_pb2.SkipStepRequest(
        saga_id=stuck.saga_id,
        step="charge_payment",
        reason="paid back by bank transfer",
        actor="ann",
        revision=stuck.revision,
    )
    ended = (await shop.sagas.SkipStep(skip)).saga
    assert ended.state == saga_pb2.SAGA_STATE_COMPENSATED
    events = [event async for event in shop.watch(stuck.saga_id)]
    assert (events[-1].actor, events[-1].note) == ("ann", "paid back by bank transfer")


async def test_all_stuck_sagas_of_a_customer_are_ended_by_one_command(
    mesh: Mesh, shop: Shop, customer: str
) -> None:
    stuck = [await stick(shop, customer) for _ in range(2)]
    everything = ("--all", "--key", f"customer_id={customer}", "--reason", "by hand", "--actor")
    abandon = ("abandon", *everything, "ann")
    code, output = await saga_command(mesh, *abandon, "--dry-run")
    assert code == 0
    assert {tuple(line.split("\t")[:4]) for line in output.splitlines()} == {
        (saga.saga_id, "hard-to-undo", "STUCK", "WOULD_ASK") for saga in stuck
    }
    assert [await shop.saga(saga.saga_id) for saga in stuck] == stuck
    assert (await saga_command(mesh, *abandon))[0] == 2  # nobody is there to confirm
    code, output = await saga_command(mesh, *abandon, "--yes")
    assert (code, output.count("\tACCEPTED\t")) == (0, 2)
    for saga in stuck:
        assert (await shop.saga(saga.saga_id)).state == saga_pb2.SAGA_STATE_ABANDONED
    assert (await saga_command(mesh, *abandon, "--yes"))[0] == 1  # nothing is left to ask


@pytest.mark.parametrize("command", ["explain", "events"])
async def test_the_command_shows_what_happened_to_a_stuck_saga(
    mesh: Mesh, shop: Shop, customer: str, command: str
) -> None:
    stuck = await stick(shop, customer)
    code, output = await saga_command(mesh, command, stuck.saga_id)
    assert code == 0
    assert "REFUND_FAILED" in output
