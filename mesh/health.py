"""Health by `grpc.health.v1`: readiness follows the databases, liveness only the process.

The empty name and every served service read NOT_SERVING while one of the probes fails or the server
drains; the name `liveness` reads SERVING as long as the process answers.

Not the servicer of grpcio-health-checking: its Watch writes to the call by itself, so a drain can
not end it without the danger of cutting a write in two.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from typing_extensions import override

from mesh.errors import NotFound
from mesh.rpc.served import Context

Probe = Callable[[], Awaitable[None]]
"""Returns when what it asks is there; raises when it is not."""

LIVENESS = "liveness"

State = health_pb2.HealthCheckResponse.ServingStatus
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
_log = structlog.stdlib.get_logger()


class Health(health_pb2_grpc.HealthServicer):
    """Polls the probes and answers for them; NOT_SERVING until they were asked once."""

    def __init__(
        self, ready: Mapping[str, Probe], *, interval_seconds: float = 1, timeout_seconds: float = 3
    ) -> None:
        self._ready = ready
        self._interval_seconds = interval_seconds
        self._timeout_seconds = timeout_seconds
        self._services: tuple[str, ...] = ()
        self._state: State = _NOT_SERVING
        self._changed = asyncio.Event()
        self._away: frozenset[str] | None = None
        self._draining = False

    def answer_for(self, services: Iterable[str]) -> None:
        """Know these services too."""
        self._services = ("", *services)

    async def watch(self) -> None:
        """Poll until cancelled."""
        while True:
            await self._poll()
            await asyncio.sleep(self._interval_seconds)

    def drain(self) -> None:
        """Read NOT_SERVING from now on, whatever the probes say."""
        self._draining = True
        self._set(_NOT_SERVING)

    @override
    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        state = self._state_of(request.service)
        if state == _SERVICE_UNKNOWN:
            raise NotFound(
                "SERVICE_UNKNOWN", "not served here", resource_type="service", name=request.service
            )
        return health_pb2.HealthCheckResponse(status=state)

    @override
    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        sent = None
        while True:
            changed, state = self._changed, self._state_of(request.service)
            if state != sent:
                yield health_pb2.HealthCheckResponse(status=state)
                sent = state
            await changed.wait()

    def _state_of(self, service: str) -> State:
        if service == LIVENESS:
            return _SERVING
        return self._state if service in self._services else _SERVICE_UNKNOWN

    async def _poll(self) -> None:
        results = await asyncio.gather(
            *map(self._ask, self._ready.values()), return_exceptions=True
        )
        away = frozenset(
            name for name, result in zip(self._ready, results, strict=True) if result is not None
        )
        if away == self._away or self._draining:
            return
        self._away = away
        _log.info("health.not_ready" if away else "health.ready", away=sorted(away))
        self._set(_NOT_SERVING if away else _SERVING)

    async def _ask(self, probe: Probe) -> None:
        async with asyncio.timeout(self._timeout_seconds):
            await probe()

    def _set(self, state: State) -> None:
        self._state = state
        self._changed.set()
        self._changed = asyncio.Event()
