from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import psycopg
import pytest
from pymongo import MongoClient

from local.mongo import Mongo
from local.ports import free_port
from local.postgres import Postgres


async def test_each_test_gets_an_empty_postgres_database(
    new_postgres_database: Callable[[], Awaitable[str]], postgres_dsn: str
) -> None:
    other = await new_postgres_database()
    async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
        await connection.execute("create table mine (id int)")
    async with await psycopg.AsyncConnection.connect(other) as connection:
        assert await _one(connection, "select to_regclass('mine') is null")


async def test_the_embedded_postgres_syncs_every_commit(postgres_dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
        assert await _one(connection, "show fsync") == "on"
        assert await _one(connection, "show synchronous_commit") == "on"


async def test_what_postgres_committed_survives_its_kill(new_folder: Callable[[], Path]) -> None:
    async with Postgres(new_folder(), free_port()) as server:
        dsn = await server.create_database("orders")
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            await connection.execute("create table kept as select 7 as seven")
        await server.kill()
        with pytest.raises(psycopg.OperationalError):
            await psycopg.AsyncConnection.connect(dsn)
        await server.start()
        assert await server.create_database("orders") == dsn
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            assert await _one(connection, "select seven from kept") == 7


async def test_what_mongodb_wrote_survives_its_kill(new_folder: Callable[[], Path]) -> None:
    async with Mongo(new_folder(), free_port()) as server:
        with MongoClient[dict[str, object]](server.uri) as client:
            client.stock.products.insert_one({"_id": "a", "n": 1})
        await server.kill()
        await server.start()
        with MongoClient[dict[str, object]](server.uri) as client:
            assert client.stock.products.find_one({"_id": "a"}) == {"_id": "a", "n": 1}


def test_databases_of_one_mongodb_are_apart(mongodb_uri: str, mongo_database: str) -> None:
    with MongoClient[dict[str, object]](mongodb_uri) as client:
        client[mongo_database].things.insert_one({"_id": "a"})
        assert client[f"{mongo_database}_other"].things.find_one({"_id": "a"}) is None


async def _one(connection: psycopg.AsyncConnection, query: str) -> object:
    row = await (await connection.execute(query)).fetchone()
    assert row is not None
    return row[0]
