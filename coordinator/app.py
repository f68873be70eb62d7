"""The composition root: the only place that builds concrete classes and ties them together."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import TracerProvider
from uuid_utils import uuid7

from coordinator.api.definition_service import DefinitionService
from coordinator.api.reflection import DefinitionsReflection
from coordinator.api.saga_service import SagaService
from coordinator.console.circuits import CircuitGauges
from coordinator.console.metrics import Metrics, serving
from coordinator.console.orphans import OrphanGauges
from coordinator.console.stuck import StuckGauges
from coordinator.console.ways import WayMetrics
from coordinator.core.model import Definition
from coordinator.definitions.base import DefinitionRefused
from coordinator.definitions.registry import Registry
from coordinator.engine.changes import ChangesElsewhere
from coordinator.engine.clock import Clock, LoopClock
from coordinator.engine.definitions import DefinitionUnavailable
from coordinator.engine.ends import EndsElsewhere
from coordinator.engine.engine import Engine, EngineSettings
from coordinator.engine.ownership import OwnershipSettings
from coordinator.engine.ports import Ports
from coordinator.journal.base import JournalUnavailable
from coordinator.journal.postgres import PostgresJournal
from coordinator.participants.addresses import parse_participants
from coordinator.participants.effects import GrpcEffects
from coordinator.participants.grpc import GrpcParticipants
from coordinator.participants.reflection import ReflectedContracts, ServedTwice
from coordinator.reconciliation.reconciler import Books, Reconciler, window_ms
from coordinator.reconciliation.reconciling import Reconciling
from coordinator.retention import Purging
from coordinator.routing import Routing
from coordinator.settings import Settings
from coordinator.shipped import ShippedDefinitions
from mesh.errors import MeshError
from mesh.server import Server
from mesh.telemetry import tracing
from mesh.waiting import place_of, until_there
from protos.saga.v1 import saga_pb2_grpc

_Duty = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Links:
    """What connects a coordinator to the world; everything else is built on it."""

    journal: PostgresJournal
    participants: GrpcParticipants
    contracts: ReflectedContracts
    tracer_provider: TracerProvider


async def main(settings: Settings) -> None:
    """Serve until SIGTERM.

    Raises:
        MeshError: it cannot start; says why.
    """
    try:
        async with _links(settings) as links:
            await _serve(settings, links)
    except (JournalUnavailable, ServedTwice) as error:
        raise MeshError("COORDINATOR_CANNOT_START", str(error)) from error


@asynccontextmanager
async def _links(settings: Settings) -> AsyncIterator[_Links]:
    targets = parse_participants(settings.participants)
    async with tracing("coordinator") as tracer_provider, _journal(settings) as journal:
        participants = GrpcParticipants(
            targets, tracer_provider=tracer_provider, streams=settings.step_streams
        )
        try:
            yield _Links(
                journal=journal,
                participants=participants,
                contracts=ReflectedContracts(targets),
                tracer_provider=tracer_provider,
            )
        finally:
            await participants.close()


@asynccontextmanager
async def _journal(settings: Settings) -> AsyncIterator[PostgresJournal]:
    where = place_of(settings.postgres_dsn)
    journal = PostgresJournal(settings.postgres_dsn)
    try:
        await until_there(journal.open, where=where, away=JournalUnavailable)
        yield journal
    finally:
        await journal.close()


async def _serve(settings: Settings, links: _Links) -> None:
    clock, metrics = LoopClock(asyncio.get_running_loop(), time.monotonic), Metrics()
    registry = Registry(links.journal, links.contracts)
    definitions = _Compiled(registry)
    engine = _engine(settings, links, definitions, clock, metrics)
    reconciler = _reconciler(settings, links, definitions, _told_ms(engine, clock))
    sagas = SagaService(
        engine, links.journal, registry, reconciler, now_ms=clock.now_ms, new_id=_new_id
    )
    server = _server(settings, links, engine, sagas, registry)
    routing = Routing(links.contracts, links.participants.route)
    duties = (
        engine.run,
        ChangesElsewhere(links.journal, engine.changes).run,
        EndsElsewhere(links.journal, engine.ends).run,
        routing.run,
        ShippedDefinitions(registry, settings.definitions_dir).register,
        *_chores(settings, links.journal, reconciler, clock, metrics),
    )
    await routing.refresh()
    with serving(metrics, host=settings.grpc_host, port=settings.console_port):
        await _run(settings, server, engine, duties)


async def _run(settings: Settings, server: Server, engine: Engine, duties: Iterable[_Duty]) -> None:
    """Serve with these duties at work, and hand the sagas over at the end."""
    async with asyncio.TaskGroup() as tasks:
        at_work = [tasks.create_task(duty()) for duty in duties]
        if settings.worker:  # as soon as it listens the kernel gives it connections of the others
            await engine.leased()
        await server.run()
        await engine.drain()
        for task in at_work:
            task.cancel()
    await engine.release()


def _engine(
    settings: Settings, links: _Links, definitions: _Compiled, clock: Clock, metrics: Metrics
) -> Engine:
    ports = Ports(
        journal=links.journal,
        participants=links.participants,
        clock=clock,
        stats=metrics,
        chance=random.random,
    )
    engine = Engine(_engine_settings(settings), ports, definitions=definitions)
    metrics.gauge("saga_in_memory", "Sagas that this instance runs now.", lambda: engine.sagas)
    CircuitGauges(metrics.registry, engine.conditions)
    WayMetrics(metrics.registry, lambda: links.participants.ways)
    return engine


def _reconciler(
    settings: Settings, links: _Links, definitions: _Compiled, now_ms: Callable[[], int]
) -> Reconciler:
    books = Books(
        effects=GrpcEffects(links.participants.channels),
        journal=links.journal,
        definitions=definitions,
        whose=links.participants.whose,
    )
    return Reconciler(books, now_ms=now_ms, window_ms=window_ms(settings.retention_days))


def _chores(
    settings: Settings,
    journal: PostgresJournal,
    reconciler: Reconciler,
    clock: Clock,
    metrics: Metrics,
) -> Iterable[_Duty]:
    """What is done now and then, whatever the sagas do."""
    reconciling = Reconciling(
        reconciler,
        OrphanGauges(metrics.registry, now_ms=clock.now_ms),
        every_seconds=settings.reconcile_minutes * 60,
        chance=random.random,
    )
    return (
        Purging(journal, days=settings.retention_days, purged=metrics.purged).run,
        reconciling.run,
        StuckGauges(metrics.registry, journal).run,
    )


def _engine_settings(settings: Settings) -> EngineSettings:
    ownership = OwnershipSettings(
        instance_id=settings.instance_id, lease_ms=int(settings.lease_seconds * 1_000)
    )
    return EngineSettings(
        ownership=ownership,
        max_sagas=settings.max_sagas,
        max_calls=settings.max_calls_per_participant,
        drain_ms=int(settings.shutdown_grace_seconds * 1_000),
    )


def _told_ms(engine: Engine, clock: Clock) -> Callable[[], int]:
    """The database's time, once the database has told it."""

    def told_ms() -> int:
        if not engine.ready:
            raise JournalUnavailable("the journal is away, or its lease is not held")
        return clock.now_ms()

    return told_ms


