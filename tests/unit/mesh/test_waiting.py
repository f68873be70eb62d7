"""Waiting at start, on virtual time."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from mesh.errors import Retry
from mesh.waiting import DatabaseRefuses, place_of, until_there
from tests.virtual_time import VirtualLoop


def test_what_comes_up_later_is_waited_for_with_a_word_now_and_then() -> None:
    """Words at 0, 10 and 20 seconds, and one more when it goes on."""

    async def start() -> None:
        loop = asyncio.get_running_loop()

        async def attempt() -> None:
            asked.append(loop.time())
            if loop.time() < 21:
                raise Retry("DATABASE_UNAVAILABLE", "starting up")

        await until_there(attempt, where="PostgreSQL at db:5432/orders")

    asked: list[float] = []
    with capture_logs() as logs, asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(start())
    assert asked == [half / 2 for half in range(43)]
    assert [log["event"] for log in logs] == ["start.waiting"] * 3 + ["start.goes_on"]
    assert (logs[0]["waits_for"], logs[0]["why"]) == (
        "PostgreSQL at db:5432/orders",
        "starting up",
    )
    assert logs[-1]["waited_seconds"] == 21


async def test_what_is_there_is_not_waited_for() -> None:
    asked = []

    async def attempt() -> None:
        asked.append(True)

    with capture_logs() as logs:
        await until_there(attempt, where="db")
    assert asked == [True]
    assert logs == []


async def test_what_will_never_be_is_not_waited_for() -> None:
    async def attempt() -> None:
        raise DatabaseRefuses("DATABASE_REFUSES", "no such role")

    with capture_logs() as logs, pytest.raises(DatabaseRefuses):
        await until_there(attempt, where="db")
    assert logs == []


@pytest.mark.parametrize(
    ("dsn", "place"),
    [
        ("postgresql://ann:secret@db:6432/orders", "PostgreSQL at db:6432/orders"),
        ("postgresql://db/orders?password=secret", "PostgreSQL at db:5432/orders"),
        ("postgresql://ann:secret@a:1,b:2/orders", "PostgreSQL at a,b:1,2/orders"),
    ],
)
def test_a_database_is_named_without_who_asks(dsn: str, place: str) -> None:
    assert place_of(dsn) == place


@pytest.mark.parametrize(
    "dsn", ["postgresql://ann:%zzsecret@db/orders", "postgresql://db/orders?secret=1"]
)
def test_what_is_no_dsn_is_refused_without_being_quoted(dsn: str) -> None:
    with pytest.raises(DatabaseRefuses, match="POSTGRES_DSN") as refused:
        place_of(dsn)
    assert "secret" not in str(refused.value)
