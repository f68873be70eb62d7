"""Migrations at service start: `await migrate_when_there(dsn, "order_svc")`.

It waits for the database and brings it up to date.

The package has an Alembic folder `migrations/` with `versions/` and an `env.py` of two lines:

    from mesh.migrate import run_migrations
    run_migrations()

Instances that start together queue on an advisory lock, so the second one finds the work done. One
of an older release, which has no migration of the name that it finds, changes nothing and says so.
"""

from __future__ import annotations

import asyncio
import threading

import alembic.command
import structlog
from alembic import context
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, NullPool, create_engine, text

from mesh.errors import MeshError
from mesh.postgres import driver_url, translated_errors
from mesh.waiting import DatabaseRefuses, place_of, reach, until_there

_ALEMBIC = threading.Lock()
"""Alembic keeps what it is doing in a module: two upgrades in one process would mix."""
_SESSION = text("SELECT pg_backend_pid()")
_log = structlog.stdlib.get_logger()
_LOCK = text("SELECT pg_advisory_lock(hashtextextended(:name, 0))")


class DatabaseIsNewer(MeshError):
    """A newer release has migrated the database, and this one does not know what is in it."""


async def migrate_when_there(dsn: str, package: str) -> None:
    """Wait for the database of `dsn` and upgrade it.

    Raises:
        DatabaseRefuses: it will never let us in.
        DatabaseIsNewer: it belongs to a newer release.
    """
    await until_there(lambda: migrate(dsn, package), where=place_of(dsn))


async def migrate(dsn: str, package: str) -> None:
    """Upgrade the database of `dsn` to the newest version that `package` knows.

    Raises:
        Retry: `DATABASE_UNAVAILABLE`; it is away, or takes no writes.
        DatabaseRefuses: it will never let us in.
        DatabaseIsNewer: it belongs to a newer release; nothing was changed.
    """
    await reach(dsn)
    await asyncio.to_thread(_upgrade, dsn, package)


def _upgrade(dsn: str, package: str) -> None:
    version_table = f"{package.replace('.', '_')}_version"
    engine = create_engine(driver_url(dsn), poolclass=NullPool, connect_args={"connect_timeout": 5})
    with _ALEMBIC, translated_errors(), engine.connect() as connection:
        _refuse_shared_sessions(connection, engine, place_of(dsn))
        connection.execute(_LOCK, {"name": version_table})  # held until this session ends
        config = Config()
        config.set_main_option("script_location", f"{package}:migrations")
        config.attributes.update(connection=connection, version_table=version_table)
        scripts = ScriptDirectory.from_config(config)
        opts = {"version_table": version_table}
        found = MigrationContext.configure(connection, opts=opts).get_current_revision()
        _refuse_newer(found, scripts, place_of(dsn))
        connection.commit()
        alembic.command.upgrade(config, "head")
    if found != (newest := scripts.get_current_head()):
        _log.info("database.migrated", table=version_table, before=found, revision=newest)


def _refuse_shared_sessions(connection: Connection, engine: Engine, where: str) -> None:
    """A pooler that has a session for each transaction gives that of one client to the next."""
    mine = connection.execute(_SESSION).scalar_one()
    connection.rollback()
    with engine.connect() as other:
        shared = other.execute(_SESSION).scalar_one() == mine
    if shared:
        raise DatabaseRefuses(
            "SESSIONS_SHARED",
            f"{where} is behind a pooler that gives sessions to a client for one transaction; what"
            " is prepared and set on them must stay: have it pool sessions (pgbouncer: pool_mode ="
            " session), or connect to PostgreSQL itself",
        )


def _refuse_newer(found: str | None, scripts: ScriptDirectory, where: str) -> None:
    """Alembic's own words for it would name neither the database nor a way out."""
    known = [script.revision for script in scripts.walk_revisions()][::-1]
    if found is not None and found not in known:
        raise DatabaseIsNewer(
            "DATABASE_IS_NEWER",
            f"{where} belongs to a newer release: it is at revision {found}, and this release"
            f" knows {', '.join(known)}; start that release, or restore a backup from before it",
        )


def run_migrations() -> None:
    """Run what Alembic has planned on the connection of `migrate`; the body of every `env.py`."""
    attributes = context.config.attributes
    context.configure(
        connection=attributes["connection"], version_table=attributes["version_table"]
    )
    with context.begin_transaction():
        context.run_migrations()
