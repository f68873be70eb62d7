"""The composition root: the only place that builds concrete classes and ties them together."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from opentelemetry.trace import TracerProvider
from uuid_utils import uuid7

from coordinator.api.definition_service import DefinitionService
from coordinator.api.reflection import DefinitionsReflection
from coordinator.api.saga_service import SagaService
from coordinator.console.circuits import CircuitGauges
from coordinator.console.metrics import Metrics, serving
from coordinator.console.orphans import OrphanGauges
from coordinator.console.stuck import StuckGauges
from coordinator.core.model import Definition
from coordinator.definitions.base import DefinitionRefused
from coordinator.definitions.registry import Registry
from coordinator.engine.clock import Clock, LoopClock
from coordinator.engine.definitions import DefinitionUnavailable
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


async def main(settings: Settings) -> None:
    """Serve until SIGTERM.

    Raises:
        MeshError: it cannot start; says why.
    """
    try:
        async with (
            tracing("coordinator") as tracer_provider,
            _journal(settings) as journal,
            _participants(settings, tracer_provider) as (participants, contracts),
        ):
            await _serve(settings, journal, participants, contracts, tracer_provider)
    except (JournalUnavailable, ServedTwice) as error:
        raise MeshError("COORDINATOR_CANNOT_START", str(error)) from error


@asynccontextmanager
async def _journal(settings: Settings) -> AsyncIterator[PostgresJournal]:
    where = place_of(settings.postgres_dsn)
    journal = PostgresJournal(settings.postgres_dsn)
    try:
        await until_there(journal.open, where=where, away=JournalUnavailable)
        yield journal
    finally:
        await journal.close()


@asynccontextmanager
async def _participants(
    settings: Settings, tracer_provider: TracerProvider
) -> AsyncIterator[tuple[GrpcParticipants, ReflectedContracts]]:
    targets = parse_participants(settings.participants)
    participants = GrpcParticipants(targets, tracer_provider=tracer_provider)
    try:
        yield participants, ReflectedContracts(targets)
    finally:
        await participants.close()


async def _serve(
    settings: Settings,
    journal: PostgresJournal,
    participants: GrpcParticipants,
    contracts: ReflectedContracts,
    tracer_provider: TracerProvider,
) -> None:
    clock, metrics = LoopClock(asyncio.get_running_loop()), Metrics()
    registry = Registry(journal, contracts)
    ports = Ports(
        journal=journal,
        participants=participants,
        clock=clock,
        stats=metrics,
        chance=random.random,
    )
    definitions = _Compiled(registry)
    engine = Engine(_engine_settings(settings), ports, definitions=definitions)
    metrics.gauge("saga_in_memory", "Sagas that this instance runs now.", lambda: engine.sagas)
    CircuitGauges(metrics.registry, engine.conditions)
    stuck = StuckGauges(metrics.registry, journal)
    server = _server(settings, engine, registry, tracer_provider)
    books = Books(
        effects=GrpcEffects(participants.channels),
        journal=journal,
        definitions=definitions,
        whose=participants.whose,
    )
    window = window_ms(settings.retention_days)
    reconciler = Reconciler(books, now_ms=_told_ms(engine, clock), window_ms=window)
    orphans = OrphanGauges(metrics.registry, now_ms=clock.now_ms)
    sagas = SagaService(engine, journal, registry, reconciler, now_ms=clock.now_ms, new_id=_new_id)
    server.add_service(saga_pb2_grpc.add_SagaServiceServicer_to_server, sagas)
    routing = Routing(contracts, participants.route)
    shipped = ShippedDefinitions(registry, settings.definitions_dir)
    purging = Purging(journal, days=settings.retention_days, purged=metrics.purged)
    reconciling = Reconciling(
        reconciler, orphans, every_seconds=settings.reconcile_minutes * 60, chance=random.random
    )
    await routing.refresh()
    with serving(metrics, host=settings.grpc_host, port=settings.console_port):
        async with asyncio.TaskGroup() as tasks:
            duties = [
                tasks.create_task(duty)
                for duty in (
                    engine.run(),
                    routing.run(),
                    shipped.register(),
                    purging.run(),
                    reconciling.run(),
                    stuck.run(),
                )
            ]
            await server.run()
            await engine.drain()
            for task in duties:
                task.cancel()
        await engine.release()


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
    settings: Settings, engine: Engine, registry: Registry, tracer_provider: TracerProvider
) -> Server:
    async def journal_is_ready() -> None:
        if not engine.ready:
            raise JournalUnavailable("the journal is away, or its lease is not held")

    def reflection(services: Sequence[str]) -> DefinitionsReflection:
        return DefinitionsReflection(services, registry)

    server = Server(
        settings,
        ready={"journal": journal_is_ready},
        tracer_provider=tracer_provider,
        reflection=reflection,
    )
    definitions = DefinitionService(registry)
    server.add_service(saga_pb2_grpc.add_DefinitionServiceServicer_to_server, definitions)
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
