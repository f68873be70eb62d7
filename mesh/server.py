"""The gRPC server of a service: steps, business APIs, health, reflection, errors, spans, drain.

    async def main(settings: Settings) -> None:
        engine = create_engine(settings.postgres_dsn)
        async with tracing("order") as tracer_provider:
            probes = {"postgres": ready(engine)}
            server = Server(settings, ready=probes, tracer_provider=tracer_provider)
            server.add_step(PostgresBarrier(engine).guard(CreateOrder()))
            server.add_effects(PostgresEffects(engine))
            server.add_service(add_OrderServiceServicer_to_server, OrderService(engine))
            await server.run()

`run` serves until SIGTERM or SIGINT, then drains: health reads NOT_SERVING, new calls are refused,
response streams end with UNAVAILABLE, and calls in flight get the grace time to finish. What is cut
off then has let go of its sessions when `run` returns.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import grpc
import structlog
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer  # reflection.aio
from opentelemetry import trace

from mesh import step_stream
from mesh.border import MAX_REQUEST_BYTES, Behaviour, Border
from mesh.collector import spare_the_collector
from mesh.effect_service import EffectService
from mesh.effects import Effects
from mesh.errors import Rejected
from mesh.health import Health, Probe
from mesh.rpc.method import Method
from mesh.rpc.served import Context
from mesh.rpc.server import RpcServer
from mesh.settings import ServiceSettings
from mesh.step import SAGA_OUTCOME, GuardedStep, StepCall, StepMethod, methods_of
from mesh.step_stream import StepStream
from mesh.telemetry import Unrecorded
from mesh.typed_grpc import GenericHandler, ServiceHandler
from protos.mesh.v1 import mesh_pb2_grpc

MAX_RECEIVE_BYTES = 4 * MAX_REQUEST_BYTES
"""Largest message that is let in at all. What is larger is refused without details, so that what is
only a little too large gets to the border, which says what is wrong."""

ServicerT = TypeVar("ServicerT")
Register = Callable[[ServicerT, Any], None]
"""A generated `add_XServicer_to_server`."""
Reflection = Callable[[Sequence[str]], Any]
"""Makes a reflection servicer (v1alpha) from the names of the services that are served."""

_FAREWELL_SECONDS = 0.2
"""How long a drain refuses calls in words before it closes the door. A call that arrives in the
moment of closing is told by HTTP/2 alone that nobody has looked at it; who was told when to come
back does not call."""

_log = structlog.stdlib.get_logger()


class Server:
    """Everything one process serves by gRPC. Add first, then `run`.

    `shares_port`: others of this user that share it too may listen on the same port.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        ready: Mapping[str, Probe] | None = None,
        tracer_provider: trace.TracerProvider | None = None,
        reflection: Reflection = ReflectionServicer,
        shares_port: bool = False,
    ) -> None:
        self._settings = settings
        self._shares_port = shares_port
        tracer_provider = tracer_provider or Unrecorded()
        self._border = Border(tracer_provider)
        self._step_stream = StepStream(tracer_provider)
        self._health = Health(ready or {})
        self._reflection = reflection
        self._handlers: list[GenericHandler] = []
        self._services: list[str] = []
        self._drains: list[Callable[[], None]] = [self._border.drain, self._step_stream.drain]
        self._server: RpcServer | None = None
        self._watch: asyncio.Task[None] | None = None
        self.port = settings.grpc_port
        """The bound port, once started."""

    def add_service(
        self,
        register: Register[ServicerT],
        servicer: ServicerT,
        *,
        drain: Callable[[], None] | None = None,
    ) -> None:
        """Serve a business API: `add_service(add_XServicer_to_server, servicer)`.

        `drain` is called when the server drains: it lets calls end that would last.
        """
        if drain is not None:
            self._drains.append(drain)
        collector = _Collector()
        register(servicer, collector)
        self._handlers += collector.handlers
        self._services += [handler.service_name() for handler in collector.handlers]

    def add_step(self, step: GuardedStep) -> None:
        """Serve a step's Do and Compensate, by themselves and on the stream of all steps."""
        if step_stream.SERVICE not in self._services:
            self._handlers.append(self._step_stream.handler())
            self._services.append(step_stream.SERVICE)
        self._step_stream.add(step)
        self._handlers.append(_step_handler(step))
        self._services.append(step.types.service.full_name)

    def add_effects(self, effects: Effects) -> None:
        """Tell the coordinator which effects are held, from the records of the barrier."""
        add = mesh_pb2_grpc.add_EffectServiceServicer_to_server
        self.add_service(add, EffectService(effects))

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await self.start()
        spare_the_collector()
        try:
            await stop.wait()
        finally:
            await self.stop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            OSError: the address is taken.
        """
        methods = _Methods((*self._handlers, *self._own_handlers()), self._border)
        self._health.answer_for(self._services)
        server = RpcServer(methods.find, limit=MAX_RECEIVE_BYTES)
        host, port = self._settings.grpc_host, self._settings.grpc_port
        self.port = await server.listen(host, port, shares_port=self._shares_port)
        self._watch = asyncio.create_task(self._health.watch())
        self._server = server
        _log.info("server.listening", host=self._settings.grpc_host, port=self.port)

    async def stop(self) -> None:
        """Drain: refuse new calls, end response streams, let calls in flight finish."""
        if self._server is None or self._watch is None:
            return
        _log.info("server.draining", grace_seconds=self._settings.shutdown_grace_seconds)
        self._health.drain()
        await asyncio.sleep(0)  # who watches the health is told before the streams end
        for drain in self._drains:
            drain()
        grace_seconds = self._settings.shutdown_grace_seconds
        await asyncio.sleep(min(_FAREWELL_SECONDS, grace_seconds))
        await self._server.stop(grace_seconds)
        self._watch.cancel()
        await asyncio.wait({self._watch})
        _log.info("server.stopped")

    def _own_handlers(self) -> Sequence[ServiceHandler]:
        """Health and reflection."""
        collector = _Collector()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, collector)
        reflect = self._reflection((*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME))
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflect, collector)
        return collector.handlers


class _Methods:
    """Everything that is served, each method behind the border from its first call on."""

    def __init__(self, handlers: Sequence[GenericHandler], border: Border) -> None:
        self._handlers = handlers
        self._border = border
        self._methods: dict[str, Method] = {}

    def find(self, method: str) -> Method | None:
        """How /package.Service/Method is served; None means UNIMPLEMENTED."""
        if method not in self._methods:
            details = _Details(method)
            found = (handler.service(details) for handler in self._handlers)
            handler = next(filter(None, found), None)
            if handler is not None:
                self._methods[method] = self._border.wrap(method, handler)
        return self._methods.get(method)


class _Details(grpc.HandlerCallDetails):
    """All that a generated handler asks of a call: its method."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