def _new_id() -> str:
    return str(uuid7())


def _server(
    settings: Settings, links: _Links, engine: Engine, sagas: SagaService, registry: Registry
) -> Server:
    async def journal_is_ready() -> None:
        if not engine.ready:
            raise JournalUnavailable("the journal is away, or its lease is not held")

    def reflection(services: Sequence[str]) -> DefinitionsReflection:
        return DefinitionsReflection(services, registry)

    server = Server(
        settings,
        ready={"journal": journal_is_ready},
        tracer_provider=links.tracer_provider,
        reflection=reflection,
        shares_port=settings.worker,
    )
    definitions = DefinitionService(registry)
    server.add_service(saga_pb2_grpc.add_DefinitionServiceServicer_to_server, definitions)
    server.add_service(saga_pb2_grpc.add_SagaServiceServicer_to_server, sagas, drain=sagas.drain)
    return server


class _Compiled:
    """The registry as the engine sees it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def load(self, content_hash: str) -> Definition:
        """See `engine.definitions.Definitions`."""
        try:
            compiled = await self._registry.load(content_hash)
        except DefinitionRefused as refused:
            raise DefinitionUnavailable(f"{content_hash} does not compile any more") from refused
        if compiled is None:
            raise DefinitionUnavailable(f"{content_hash} is not stored")
        return compiled.definition
