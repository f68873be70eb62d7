"""The books of the running mesh: what its orders leave behind, and what a hand does."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc
from uuid_utils import uuid7

from local.mesh import Mesh
from local.scenarios import DECLINED, VISA
from local.shop import Shop
from protos.inventory.v1 import inventory_pb2, inventory_pb2_grpc


async def reconcile(mesh: Mesh) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    """Exit code, orphans and summary of `saga reconcile --json`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", "--address", mesh.address("coordinator")),
        *("reconcile", "--json"),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    *orphans, last = map(json.loads, said.decode().splitlines())
    assert process.returncode is not None
    return process.returncode, [it["orphan"] for it in orphans], last["summary"]


async def test_honest_orders_leave_no_orphan_and_all_books_are_compared(
    mesh: Mesh, shop: Shop
) -> None:
    placed = [
        await shop.place({"coffee": 1}, VISA),
        await shop.place({"coffee": 1}, DECLINED),
        await shop.place({"coffee": 1, "grinder": 1}, VISA),
    ]
    for order in placed:
        async for _ in shop.watch(order.saga_id):
            pass

    _, orphans, summary = await reconcile(mesh)

    assert {order.saga_id for order in placed}.isdisjoint(it["sagaId"] for it in orphans)
    assert sorted(summary["participants"]) == ["fulfillment", "inventory", "order", "payment"]
    assert "unreachable" not in summary


async def test_a_step_done_by_hand_is_an_orphan_until_it_is_undone(mesh: Mesh) -> None:
    saga_id = f"hand-{uuid7().hex}"
    metadata = (("saga-id", saga_id), ("saga-step", "reserve_stock"))
    request = inventory_pb2.ReserveStockRequest(
        order_id=saga_id, items=[inventory_pb2.StockItem(product_id="filter", quantity=1)]
    )
    async with grpc.aio.insecure_channel(mesh.address("inventory")) as channel:
        step = inventory_pb2_grpc.ReserveStockStub(channel)
        await step.Do(request, metadata=metadata)
        code, orphans, _ = await reconcile(mesh)
        await step.Compensate(inventory_pb2.ReserveStockCompensation(), metadata=metadata)
        _, left, _ = await reconcile(mesh)

    (mine,) = (orphan for orphan in orphans if orphan["sagaId"] == saga_id)
    assert (mine["participant"], mine["kind"]) == ("inventory", "ORPHAN_KIND_UNKNOWN_SAGA")
    assert code == 1
    assert saga_id not in {orphan["sagaId"] for orphan in left}
