"""`coordinator --workers 2` as processes, on a database of its own and one participant."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import psutil
import psycopg
import pytest_asyncio
from google.protobuf import any_pb2
from google.protobuf.message import Message
from uuid_utils import uuid7

from local.ports import HOST, free_port, is_free
from local.processes import Process, is_running
from local.service import runs_sagas
from local.until import until
from mesh.server import Server
from mesh.settings import ServiceSettings
from mesh.step import StepCall, StepTypes
from protos.order.v1 import order_pb2
from protos.saga.v1 import saga_pb2, saga_pb2_grpc

DEFINITION = """
name: small-order
input: order.v1.PlaceOrderInput
steps:
- name: create_order
  service: order.v1.CreateOrder
  request: |
    order.v1.CreateOrderRequest{
      order_id: input.order_id, customer_id: input.customer_id, items: input.items}
"""
NAMES = {"shop-1", "shop-2"}


class CreateOrder:
    """Answers when it may, and remembers for which sagas it was done."""

    types = StepTypes.of("order.v1.CreateOrder")

    def __init__(self) -> None:
        self.done: set[str] = set()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def do(self, call: StepCall, request: Message) -> Message:
        await self.may_answer.wait()
        self.done.add(call.saga_id)
        return order_pb2.CreateOrderResponse()

    async def compensate(self, call: StepCall, compensation: Message) -> Message:
        self.done.discard(call.saga_id)
        return order_pb2.CreateOrderCompensated()


@pytest_asyncio.fixture
async def step() -> AsyncIterator[tuple[CreateOrder, int]]:
    """The participant and its port."""
    create_order = CreateOrder()
    server = Server(ServiceSettings(grpc_host=HOST, grpc_port=0, shutdown_grace_seconds=0))
    server.add_step(create_order)
    await server.start()
    yield create_order, server.port
    await server.stop()


class Workers(Process):
    """A coordinator with two workers."""

    def __init__(self, folder: Path, dsn: str, participant: int) -> None:
        (folder / "small-order.yaml").write_text(DEFINITION)
        self.port = free_port()
        self.environment = {
            **os.environ,
            "GRPC_HOST": HOST,
            "GRPC_PORT": str(self.port),
            "CONSOLE_PORT": "0",
            "POSTGRES_DSN": dsn,
            "PARTICIPANTS": f"order={HOST}:{participant}",
            "DEFINITIONS_DIR": str(folder),
            "INSTANCE_ID": "shop",
            "LEASE_SECONDS": "1",
        }
        super().__init__(
            "workers",
            [sys.executable, "-m", "coordinator", "--workers", "2"],
            log=folder / "workers.log",
            ready=runs_sagas(self.port, "small-order"),
            env=self.environment,
        )
        self._dsn = dsn

    @property
    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children()

    async def owners(self, saga_ids: Sequence[str]) -> set[str]:
        return {owner for owner, _ in await self._sagas(saga_ids)}

    async def states(self, saga_ids: Sequence[str]) -> Counter[str]:
        return Counter(state for _, state in await self._sagas(saga_ids))

    async def _sagas(self, saga_ids: Sequence[str]) -> list[tuple[str, str]]:
        async with await psycopg.AsyncConnection.connect(self._dsn) as connection:
            query = "select owner, state from saga.saga where saga_id = any(%s)"
            return await (await connection.execute(query, [list(saga_ids)])).fetchall()


@pytest_asyncio.fixture
async def coordinator(
    tmp_path: Path, postgres_dsn: str, step: tuple[CreateOrder, int]
) -> AsyncIterator[Workers]:
    async with Workers(tmp_path, postgres_dsn, step[1]) as workers:
        yield workers


@asynccontextmanager
async def connections(port: int, count: int) -> AsyncIterator[list[saga_pb2_grpc.SagaServiceStub]]:
    """Clients with a connection each, which the kernel deals out to the workers."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with AsyncExitStack() as stack:
        channels = [
            grpc.aio.insecure_channel(f"{HOST}:{port}", options=options) for _ in range(count)
        ]
        for channel in channels:
            await stack.enter_async_context(channel)
        yield [saga_pb2_grpc.SagaServiceStub(channel) for channel in channels]


