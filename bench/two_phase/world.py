"""What both ways stand on: two servers with fsync, and for the saga its four processes.

server `orders`:    2PC: databases tp_orders, tp_log    saga: saga_orders, saga_journal
server `inventory`: 2PC: database  tp_inventory         saga: saga_inventory
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import grpc.aio

from bench.two_phase.orders import Databases, Order, create
from bench.two_phase.prepared import create_log
from local.ports import HOST, free_port, free_ports
from local.postgres import Postgres
from local.processes import Process
from local.service import runs_sagas, serves_grpc, service
from protos.order.v1 import order_pb2
from protos.saga.v1 import saga_pb2, saga_pb2_grpc

DEFINITION = "bench-order"
LEASE_SECONDS = 3

_DEFINITIONS = Path(__file__).parent / "definitions"
_SETTINGS = {"max_prepared_transactions": 200, "max_connections": 400}
_STEPS = {"order": "order.v1.CreateOrder", "inventory": "inventory.v1.ReserveStock"}


class World:
    """The servers and their databases; `async with` runs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.orders = Postgres(folder / "orders", free_port(), settings=_SETTINGS)
        self.inventory = Postgres(folder / "inventory", free_port(), settings=_SETTINGS)

    async def __aenter__(self) -> Self:
        await self.orders.start()
        await self.inventory.start()
        self.two_phase = await self._databases("tp", "log")
        await create_log(self.two_phase.log)
        self.saga = await self._databases("saga", "journal")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.orders.stop()
        await self.inventory.stop()

    async def _databases(self, prefix: str, log: str) -> Databases:
        databases = Databases(
            await self.orders.create_database(f"{prefix}_orders"),
            await self.inventory.create_database(f"{prefix}_inventory"),
            await self.orders.create_database(f"{prefix}_{log}"),
        )
        await create(databases)
        return databases


class Sagas:
    """Two participants and two coordinators, of which the second has nothing to do by itself."""

    def __init__(self, world: World) -> None:
        self._logs = world.folder / "logs"
        databases = {"order": world.saga.orders, "inventory": world.saga.inventory}
        ports = dict(zip(_STEPS, free_ports(len(_STEPS)), strict=True))
        self._participants = [
            self._process(
                name,
                "bench.two_phase.steps",
                ports[name],
                {"POSTGRES_DSN": databases[name], "STEP": step},
            )
            for name, step in _STEPS.items()
        ]
        found = ",".join(f"{name}={HOST}:{port}" for name, port in ports.items())
        self.coordinators = [
            Coordinator(self._logs, number, world.saga.log, found) for number in (1, 2)
        ]

    def _process(self, name: str, module: str, port: int, env: dict[str, str]) -> Process:
        env = {"GRPC_HOST": HOST, "GRPC_PORT": str(port), **env}
        return service(name, module, folder=self._logs, ready=serves_grpc(port), env=env)

    async def __aenter__(self) -> Self:
        for process in (*self._participants, *(each.process for each in self.coordinators)):
            await process.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in (*(each.process for each in self.coordinators), *self._participants):
            await process.stop()


class Coordinator:
    """One of ours."""

    def __init__(self, logs: Path, number: int, dsn: str, participants: str) -> None:
        port, console = free_ports(2)
        self.address = f"{HOST}:{port}"
        self.process = service(
            f"coordinator-{number}",
            "coordinator",
            folder=logs,
            ready=runs_sagas(port, DEFINITION),
            env={
                "GRPC_HOST": HOST,
                "GRPC_PORT": str(port),
                "CONSOLE_PORT": str(console),
                "POSTGRES_DSN": dsn,
                "PARTICIPANTS": participants,
                "INSTANCE_ID": f"coordinator-{number}",
                "LEASE_SECONDS": str(LEASE_SECONDS),
                "DEFINITIONS_DIR": str(_DEFINITIONS),
            },
        )


class NotPlaced(Exception):
    """A saga did not end COMPLETED."""


class SagaCaller:
    """One caller; `async with` connects. Callers of one address share their connection."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._stub = saga_pb2_grpc.SagaServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close(None)

    async def place(self, order: Order) -> None:
        """Place an order: both databases have it when this returns.

        Raises:
            NotPlaced: it has ended otherwise, or not yet.
        """
        request = saga_pb2.StartSagaRequest(
            saga_id=order.order_id, definition=DEFINITION, wait=True
        )
        item = order_pb2.OrderItem(product_id=order.product_id, quantity=1)
        request.input.Pack(order_pb2.PlaceOrderInput(order_id=order.order_id, items=[item]))
        saga = (await self._stub.StartSaga(request)).saga
        if saga.state != saga_pb2.SAGA_STATE_COMPLETED:
            raise NotPlaced(f"{saga_pb2.SagaState.Name(saga.state)}: {saga.failure.message}")
