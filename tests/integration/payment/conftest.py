from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import httpx
import psycopg
import pytest
import pytest_asyncio
from psycopg import sql
from uuid_utils import uuid7

from local.ports import HOST, free_port
from local.postgres import create_database
from local.processes import Process
from local.service import serves_http, service
from mesh.migrate import migrate
from tests.integration.payment.till import Sandbox, Till, open_till


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _sandbox_process(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[Process, str]]:
    """The sandbox of this run; every test has sagas of its own in its ledger."""
    folder, port = tmp_path_factory.mktemp("sandbox"), free_port()
    url = f"http://{HOST}:{port}"
    process = service(
        "sandbox",
        "payment_svc.sandbox",
        folder=folder,
        ready=serves_http(f"{url}/_sandbox/health"),
        env={"SANDBOX_PORT": str(port), "SANDBOX_LEDGER": str(folder / "ledger.sqlite3")},
    )
    async with process:
        yield process, url


@pytest_asyncio.fixture
async def sandbox(_sandbox_process: tuple[Process, str]) -> AsyncIterator[Sandbox]:
    """The sandbox with every switch at its default."""
    process, url = _sandbox_process
    async with httpx.AsyncClient(base_url=url) as admin:
        sandbox = Sandbox(process, url, admin)
        await sandbox.faults()
        yield sandbox


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def payment_dsn(_postgres_server: str) -> AsyncIterator[str]:
    """The migrated database of this run; every test has a saga and an order of its own in it."""
    name = f"payments_{uuid7().hex}"
    await create_database(_postgres_server, name)
    dsn = urlunsplit(urlsplit(_postgres_server)._replace(path=f"/{name}"))
    await migrate(dsn, "payment_svc")
    yield dsn
    async with await psycopg.AsyncConnection.connect(_postgres_server, autocommit=True) as admin:
        await admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest_asyncio.fixture
async def till(payment_dsn: str, sandbox: Sandbox) -> AsyncIterator[Till]:
    """The service, with a saga to call it for."""
    async with open_till(payment_dsn, sandbox.url) as till:
        yield till
