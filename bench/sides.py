"""A coordinator of ours in each of its forms, and the calls without any; peers are in `peers/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from bench.build import ROOT
from bench.load import Load, go_load, pids, start_request, step_request
from bench.world import Participant, World, count
from local.ports import HOST, free_ports
from local.processes import Process
from local.service import runs_sagas, service

STATES = "SELECT state, count(*) FROM saga.saga GROUP BY state"
"""Sagas of a journal by state."""


CHANNELS_BY_WORKER = 4
"""The kernel gives each connection to one of the workers, by chance."""


class Floor:
    """The four calls of a saga with nobody in between: what no coordinator can beat."""

    name = "floor"

    def __init__(self, participant: Participant) -> None:
        self._participant = participant

    def command(self, load: Load) -> Sequence[str]:
        """See `Side`."""
        steps = f"--steps={','.join(load.steps)}"
        return [*go_load("floor", self._participant.address, load), steps, step_request()]

    def processes(self) -> Mapping[str, int]:
        """See `Side`."""
        return pids(self._participant)

    async def finished(self) -> Mapping[str, int]:
        """See `Side`."""
        return {}


class Coordinator:
    """One coordinator process on a database of its own; `async with` runs it.

    Args:
        world: where it runs.
        participant: whom it calls; over a step stream when it has one.
        dsn: its database; a new one when None.
        settings: environment variables over those of a bench.
        workers: processes that share its port.
    """

    def __init__(
        self,
        world: World,
        participant: Participant,
        *,
        dsn: str | None = None,
        settings: Mapping[str, str] | None = None,
        workers: int = 1,
    ) -> None:
        self.world, self.participant, self.workers = world, participant, workers
        self._settings = settings or {}
        self.dsn = dsn or ""
        self.address = ""
        self.process: Process

    async def __aenter__(self) -> Self:
        self.dsn = self.dsn or await self.world.new_database()
        port, console = free_ports(2)
        self.address = f"{HOST}:{port}"
        self.process = self._process(port, console)
        await self.process.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.process.stop()

    def _process(self, port: int, console: int) -> Process:
        return service(
            "coordinator",
            "coordinator",
            folder=self.world.folder / "logs" / f"coordinator-{port}",
            ready=runs_sagas(port, "bench"),
            env={
                "GRPC_HOST": HOST,
                "GRPC_PORT": str(port),
                "CONSOLE_PORT": str(console),
                "POSTGRES_DSN": self.dsn,
                "PARTICIPANTS": f"bench={self.participant.address}",
                "DEFINITIONS_DIR": str(ROOT / "bench" / "definitions"),
                "INSTANCE_ID": f"bench-{port}",
                "LOG_LEVEL": "warning",
                # One participant serves the steps of all: 1,024 at a time, and more.
                "MAX_CALLS_PER_PARTICIPANT": "4096",
                "RECONCILE_MINUTES": "0",
                "WORKERS": str(self.workers),
                **self._settings,
            },
        )

    async def finished(self) -> Mapping[str, int]:
        """How many sagas are on its disk, by state."""
        return await count(self.dsn, STATES)


class Ours:
    """One way to ask a coordinator of ours: a StartSaga for each saga, or one StartSagas stream."""

    def __init__(self, name: str, coordinator: Coordinator) -> None:
        self.name = name
        self._coordinator = coordinator
        self._kind = "unary" if name in {"unary", "stream-startsaga"} else "stream"

    def command(self, load: Load) -> Sequence[str]:
        """See `Side`."""
        workers = self._coordinator.workers
        channels = f"--channels={CHANNELS_BY_WORKER * workers if workers > 1 else 1}"
        command = go_load(self._kind, self._coordinator.address, load)
        return [*command, channels, start_request(load)]

    def processes(self) -> Mapping[str, int]:
        """See `Side`."""
        asked = self._coordinator
        return pids(asked.process, asked.participant, asked.world.postgres)

    async def finished(self) -> Mapping[str, int]:
        """See `Side`."""
        return await self._coordinator.finished()