class _Collector:
    """Stands in for a server while a generated `add_XServicer_to_server` registers a servicer."""

    def __init__(self) -> None:
        self.handlers: list[ServiceHandler] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[ServiceHandler]) -> None:
        self.handlers.extend(handlers)

    def add_registered_method_handlers(self, *_: object) -> None:
        """A second way to the same handlers."""


def _step_handler(step: GuardedStep) -> grpc.GenericRpcHandler[Any, Any]:
    return grpc.method_handlers_generic_handler(
        step.types.service.full_name,
        {
            method.name: grpc.unary_unary_rpc_method_handler(
                behaviour(method),
                request_deserializer=method.request.FromString,
                response_serializer=lambda response: response.SerializeToString(),
            )
            for method, behaviour in zip(methods_of(step), (_do, _compensate), strict=True)
        },
    )


def _do(method: StepMethod) -> Behaviour:
    async def do(request: Message, context: Context) -> Message:
        call = StepCall.from_metadata(context.invocation_metadata())
        try:
            response = await method.perform(call, request)
        except Rejected:
            context.set_trailing_metadata(((SAGA_OUTCOME, "rejected"),))
            raise
        context.set_trailing_metadata(((SAGA_OUTCOME, "done"),))
        return response

    return do


def _compensate(method: StepMethod) -> Behaviour:
    async def compensate(request: Message, context: Context) -> Message:
        call = StepCall.from_metadata(context.invocation_metadata())
        return await method.perform(call, request)

    return compensate