async def start(stub: saga_pb2_grpc.SagaServiceStub, saga_id: str) -> None:
    packed = any_pb2.Any()
    packed.Pack(order_pb2.PlaceOrderInput(order_id=saga_id, customer_id="ada"))
    request = saga_pb2.StartSagaRequest(saga_id=saga_id, definition="small-order", input=packed)
    await stub.StartSaga(request, wait_for_ready=True, timeout=20)


async def start_at_both(coordinator: Workers) -> list[str]:
    """Start sagas over connections of their own until each worker has some."""
    saga_ids: list[str] = []

    async def both() -> bool:
        async with connections(coordinator.port, 8) as stubs:
            new = [str(uuid7()) for _ in stubs]
            saga_ids.extend(new)
            await asyncio.gather(*map(start, stubs, new))
        return await coordinator.owners(saga_ids) == NAMES

    assert await until(both, seconds=20)
    return saga_ids


async def wait_until_completed(coordinator: Workers, saga_ids: Sequence[str]) -> None:
    async def completed() -> bool:
        return await coordinator.states(saga_ids) == {"COMPLETED": len(saga_ids)}

    assert await until(completed, seconds=20), await coordinator.states(saga_ids)


async def test_sagas_of_both_workers_are_cancelled_and_watched_at_either(
    coordinator: Workers, step: tuple[CreateOrder, int]
) -> None:
    create_order, _ = step
    create_order.may_answer.clear()
    saga_ids = await start_at_both(coordinator)
    async with connections(coordinator.port, 1) as (stub,):
        watching = [asyncio.create_task(end_of(stub, saga_id)) for saga_id in saga_ids]
        await asyncio.gather(*(cancel(stub, saga_id) for saga_id in saga_ids))
        create_order.may_answer.set()
        assert set(await asyncio.gather(*watching)) == {saga_pb2.SAGA_STATE_COMPENSATED}
    assert create_order.done == set()


async def cancel(stub: saga_pb2_grpc.SagaServiceStub, saga_id: str) -> None:
    request = saga_pb2.CancelSagaRequest(saga_id=saga_id, reason="no", actor="ada")
    await stub.CancelSaga(request, wait_for_ready=True, timeout=20)


async def end_of(stub: saga_pb2_grpc.SagaServiceStub, saga_id: str) -> int:
    request = saga_pb2.WatchSagaRequest(saga_id=saga_id)
    watch = stub.WatchSaga(request, wait_for_ready=True, timeout=20)
    states: list[int] = [message.event.state async for message in watch]
    return states[-1]


async def test_a_killed_worker_comes_back_and_loses_nothing(
    coordinator: Workers, step: tuple[CreateOrder, int]
) -> None:
    create_order, _ = step
    create_order.may_answer.clear()
    saga_ids = await start_at_both(coordinator)
    victim, survivor = coordinator.workers
    victim.kill()
    create_order.may_answer.set()
    await wait_until_completed(coordinator, saga_ids)
    assert create_order.done == set(saga_ids)

    async def again() -> bool:
        return len(coordinator.workers) == 2 and victim not in coordinator.workers

    assert await until(again, seconds=20)
    assert survivor in coordinator.workers
    await start_at_both(coordinator)


async def test_the_port_is_theirs_until_they_were_told_to_end_and_have_drained(
    coordinator: Workers,
) -> None:
    await asyncio.gather(*(is_refused_the_port(coordinator, number) for number in ("1", "2")))
    workers = coordinator.workers
    assert coordinator.pid is not None
    os.kill(coordinator.pid, signal.SIGTERM)

    async def ended() -> bool:
        return coordinator.pid is None

    assert await until(ended, seconds=15)
    assert not any(is_running(worker) for worker in workers)
    said = [json.loads(line) for line in coordinator.log.read_text().splitlines()]
    assert {line.get("worker") for line in said} == NAMES
    assert sum(line["event"] == "server.stopped" for line in said) == 2
    assert is_free(coordinator.port)


async def is_refused_the_port(coordinator: Workers, workers: str) -> None:
    """Another coordinator, with or without workers, ends and says why."""
    more = {"INSTANCE_ID": "other", "WORKERS": workers, "CONSOLE_PORT": "0"}
    second = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "coordinator",
        env={**coordinator.environment, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    async with asyncio.timeout(30):
        said, _ = await second.communicate()
    assert second.returncode == 1
    assert f"cannot listen on {HOST}:{coordinator.port}" in said.decode()
