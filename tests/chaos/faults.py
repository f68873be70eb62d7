"""Makes faults happen to a running mesh, and looks after its processes as a supervisor would.

A process that was killed is started again when its fault is over. One that ended by itself is
started again at once, again and again, as its container would be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import assert_never

import httpx

from local.mesh import Mesh
from local.processes import Process, StartFailed
from local.sandbox import Sandbox
from tests.chaos.link import Mode
from tests.chaos.links import Links
from tests.chaos.records import Exit
from tests.chaos.schedule import Fault, FaultKind

_LOOK_SECONDS = 0.2
_PROVIDER_RATE = 0.3
"""The share of requests that a difficult provider is difficult about."""


class Supervisor:
    """Keeps every process running that is not held down. Run it as a task."""

    def __init__(self, processes: Mapping[str, Process], now: Callable[[], float]) -> None:
        self.exits: list[Exit] = []
        self._processes = processes
        self._now = now
        self._held_down: set[str] = set()
        self._starting: set[str] = set()

    async def run(self) -> None:
        """Look after all of them until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                for name in self._fallen():
                    self._starting.add(name)
                    tasks.create_task(self._start(name))
                await asyncio.sleep(_LOOK_SECONDS)

    async def kill(self, name: str) -> None:
        """Kill a process and hold it down."""
        self._held_down.add(name)
        await self._processes[name].kill()

    def let_up(self, name: str) -> None:
        """Let a killed process come back."""
        self._held_down.discard(name)

    def _fallen(self) -> list[str]:
        busy = self._held_down | self._starting
        return [
            name for name, each in self._processes.items() if name not in busy and each.pid is None
        ]

    async def _start(self, name: str) -> None:
        try:
            await self._processes[name].start()
        except StartFailed:
            if name not in self._held_down:
                self.exits.append(Exit(name=name, at=round(self._now(), 2)))
        finally:
            self._starting.discard(name)


class Injector:
    """Makes faults begin and end."""

    def __init__(self, mesh: Mesh, links: Links, supervisor: Supervisor) -> None:
        self._processes = mesh.processes
        self._links = links
        self._supervisor = supervisor
        self._sandbox = Sandbox(mesh.sandbox_url)

    async def begin(self, fault: Fault) -> None:
        """Make it go wrong."""
        match fault.kind:
            case FaultKind.KILL:
                await self._supervisor.kill(fault.target)
            case FaultKind.PAUSE:
                self._processes[fault.target].pause()
            case (
                FaultKind.CUT
                | FaultKind.RESET
                | FaultKind.SILENT
                | FaultKind.SLOW
                | FaultKind.LOSSY
            ):
                self._links[fault.target].turn(Mode(fault.kind))
            case (
                FaultKind.RATE_LIMIT
                | FaultKind.ERROR_BEFORE
                | FaultKind.ERROR_AFTER
                | FaultKind.DROP_BEFORE
                | FaultKind.DROP_AFTER
                | FaultKind.LOSE_TO_CONFIRM
                | FaultKind.REFUND_PENDING
            ):
                await self._switch({"kind": fault.kind.lower(), "rate": _PROVIDER_RATE})
            case _:
                assert_never(fault.kind)

    async def end(self, fault: Fault) -> None:
        """Make it right again."""
        match fault.kind:
            case FaultKind.KILL:
                self._supervisor.let_up(fault.target)
            case FaultKind.PAUSE:
                self._processes[fault.target].resume()
            case (
                FaultKind.CUT
                | FaultKind.RESET
                | FaultKind.SILENT
                | FaultKind.SLOW
                | FaultKind.LOSSY
            ):
                self._links[fault.target].turn(Mode.OPEN)
            case _:
                await self._switch()

    async def _switch(self, *faults: Mapping[str, object]) -> None:
        """Set the provider's switches; one that is away has none, and comes back with none."""
        with suppress(httpx.TransportError):
            await self._sandbox.switch({"faults": list(faults)})
