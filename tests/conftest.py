"""Databases for tests: one server each per run, started when the first test asks for it.

With POSTGRES_DSN or MONGODB_URI set, the same tests run against those servers instead. In a
parallel run every worker has servers of its own; `parallel.py` says how the tests are shared out.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql
from pymongo import MongoClient
from uuid_utils import uuid7
from xdist.remote import Producer

from local.mongo import Mongo
from local.ports import free_port
from local.postgres import Postgres, create_database
from tests import parallel


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> parallel.Pieces:
    return parallel.Pieces(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=parallel.turn)


@pytest.fixture(scope="session")
def new_folder() -> Iterator[Callable[[], Path]]:
    """Makes an empty folder for a server with every call.

    Not under pytest's own folder: every run closes that to other users, and PostgreSQL runs as one
    when we are root.
    """
    with tempfile.TemporaryDirectory(prefix="saga-tests-") as root:
        yield lambda: Path(tempfile.mkdtemp(dir=root))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _postgres_server(new_folder: Callable[[], Path]) -> AsyncIterator[str]:
    """DSN of a database that may create others."""
    if dsn := os.environ.get("POSTGRES_DSN"):
        yield dsn
        return
    async with Postgres(new_folder(), free_port()) as server:
        yield server.dsn()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mongodb_uri(new_folder: Callable[[], Path]) -> AsyncIterator[str]:
    """Where the MongoDB of this run is."""
    if uri := os.environ.get("MONGODB_URI"):
        yield uri
        return
    async with Mongo(new_folder(), free_port()) as server:
        yield server.uri


@pytest_asyncio.fixture
async def new_postgres_database(
    _postgres_server: str,
) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """Creates an empty database with every call and returns its DSN; all are dropped at the end."""
    names: list[str] = []

    async def create() -> str:
        names.append(f"test_{uuid7().hex}")
        await create_database(_postgres_server, names[-1])
        return urlunsplit(urlsplit(_postgres_server)._replace(path=f"/{names[-1]}"))

    yield create
    await _drop_databases(_postgres_server, names)


@pytest_asyncio.fixture
async def postgres_dsn(new_postgres_database: Callable[[], Awaitable[str]]) -> str:
    """DSN of an empty database for this test alone."""
    return await new_postgres_database()


@pytest.fixture
def mongo_database(mongodb_uri: str) -> Iterator[str]:
    """Name of an empty database for this test alone."""
    name = f"test_{uuid7().hex}"
    yield name
    with MongoClient[dict[str, object]](mongodb_uri) as client:
        client.drop_database(name)


async def _drop_databases(server: str, names: list[str]) -> None:
    async with await psycopg.AsyncConnection.connect(server, autocommit=True) as connection:
        for name in names:
            drop = sql.SQL("drop database {} with (force)").format(sql.Identifier(name))
            await connection.execute(drop)
