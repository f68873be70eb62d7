"""The whole mesh as processes of this machine: two databases, the payment sandbox, five services.

    coordinator ─┬─ order        PostgreSQL `orders`
    PostgreSQL   ├─ inventory    MongoDB `inventory`
    `coordinator`├─ payment      PostgreSQL `payments`, payment sandbox
                 └─ fulfillment  PostgreSQL `fulfillment`

Everything a run leaves behind is in one folder: the data and the logs of all processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from local.folder import owned
from local.mongo import Mongo
from local.ports import HOST, Ports
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


class Mesh:
    """All processes; `async with` starts them, and stops them on every way out.

    Each is an attribute, to be killed and started again: `await mesh.services["payment"].kill()`.
    """

    def __init__(self, folder: Path, ports: Ports) -> None:
        self.folder = folder
        self.ports = ports
        self.postgres = Postgres(folder / "postgres", ports.postgres)
        self.mongodb = Mongo(folder / "mongodb", ports.mongodb)
        self.sandbox_url = f"http://{HOST}:{ports.sandbox}"
        self.sandbox = self._sandbox()
        self.services = {name: self._service(name) for name in ("coordinator", *PARTICIPANTS)}
        self._exit = ExitStack()

    def address(self, name: str) -> str:
        """Where a service listens, host:port."""
        return f"{HOST}:{getattr(self.ports, name)}"

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
            await self.services["coordinator"].start()  # it asks them all what they serve
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
        port: int = getattr(self.ports, name)
        coordinates = name == "coordinator"
        return service(
            name,
            name if coordinates else f"{name}_svc",
            folder=self.folder / "logs",
            ready=runs_sagas(port, "place-order") if coordinates else serves_grpc(port),
            env=self._settings(name),
        )

    def _settings(self, name: str) -> dict[str, str]:
        """What a service is told by environment variables."""
        settings = {"GRPC_HOST": HOST, "GRPC_PORT": str(getattr(self.ports, name))}
        if name in POSTGRES_DATABASES:
            settings["POSTGRES_DSN"] = self.dsn(name)
        match name:
            case "coordinator":
                found = (f"{each}={self.address(each)}" for each in PARTICIPANTS)
                settings["PARTICIPANTS"] = ",".join(found)
                settings["CONSOLE_PORT"] = str(self.ports.console)
                settings["INSTANCE_ID"] = "coordinator-1"
            case "order":
                settings["COORDINATOR_ADDRESS"] = self.address("coordinator")
            case "inventory":
                settings["MONGODB_URI"] = self.mongodb.uri
                settings["MONGODB_DATABASE"] = MONGODB_DATABASE
            case "payment":
                settings["STRIPE_API_KEY"] = "sk_test_sandbox"
                settings["STRIPE_API_BASE"] = self.sandbox_url
        return settings


async def _all(work: Iterable[Coroutine[object, object, None]]) -> None:
    """Do all at the same time; the first failure ends the others and is the one to hear about."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
