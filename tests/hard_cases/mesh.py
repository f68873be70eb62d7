"""Coordinators and participants in this process, over real gRPC and behind real barriers.

Between a coordinator and each step is a wire on which calls and answers can get lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from google.protobuf.message import Message

from coordinator.core.evolve import replay
from coordinator.core.model import Definition, RequestBuilder, RetryPolicy, SagaState, Step
from coordinator.core.saga import Saga
from coordinator.engine.clock import LoopClock
from coordinator.engine.engine import Engine, EngineSettings
from coordinator.engine.ownership import OwnershipSettings
from coordinator.engine.ports import NewSaga, Ports
from coordinator.journal.memory import MemoryJournal, MemoryStore
from coordinator.participants.base import Contract
from coordinator.participants.grpc import GrpcParticipants
from mesh.clock import wall_clock_ms
from mesh.errors import Rejected, Retry
from mesh.server import Server
from mesh.settings import ServiceSettings
from mesh.step import GuardedStep, StepCall
from tests.unit.engine.world import Counts, Definitions, World

NewWorld = Callable[[], World]
"""What the fixture `new_world` is: the same without a network, on virtual time."""


@dataclass
class Wire:
    """A step, and what happens to calls on their way to it and to answers on their way back."""

    step: GuardedStep
    lose_calls: int = 0
    """So many of the next Dos do not arrive; they can be delivered later."""
    lose_answers: int = 0
    """So many of the next Dos are served, and their answers get lost."""
    requests: list[Message] = field(default_factory=list)
    answers: list[Message | Rejected] = field(default_factory=list)
    """What was answered to each Do that arrived, heard or not."""
    compensations: int = 0
    served: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a Do was served."""
    _lost: list[tuple[StepCall, Message]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.types = self.step.types

    async def do(self, call: StepCall, request: Message) -> Message:
        self.requests.append(request)
        if self.lose_calls:
            self.lose_calls -= 1
            self._lost.append((call, request))
            never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
            return await never
        answer = await self._serve(call, request)
        if self.lose_answers:
            self.lose_answers -= 1
            raise Retry("CONNECTION_LOST", "the answer is lost", retry_after_ms=0)
        if isinstance(answer, Rejected):
            raise answer
        return answer

    async def _serve(self, call: StepCall, request: Message) -> Message | Rejected:
        answer: Message | Rejected
        try:
            answer = await self.step.do(call, request)
        except Rejected as rejected:
            answer = rejected
        self.answers.append(answer)
        self.served.set()
        return answer

    async def compensate(self, call: StepCall, compensation: Message) -> Message:
        self.compensations += 1
        return await self.step.compensate(call, compensation)

    async def deliver_late(self) -> None:
        """The Dos that got lost arrive after all; whatever is answered, nobody hears it."""
        while self._lost:
            call, request = self._lost.pop()
            with suppress(Exception):
                await self.step.do(call, request)


def step(
    name: str,
    wire: Wire,
    request: Message | RequestBuilder,
    *,
    attempts: int = 1,
    timeout_ms: int = 5_000,
) -> Step:
    """A step of a definition; a request that is a message is always the same."""
    build = request if callable(request) else _always(request)
    return Step(
        name=name,
        service=wire.types.service.full_name,
        build=build,
        timeout_ms=timeout_ms,
        retry=RetryPolicy(max_attempts=attempts, initial_interval_ms=1),
        compensation_retry=RetryPolicy(max_attempts=100, initial_interval_ms=1),
    )


def _always(request: Message) -> RequestBuilder:
    return lambda _input, _responses: request.SerializeToString(deterministic=True)


class Mesh:
    """One journal, one participant, and as many coordinators as are started."""

    def __init__(self, port: int, services: frozenset[str]) -> None:
        self.store = MemoryStore(wall_clock_ms)
        self.reader = MemoryJournal(self.store)
        self._address = f"127.0.0.1:{port}"
        self._services = services
        self.definitions = Definitions()
        self._running: list[Coordinator] = []

    async def coordinator(self, instance_id: str = "one") -> Coordinator:
        participants = GrpcParticipants({"participant": self._address})
        participants.route([Contract(participant="participant", services=self._services, files=())])
        self._running.append(Coordinator(self, instance_id, participants))
        return await self._running[-1].ready()

    async def close(self) -> None:
        for coordinator in self._running:
            await coordinator.kill()

    async def saga(self, saga_id: str) -> Saga:
        """The saga as it is on disk."""
        stored = await self.reader.load(saga_id)
        assert stored is not None
        story = self.definitions.by_hash[stored.definition_hash]
        return replay(saga_id, story, ((e.event, e.commands) for e in stored.entries))

    async def until(self, saga_id: str, *states: SagaState) -> Saga:
        """The saga once it is in one of these states on disk."""
        while (saga := await self.saga(saga_id)).state not in states:
            await asyncio.sleep(0.002)
        return saga


class Coordinator:
    """One instance."""

    def __init__(self, mesh: Mesh, instance_id: str, participants: GrpcParticipants) -> None:
        self._mesh = mesh
        self._participants = participants
        self.journal = MemoryJournal(mesh.store)
        ports = Ports(
            journal=self.journal,
            participants=participants,
            clock=LoopClock(asyncio.get_running_loop()),
            stats=Counts(),
            chance=lambda: 0.0,
        )
        settings = EngineSettings(ownership=OwnershipSettings(instance_id=instance_id))
        self.engine = Engine(settings, ports, definitions=mesh.definitions)
        self._task = asyncio.create_task(self.engine.run())

    async def ready(self) -> Coordinator:
        while not self.engine.ready:
            await asyncio.sleep(0.002)
        return self

    async def start(self, saga_id: str, *steps: Step) -> None:
        story = Definition(name="story", hash=f"story of {saga_id}", steps=steps)
        self._mesh.definitions.by_hash[story.hash] = story
        await self.engine.start(
            NewSaga(saga_id=saga_id, definition=story, input_bytes=b"", keys={})
        )

    async def run(self, saga_id: str, *steps: Step) -> Saga:
        """Start a saga and return it once it goes no further."""
        await self.start(saga_id, *steps)
        return await self._mesh.until(
            saga_id, SagaState.COMPLETED, SagaState.COMPENSATED, SagaState.STUCK
        )

    async def kill(self) -> None:
        """Stop without a word, as kill -9 does."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._participants.close()


@asynccontextmanager
async def mesh_of(wires: Sequence[Wire]) -> AsyncIterator[Mesh]:
    """Serve these steps and run coordinators beside them."""
    server = Server(ServiceSettings(grpc_host="127.0.0.1", grpc_port=0, shutdown_grace_seconds=0))
    for wire in wires:
        server.add_step(wire)
    await server.start()
    services = frozenset(wire.types.service.full_name for wire in wires)
    mesh = Mesh(server.port, services)
    try:
        yield mesh
    finally:
        await mesh.close()
        await server.stop()
