"""Health by `grpc.health.v1`: readiness follows the databases, liveness only the process.

The empty name and every served service read NOT_SERVING while one of the probes fails or the server
drains; the name `liveness` reads SERVING as long as the process answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog
from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer  # health.aio, a name type checkers do not see

Probe = Callable[[], Awaitable[None]]
"""Returns when what it asks is there; raises when it is not."""

LIVENESS = "liveness"

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_log = structlog.stdlib.get_logger()


class Health:
    """Polls the probes and answers for them."""

    def __init__(
        self, ready: Mapping[str, Probe], *, interval_seconds: float = 1, timeout_seconds: float = 3
    ) -> None:
        self._ready = ready
        self._interval_seconds = interval_seconds
        self._timeout_seconds = timeout_seconds
        self._names: tuple[str, ...] = ()
        self._away: frozenset[str] | None = None
        self.servicer = HealthServicer()

    async def begin(self, services: Iterable[str]) -> None:
        """Answer NOT_SERVING for these services, until `watch` has asked every probe once."""
        self._names = ("", *services)
        await self._set(_NOT_SERVING)
        await self.servicer.set(LIVENESS, _SERVING)

    async def watch(self) -> None:
        """Poll until cancelled."""
        while True:
            await self._poll()
            await asyncio.sleep(self._interval_seconds)

    async def drain(self) -> None:
        """Read NOT_SERVING from now on, whatever the probes say."""
        await self.servicer.enter_graceful_shutdown()

    async def _poll(self) -> None:
        results = await asyncio.gather(
            *map(self._ask, self._ready.values()), return_exceptions=True
        )
        away = frozenset(
            name for name, result in zip(self._ready, results, strict=True) if result is not None
        )
        if away == self._away:
            return
        self._away = away
        _log.info("health.not_ready" if away else "health.ready", away=sorted(away))
        await self._set(_NOT_SERVING if away else _SERVING)

    async def _set(self, state: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in self._names:
            await self.servicer.set(name, state)

    async def _ask(self, probe: Probe) -> None:
        async with asyncio.timeout(self._timeout_seconds):
            await probe()
