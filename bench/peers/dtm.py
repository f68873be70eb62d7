"""DTM, a saga coordinator in Go, on the same PostgreSQL and before the same participant.

Its Go module is built as it is, and is set up as its documents say, but for its log, which is kept
to errors. By default it writes the results of branches behind (`UpdateBranchSync` 0): a crash calls
what had been done once more. With 1 each result is durable before the next call, as ours are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import psycopg

from bench.load import Load, go_load, pids, step_request
from bench.peers.build import DTM, DTM_TABLES
from bench.world import Participant, World, count
from local.ports import HOST, free_ports
from local.processes import Process
from local.service import serves_http

_STATES = "SELECT status, count(*) FROM trans_global GROUP BY status"


class Dtm:
    """One DTM server; see the module."""

    def __init__(
        self, name: str, world: World, participant: Participant, *, synchronous: bool
    ) -> None:
        self.name = name
        self._world, self._participant = world, participant
        self._synchronous = synchronous
        self._dsn = self._address = ""
        self._process: Process

    async def __aenter__(self) -> Self:
        self._dsn = await self._world.new_database()
        async with await psycopg.AsyncConnection.connect(self._dsn, autocommit=True) as connection:
            await connection.execute(DTM_TABLES.read_bytes())
        grpc, http, json_rpc = free_ports(3)
        self._address = f"{HOST}:{grpc}"
        self._process = Process(
            "coordinator",
            [str(DTM)],
            log=self._world.folder / "logs" / f"dtm-{grpc}.log",
            ready=serves_http(f"http://{HOST}:{http}/api/dtmsvr/newGid"),
            env=self._environment(grpc, http, json_rpc),
        )
        await self._process.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._process.stop()

    def command(self, load: Load) -> Sequence[str]:
        """See `bench.load.Side`."""
        return [
            *go_load("dtm", self._address, load),
            f"--participant={self._participant.address}",
            f"--steps={','.join(load.steps)}",
            step_request(),
        ]

    def processes(self) -> Mapping[str, int]:
        """See `bench.load.Side`."""
        return pids(self._process, self._participant, self._world.postgres)

    async def finished(self) -> Mapping[str, int]:
        """See `bench.load.Side`."""
        names = {"succeed": "COMPLETED", "failed": "COMPENSATED"}
        found = await count(self._dsn, _STATES)
        return {names.get(state, state): number for state, number in found.items()}

    def _environment(self, grpc: int, http: int, json_rpc: int) -> dict[str, str]:
        server = urlsplit(self._dsn)
        return {
            "STORE_DRIVER": "postgres",
            "STORE_HOST": str(server.hostname),
            "STORE_PORT": str(server.port),
            "STORE_USER": str(server.username),
            "STORE_PASSWORD": "any",  # not asked for, but it cannot read an empty one
            "STORE_DB": server.path.removeprefix("/"),
            "UPDATE_BRANCH_SYNC": "1" if self._synchronous else "0",
            "LOG_LEVEL": "error",
            "GRPC_PORT": str(grpc),
            "HTTP_PORT": str(http),
            "JSON_RPC_PORT": str(json_rpc),
            "HOME": str(Path.home()),
        }
