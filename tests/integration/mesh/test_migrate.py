from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import inspect, text
from structlog.testing import capture_logs

from mesh.errors import Retry
from mesh.migrate import DatabaseIsNewer, migrate
from mesh.postgres import create_engine

ENV = "from mesh.migrate import run_migrations\nrun_migrations()\n"

FIRST = """
from alembic import op
import sqlalchemy as sa
from mesh.barrier.tables import create_barrier

revision = "0001"
down_revision = None

def upgrade():
    op.create_table("parcel", sa.Column("parcel_id", sa.Text, primary_key=True))
    create_barrier(op.get_bind())
"""

SECOND = """
from alembic import op
import sqlalchemy as sa

revision = "0002"
down_revision = "0001"

def upgrade():
    op.add_column("parcel", sa.Column("weight", sa.Integer))
"""

BROKEN = """
from alembic import op

revision = "0002"
down_revision = "0001"

def upgrade():
    op.execute("CREATE TABLE half (id int)")
    op.execute("SELECT 1 / 0")
"""


@pytest.fixture
def versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the migrations of a package `parcel_svc` that exists for this test."""
    versions = tmp_path / "parcel_svc" / "migrations" / "versions"
    versions.mkdir(parents=True)
    (tmp_path / "parcel_svc" / "__init__.py").touch()
    (versions.parent / "env.py").write_text(ENV)
    (versions / "first.py").write_text(FIRST)
    monkeypatch.delitem(sys.modules, "parcel_svc", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return versions


async def columns(dsn: str, table: str) -> list[str]:
    engine = create_engine(dsn)
    async with engine.connect() as connection:
        found = await connection.run_sync(lambda sync: inspect(sync).get_columns(table))
    await engine.dispose()
    return [column["name"] for column in found]


async def version(dsn: str) -> str:
    engine = create_engine(dsn)
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT version_num FROM parcel_svc_version"))
    await engine.dispose()
    return str(found.scalar_one())


async def test_a_fresh_database_is_brought_up_to_date(versions: Path, postgres_dsn: str) -> None:
    await migrate(postgres_dsn, "parcel_svc")

    assert await columns(postgres_dsn, "parcel") == ["parcel_id"]
    assert "request_sha256" in await columns(postgres_dsn, "barrier")


async def test_a_later_start_applies_only_what_is_new(versions: Path, postgres_dsn: str) -> None:
    await migrate(postgres_dsn, "parcel_svc")
    (versions / "second.py").write_text(SECOND)

    await migrate(postgres_dsn, "parcel_svc")
    await migrate(postgres_dsn, "parcel_svc")

    assert await columns(postgres_dsn, "parcel") == ["parcel_id", "weight"]
    assert await version(postgres_dsn) == "0002"


async def test_what_was_migrated_is_told_and_a_start_without_is_silent(
    versions: Path, postgres_dsn: str
) -> None:
    async def told() -> list[tuple[str | None, str]]:
        with capture_logs() as logs:
            await migrate(postgres_dsn, "parcel_svc")
        assert {line["event"] for line in logs} <= {"database.migrated"}
        return [(line["before"], line["revision"]) for line in logs]

    assert await told() == [(None, "0001")]
    assert await told() == []
    (versions / "second.py").write_text(SECOND)
    assert await told() == [("0001", "0002")]


async def test_instances_that_start_together_migrate_once(
    versions: Path, new_postgres_database: Callable[[], Awaitable[str]]
) -> None:
    one, other = await new_postgres_database(), await new_postgres_database()

    await asyncio.gather(*(migrate(dsn, "parcel_svc") for dsn in (one, other) * 4))

    for dsn in (one, other):
        assert await version(dsn) == "0001"


async def test_a_migration_that_fails_leaves_the_version_before_it(
    versions: Path, postgres_dsn: str
) -> None:
    await migrate(postgres_dsn, "parcel_svc")
    (versions / "second.py").write_text(BROKEN)

    with pytest.raises(Exception, match="division by zero"):
        await migrate(postgres_dsn, "parcel_svc")

    assert await version(postgres_dsn) == "0001"
    (versions / "second.py").write_text(SECOND)
    await migrate(postgres_dsn, "parcel_svc")
    assert await version(postgres_dsn) == "0002"


async def test_an_older_release_says_that_the_database_is_a_newer_one_s_and_leaves_it_alone(
    versions: Path, postgres_dsn: str
) -> None:
    (versions / "second.py").write_text(SECOND)
    await migrate(postgres_dsn, "parcel_svc")
    (versions / "second.py").unlink()

    with pytest.raises(DatabaseIsNewer) as newer:
        await migrate(postgres_dsn, "parcel_svc")

    words = str(newer.value)
    assert "belongs to a newer release: it is at revision 0002" in words
    assert "knows 0001" in words
    assert await columns(postgres_dsn, "parcel") == ["parcel_id", "weight"]
    assert await version(postgres_dsn) == "0002"


async def test_a_database_that_is_away_is_said_so(versions: Path) -> None:
    with pytest.raises(Retry, match=":1/nowhere is away"):
        await migrate("postgresql://postgres@127.0.0.1:1/nowhere", "parcel_svc")


async def test_an_instance_waits_while_another_process_migrates(
    versions: Path, postgres_dsn: str
) -> None:
    engine = create_engine(postgres_dsn)
    key = "hashtextextended('parcel_svc_version', 0)"
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'")
    async with engine.connect() as other_process:
        await other_process.execute(text(f"SELECT pg_advisory_lock({key})"))
        migrating = asyncio.create_task(migrate(postgres_dsn, "parcel_svc"))
        while not (await other_process.execute(waiting)).scalar_one():
            await other_process.rollback()
            await asyncio.sleep(0.01)
        assert not migrating.done()
        await other_process.execute(text(f"SELECT pg_advisory_unlock({key})"))
        await migrating
    await engine.dispose()

    assert await version(postgres_dsn) == "0001"
