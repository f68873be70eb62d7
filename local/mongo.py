"""A server of the MongoDB wire protocol from a wheel (nx-27017, on SQLite) on a TCP port.

Always with `--data-dir`, one file per database: several databases in one file mix up their
documents. It answers single-document operations as MongoDB does, which is all the barrier asks for.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from local.ports import HOST
from local.processes import Process

_RUN = "from nx_27017.nx_27017 import main; main()"


class Mongo(Process):
    """One server with data, log and pid file in `folder`."""

    def __init__(self, folder: Path, port: int) -> None:
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        self.uri = f"mongodb://{HOST}:{port}"
        self._pid_file = folder / "nx.pid"
        files = {"data-dir": data, "log-file": folder / "nx.log", "pid-file": self._pid_file}
        options = [f"--{key}={path.resolve()}" for key, path in files.items()]
        super().__init__(
            "mongodb",
            [sys.executable, "-c", _RUN, f"--host={HOST}", f"--port={port}", *options],
            log=folder / "mongodb.log",
            ready=self._answers,
        )

    async def start(self) -> None:
        """Start on the data that is there.

        Raises:
            StartFailed: see `Process.start`.
        """
        self._pid_file.unlink(missing_ok=True)  # a kill leaves it, and it would be believed
        await super().start()

    async def _answers(self) -> bool:
        return await asyncio.to_thread(_pings, self.uri)


def _pings(uri: str) -> bool:
    with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=500) as client:
        try:
            client.admin.command("ping")
        except PyMongoError:
            return False
    return True
