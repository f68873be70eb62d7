"""The service as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import grpc.aio

from local.ports import free_port
from protos.inventory.v1 import inventory_pb2, inventory_pb2_grpc


async def test_the_service_serves_until_sigterm_and_leaves_in_order(
    mongodb_uri: str, mongo_database: str
) -> None:
    port = free_port()
    settings = {
        "MONGODB_URI": mongodb_uri,
        "MONGODB_DATABASE": mongo_database,
        "GRPC_HOST": "127.0.0.1",
        "GRPC_PORT": str(port),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "inventory_svc", env={**os.environ, **settings}
    )
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            service = inventory_pb2_grpc.InventoryServiceStub(channel)
            request = inventory_pb2.SetStockRequest(product_id="apple", available=5)
            answer = await service.SetStock(request, wait_for_ready=True, timeout=30)
            assert answer.stock.available == 5
    finally:
        process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
