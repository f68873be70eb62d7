"""What a database that does not let us in says of itself, and services that wait for theirs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import grpc.aio
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from local.ports import free_port
from mesh.errors import Retry
from mesh.health import LIVENESS
from mesh.waiting import DatabaseRefuses, reach
from tests.link import Link


@asynccontextmanager
async def refusing(sqlstate: str, *once: str) -> AsyncIterator[str]:
    """The DSN of a server that refuses every client; the first one only, with an address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.mesh.refusing_server", sqlstate, *once),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    try:
        yield f"postgresql://postgres:secret@127.0.0.1:{port}/orders"
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def nobody() -> AsyncIterator[str]:
    """The DSN of no server."""
    yield f"postgresql://ann:secret@127.0.0.1:{free_port()}/orders"


@pytest.mark.parametrize(
    "server",
    [nobody, lambda: refusing("57P03")],
    ids=["nobody there", "starting up"],
)
async def test_a_database_that_may_come_back_is_away(
    server: Callable[[], AbstractAsyncContextManager[str]],
) -> None:
    async with server() as dsn:
        with pytest.raises(Retry, match="is away") as away:
            await reach(dsn)
    assert "secret" not in str(away.value)


@pytest.mark.parametrize("sqlstate", ["28P01", "28000", "3D000"])
async def test_a_refusal_that_will_stay_is_said_at_once_whatever_its_language(
    sqlstate: str,
) -> None:
    async with refusing(sqlstate) as dsn:
        with pytest.raises(DatabaseRefuses, match="check its host, port, user") as refused:
            await reach(dsn)
    assert "nein" in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_a_server_that_comes_up_between_two_looks_is_asked_again(postgres_dsn: str) -> None:
    """It refused us as one that starts up, and then it was found to let others in."""
    url = urlsplit(postgres_dsn)
    async with refusing("57P03", url.hostname or "", str(url.port)) as dsn:
        await reach(dsn.replace("/orders", url.path))


# --- services -------------------------------------------------------------------------------------

_SETTINGS = {
    "coordinator": {"PARTICIPANTS": "order=127.0.0.1:1", "CONSOLE_PORT": "0"},
    "order_svc": {"COORDINATOR_ADDRESS": "127.0.0.1:1"},
    "payment_svc": {"STRIPE_API_KEY": "sk_test_1", "STRIPE_API_BASE": "http://127.0.0.1:1"},
    "fulfillment_svc": {},
}


@asynccontextmanager
async def service(
    name: str, log: Path, **settings: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A service as a process of its own."""
    settings = {"GRPC_HOST": "127.0.0.1", "GRPC_PORT": "0", "LOG_FORMAT": "json", **settings}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", name),
            env={**os.environ, **_SETTINGS.get(name, {}), **settings},
            stdout=output,
            stderr=output,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def said(log: Path, event: str) -> dict[str, object]:
    """Wait until a service has logged something."""
    async with asyncio.timeout(60):
        while True:
            for line in (await asyncio.to_thread(log.read_text)).splitlines():
                entry = json.loads(line)
                if entry["event"] == event:
                    return dict(entry)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("name", list(_SETTINGS))
async def test_a_service_waits_for_its_database_and_leaves_at_once_when_told(
    name: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with nobody() as dsn, service(name, log, POSTGRES_DSN=dsn) as process:
        words = await said(log, "start.waiting")
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await process.wait() == 0
    assert words["waits_for"] == f"PostgreSQL at 127.0.0.1:{urlsplit(dsn).port}/orders"
    assert "secret" not in log.read_text()


async def test_a_coordinator_serves_once_its_database_is_back(
    postgres_dsn: str, tmp_path: Path
) -> None:
    url, log = urlsplit(postgres_dsn), tmp_path / "log"
    async with Link(url.hostname or "", url.port or 5432) as link:
        link.cut()
        dsn = url._replace(netloc=f"postgres@127.0.0.1:{link.port}").geturl()
        async with service("coordinator", log, POSTGRES_DSN=dsn) as process:
            await said(log, "start.waiting")
            link.mend()
            await said(log, "health.ready")
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0


async def test_a_service_that_will_never_be_let_in_ends_at_once_and_says_why(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    async with (
        refusing("28P01") as dsn,
        service("order_svc", log, POSTGRES_DSN=dsn) as process,
        asyncio.timeout(60),
    ):
        assert await process.wait() == 1
    words = await said(log, "service.failed")
    assert "lets nobody in by POSTGRES_DSN" in str(words["why"])


@pytest.mark.parametrize("name", list(_SETTINGS))
async def test_a_service_ends_at_once_when_a_newer_release_has_migrated_its_database(
    name: str, postgres_dsn: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    table = {"coordinator": "coordinator_journal_version"}.get(name, f"{name}_version")
    async with await psycopg.AsyncConnection.connect(postgres_dsn) as newer:
        await newer.execute(f"CREATE TABLE {table} (version_num text)".encode())
        await newer.execute(f"INSERT INTO {table} VALUES ('next')".encode())

    async with service(name, log, POSTGRES_DSN=postgres_dsn) as process, asyncio.timeout(60):
        assert await process.wait() == 1
    words = await said(log, "service.failed")
    assert "belongs to a newer release: it is at revision next" in str(words["why"])


async def test_stock_is_served_without_its_database_and_is_not_ready(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    uri = f"mongodb://127.0.0.1:{free_port()}"
    settings = {"MONGODB_URI": uri, "MONGODB_DATABASE": "stock", "GRPC_PORT": str(port)}
    async with (
        service("inventory_svc", log, **settings) as process,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        alive = health_pb2.HealthCheckRequest(service=LIVENESS)
        answer = await health.Check(alive, wait_for_ready=True, timeout=60)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        ready = await health.Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert ready.status == health_pb2.HealthCheckResponse.NOT_SERVING
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
