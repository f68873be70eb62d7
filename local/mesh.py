"""The whole mesh as processes of this machine: two databases, the payment sandbox, five services.

    coordinator ─┬─ order        PostgreSQL `orders`
    PostgreSQL   ├─ inventory    MongoDB `inventory`
    `coordinator`├─ payment      PostgreSQL `payments`, payment sandbox
                 └─ fulfillment  PostgreSQL `fulfillment`

Everything a run leaves behind is in one folder: the data and the logs of all processes. There may
be more coordinators than one: `coordinator`, `coordinator-2` and so on, all on one database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from local.folder import owned
from local.mongo import Mongo
from local.ports import HOST, Ports, free_ports
from local.postgres import Postgres
from local.processes import Process
from local.service import runs_sagas, serves_grpc, serves_http, service

PARTICIPANTS = ("order", "inventory", "payment", "fulfillment")
POSTGRES_DATABASES = {
    "coordinator": "coordinator",
    "order": "orders",
    "payment": "payments",
    "fulfillment": "fulfillment",
}
MONGODB_DATABASE = "inventory"

Route = Callable[[str, str, int], int]
"""The port at which a process reaches another, by its name and the other's name and own port."""


def straight(_client: str, _server: str, port: int) -> int:
    """The route with nothing in between."""
    return port


class Mesh:
    """All processes; `async with` starts them, and stops them on every way out.

    Each is an attribute, to be killed and started again: `await mesh.services["payment"].kill()`.

    Args:
        folder: where data and logs go.
        ports: where each process listens; coordinators after the first take free ones.
        coordinators: how many there are.
        lease_seconds: how long a dead coordinator keeps its sagas.
        route: what is between a process and what it stands on; nothing by default.
    """

    def __init__(
        self,
        folder: Path,
        ports: Ports,
        *,
        coordinators: int = 1,
        lease_seconds: float = 3,
        route: Route = straight,
    ) -> None:
        self.folder = folder
        self.ports = ports
        self.coordinators = tuple(_coordinator(number) for number in range(1, coordinators + 1))
        self._lease_seconds = lease_seconds
        self._route = route
        self.listening = _listening(ports, self.coordinators)
        self.postgres = Postgres(folder / "postgres", ports.postgres)
        self.mongodb = Mongo(folder / "mongodb", ports.mongodb)
        self.sandbox_url = f"http://{HOST}:{ports.sandbox}"
        self.sandbox = self._sandbox()
        self.services = {name: self._service(name) for name in (*self.coordinators, *PARTICIPANTS)}
        self._exit = ExitStack()

    @property
    def processes(self) -> dict[str, Process]:
        """Everything that can be killed, by name."""
        stores = {each.name: each for each in (self.postgres, self.mongodb, self.sandbox)}
        return {**stores, **self.services}

    def address(self, name: str) -> str:
        """Where a service listens, host:port."""
        return f"{HOST}:{self.listening[name]}"

    def dsn(self, name: str) -> str:
        """The PostgreSQL database of a service."""
        return self.postgres.dsn(POSTGRES_DATABASES[name])

    async def start(self) -> None:
        """Start everything and return once all of it is ready.

        Raises:
            FolderTaken: another mesh runs on this folder.
            PortTaken: somebody else listens on one of the ports.
            StartFailed: a process did not get ready; nothing runs then.
        """
        self._exit.enter_context(owned(self.folder))
        try:
            self.ports.check_free()
            await _all(process.start() for process in (self.postgres, self.mongodb, self.sandbox))
            for database in POSTGRES_DATABASES.values():
                await self.postgres.create_database(database)
            await _all(self.services[name].start() for name in PARTICIPANTS)
            # They ask the participants what they serve.
            await _all(self.services[name].start() for name in self.coordinators)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the services, then what they stand on; each may finish its calls in flight."""
        await _all(process.stop() for process in self.services.values())
        await _all(process.stop() for process in (self.sandbox, self.mongodb, self.postgres))
        self._exit.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def _sandbox(self) -> Process:
        ledger = self.folder.resolve() / "sandbox.sqlite3"
        return service(
            "sandbox",
            "payment_svc.sandbox",
            folder=self.folder / "logs",
            ready=serves_http(f"{self.sandbox_url}/_sandbox/health"),
            env={"SANDBOX_PORT": str(self.ports.sandbox), "SANDBOX_LEDGER": str(ledger)},
        )

    def _service(self, name: str) -> Process:
        port = self.listening[name]
        coordinates = name in self.coordinators
        return service(
            name,
            "coordinator" if coordinates else f"{name}_svc",
            folder=self.folder / "logs",
            ready=runs_sagas(port, "place-order") if coordinates else serves_grpc(port),
            env={
                "GRPC_HOST": HOST,
                "GRPC_PORT": str(port),
                **(self._coordinates(name) if coordinates else self._participates(name)),
            },
        )

    def _coordinates(self, name: str) -> dict[str, str]:
        """What a coordinator is told by environment variables."""
        found = (f"{each}={HOST}:{self._way(name, each)}" for each in PARTICIPANTS)
        return {
            "POSTGRES_DSN": self._database(name, "coordinator"),
            "PARTICIPANTS": ",".join(found),
            "CONSOLE_PORT": str(self.listening[_console(name)]),
            "INSTANCE_ID": f"coordinator-{self.coordinators.index(name) + 1}",
            "LEASE_SECONDS": str(self._lease_seconds),
        }

    def _participates(self, name: str) -> dict[str, str]:
        """What a participant is told by environment variables."""
        settings = {}
        if name in POSTGRES_DATABASES:
            settings["POSTGRES_DSN"] = self._database(name, name)
        match name:
            case "order":
                ways = (f"{HOST}:{self._way(name, each)}" for each in self.coordinators)
                settings["COORDINATOR_ADDRESS"] = f"ipv4:{','.join(ways)}"
            case "inventory":
                port = self._route(name, "mongodb", self.ports.mongodb)
                settings["MONGODB_URI"] = f"mongodb://{HOST}:{port}"
                settings["MONGODB_DATABASE"] = MONGODB_DATABASE
            case "payment":
                port = self._route(name, "sandbox", self.ports.sandbox)
                settings["STRIPE_API_KEY"] = "sk_test_sandbox"
                settings["STRIPE_API_BASE"] = f"http://{HOST}:{port}"
        return settings

    def _database(self, client: str, owner: str) -> str:
        port = self._route(client, "postgres", self.ports.postgres)
        return self.postgres.dsn(POSTGRES_DATABASES[owner], port=port)

    def _way(self, client: str, server: str) -> int:
        return self._route(client, server, self.listening[server])


def _coordinator(number: int) -> str:
    return "coordinator" if number == 1 else f"coordinator-{number}"


def _console(coordinator: str) -> str:
    return coordinator.replace("coordinator", "console")


def _listening(ports: Ports, coordinators: Iterable[str]) -> dict[str, int]:
    """The port of every process by name, and of the coordinators' consoles."""
    listening = dict(ports)
    for name in coordinators:
        if name not in listening:
            listening[name], listening[_console(name)] = free_ports(2)
    return listening


async def _all(work: Iterable[Coroutine[object, object, None]]) -> None:
    """Do all at the same time; the first failure ends the others and is the one to hear about."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
