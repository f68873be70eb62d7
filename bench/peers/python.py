"""DBOS and Temporal: durable workflows in Python, before the same participant.

DBOS keeps its progress in the same PostgreSQL. Temporal is its development server, which keeps
everything in memory unless told otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from bench.build import run
from bench.load import Load, pids
from bench.peers.build import PEERS, PYTHON, TEMPORAL
from bench.world import Participant, World, count
from local.ports import HOST, free_ports
from local.processes import Process
from local.service import serves_grpc

_DBOS_STATES = "SELECT status, count(*) FROM dbos.workflow_status GROUP BY status"


class Dbos:
    """DBOS on a database of its own; its load is its process as well."""

    name = "dbos"

    def __init__(self, world: World, participant: Participant) -> None:
        self._world, self._participant = world, participant
        self._dsn = ""

    async def __aenter__(self) -> Self:
        self._dsn = await self._world.new_database()
        migrate = [str(PYTHON.with_name("dbos")), "migrate", "--sys-db-url", self._dsn]
        await asyncio.to_thread(run, migrate, folder=PEERS)
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def command(self, load: Load) -> Sequence[str]:
        """See `bench.load.Side`."""
        return _command("dbos_load.py", self._dsn, self._participant, load)

    def processes(self) -> Mapping[str, int]:
        """See `bench.load.Side`."""
        return pids(self._participant, self._world.postgres)

    async def finished(self) -> Mapping[str, int]:
        """See `bench.load.Side`."""
        found = await count(self._dsn, _DBOS_STATES)
        return {"COMPLETED" if state == "SUCCESS" else state: n for state, n in found.items()}


class Temporal:
    """Temporal's development server; its load is its worker as well."""

    name = "temporal"

    def __init__(self, world: World, participant: Participant) -> None:
        port, http = free_ports(2)
        self._participant = participant
        self._address = f"{HOST}:{port}"
        flags = ["--headless", "--log-level=error", f"--ip={HOST}", f"--port={port}"]
        flags += [f"--http-port={http}"]
        self._process = Process(
            "coordinator",
            [str(TEMPORAL), "server", "start-dev", *flags],
            log=world.folder / "logs" / f"temporal-{port}.log",
            ready=serves_grpc(port),
        )

    async def __aenter__(self) -> Self:
        await self._process.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._process.stop()

    def command(self, load: Load) -> Sequence[str]:
        """See `bench.load.Side`."""
        return _command("temporal_load.py", self._address, self._participant, load)

    def processes(self) -> Mapping[str, int]:
        """See `bench.load.Side`."""
        return pids(self._process, self._participant)

    async def finished(self) -> Mapping[str, int]:
        """Its index of workflows lags behind them; the load has awaited the result of each."""
        return {}


def _command(script: str, peer: str, participant: Participant, load: Load) -> Sequence[str]:
    flags = [f"--peer={peer}", f"--participant={participant.address}", "--warm=3"]
    flags += [f"--steps={','.join(load.steps)}", f"--in-flight={load.in_flight}"]
    return [str(PYTHON), str(Path(__file__).with_name(script)), *flags, f"--for={load.window_s}"]
