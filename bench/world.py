"""What every side stands on: one PostgreSQL with fsync, and the participants.

Sides have databases of their own on the one server. The participant does nothing; it is the same
program for every side, so that it costs all of them the same.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Self

import psycopg

from bench.build import CONTRACTS, PROGRAM
from local.ports import HOST, free_port
from local.postgres import Postgres
from local.processes import Process
from local.service import serves_grpc

STEPS = ("Reserve", "Charge", "Ship", "Confirm")
REFUSED_STEPS = (*STEPS[:3], "Refuse")

# DTM opens a connection for each saga in flight, and would wait for them if there were fewer.
_SETTINGS = {"max_connections": 1_200}


class World:
    """The server; `async with` runs it. Everything that it leaves behind is in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = Postgres(folder / "postgres", free_port(), settings=_SETTINGS)
        self._databases = 0

    async def __aenter__(self) -> Self:
        await self.postgres.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.postgres.stop()

    async def new_database(self) -> str:
        """Make an empty database; returns its DSN."""
        self._databases += 1
        return await self.postgres.create_database(f"bench_{self._databases}")

    def participant(self, *, jitter_ms: int = 0, streams: bool) -> Participant:
        """A participant that is not started yet; see `bench participant -h`."""
        return Participant(self.folder, jitter_ms=jitter_ms, streams=streams)


class Participant(Process):
    """The Go participant, whose steps do nothing.

    `bench.v1.Refuse` refuses. Until `wake`, `bench.v1.Hold` does not answer, and `bench.v1.Away`
    answers UNAVAILABLE.
    """

    def __init__(self, folder: Path, *, jitter_ms: int, streams: bool) -> None:
        port = free_port()
        self.address = f"{HOST}:{port}"
        flags = [f"--port={port}", f"--descriptors={CONTRACTS}", "--reject=bench.v1.Refuse"]
        flags += ["--hold=bench.v1.Hold", "--away=bench.v1.Away"]
        flags += [f"--jitter-ms={jitter_ms}", *(["--step-stream"] if streams else [])]
        super().__init__(
            "participant",
            [str(PROGRAM), "participant", *flags],
            log=folder / "logs" / f"participant-{port}.log",
            ready=serves_grpc(port),
        )

    def wake(self) -> None:
        """Let everything be answered from now on."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGUSR1)


async def count(dsn: str, states: str) -> dict[str, int]:
    """Rows by state; `states` is a query of states and counts."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        found = await connection.execute(states.encode())
        return {str(state): int(number) for state, number in await found.fetchall()}
