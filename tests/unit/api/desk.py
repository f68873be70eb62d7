"""The API of a coordinator in this process, on the real engine and the journal's fake."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from google.protobuf.any_pb2 import Any
from google.protobuf.descriptor_pool import Default, DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import StringValue
from msgspec.structs import replace

from coordinator.api.definition_service import DefinitionService
from coordinator.api.saga_service import SagaService
from coordinator.core.model import Definition
from coordinator.definitions.base import (
    CompiledDefinition,
    DefinitionProblem,
    DefinitionRefused,
    DefinitionWarning,
    InputRefused,
    Registration,
)
from coordinator.definitions.lookup import DescriptorLookup
from coordinator.engine.changes import ChangesElsewhere
from coordinator.journal.base import JournalUnavailable
from coordinator.reconciliation.reconciler import Books, Reconciler
from mesh.rpc.served import Context
from protos.saga.v1 import saga_pb2 as pb
from tests.builders import definition
from tests.unit.engine.world import Coordinator, World
from tests.unit.reconciliation.audit import Records

INPUT_TYPE = StringValue.DESCRIPTOR.full_name
WARNING = DefinitionWarning(line=2, column=3, path="steps[0]", message="careful")


def problem(number: int = 1, *, message: str = "no such type") -> DefinitionProblem:
    return DefinitionProblem(
        line=number,
        column=8,
        path=f"steps[{number}].request",
        reason="TYPE_UNKNOWN",
        message=message,
        excerpt="request: x.Y{}\n         ^",
    )


def text(value: str = "in") -> Any:
    """An input that the definitions of these tests take."""
    packed = Any()
    packed.Pack(StringValue(value=value))
    return packed


def compiled(
    name: str, *steps: str, revision: int = 1, story: Definition | None = None
) -> CompiledDefinition:
    """A version whose sagas take a StringValue and have it as their key `text`."""
    content_hash = f"{name.encode().hex()}{revision:02d}".rjust(64, "0")
    chosen = replace(story or definition(*steps), name=name, hash=content_hash)
    message = pb.Definition(name=name, input=INPUT_TYPE)
    return CompiledDefinition(
        name=name,
        hash=content_hash,
        source=f"name: {name}",
        definition=chosen,
        message=message.SerializeToString(),
        input_type=INPUT_TYPE,
        check_input=_check_input,
        keys_of=lambda value: {"text": StringValue.FromString(value).value},
        descriptors=b"",
        created_ms=1,
    )


def _check_input(type_url: str, value: bytes) -> bytes:
    if not type_url.endswith("/" + INPUT_TYPE):
        raise InputRefused("INPUT_TYPE_MISMATCH", f"expected {INPUT_TYPE}")
    try:
        return StringValue.FromString(value).SerializeToString(deterministic=True)
    except DecodeError:
        raise InputRefused("INPUT_MALFORMED", f"these bytes are no {INPUT_TYPE}") from None


@dataclass
class KnownDefinitions:
    """The definitions' port, with what a test has put there."""

    versions: list[CompiledDefinition] = field(default_factory=list)
    refused: Sequence[DefinitionProblem] = ()
    away: bool = False
    forgetful: bool = False
    """Nothing is at hand: every version has to be asked for."""
    types: DescriptorPool = field(default_factory=DescriptorPool)
    """What participants' messages look like; our own process has no stubs of them."""

    def _reach(self) -> list[CompiledDefinition]:
        if self.away:
            raise JournalUnavailable
        return self.versions

    async def register(self, source: str) -> Registration:
        if self.refused:
            raise DefinitionRefused(self.refused)
        version = compiled(source.removeprefix("name: "), "a")
        known = version.hash in [known.hash for known in self._reach()]
        if not known:
            self.versions.append(version)
        return Registration(version=version, created=not known, warnings=(WARNING,))

    async def validate(self, source: str) -> tuple[DefinitionWarning, ...]:
        if self.refused:
            raise DefinitionRefused(self.refused)
        return (WARNING,)

    def at_hand(self, name: str, content_hash: str = "") -> CompiledDefinition | None:
        if self.away or self.forgetful:
            return None
        same = [v for v in self.versions if v.name == name and content_hash in ("", v.hash)]
        return same[-1] if same else None

    async def newest(self, name: str) -> CompiledDefinition | None:
        return next((v for v in reversed(self._reach()) if v.name == name), None)

    async def load(self, content_hash: str) -> CompiledDefinition | None:
        return next((v for v in self._reach() if v.hash == content_hash), None)

    async def list(self, *, after: str = "", limit: int = 50) -> Sequence[CompiledDefinition]:
        newest = {version.name: version for version in self._reach()}
        return [newest[name] for name in sorted(newest) if name > after][:limit]

    async def descriptors(self) -> DescriptorLookup:
        self._reach()
        return DescriptorLookup([self.types, Default()])


@dataclass
class Caller:
    """What the API asks of an RPC's context."""

    seconds: float | None = None

    def time_remaining(self) -> float | None:
        return self.seconds

    def peer(self) -> str:
        return "ipv6:%5B::1%5D:50999"


def caller(seconds: float | None = None) -> Context:
    return cast("Context", Caller(seconds))


class Desk:
    """One coordinator with its API; several may share one world."""

    def __init__(
        self, world: World, coordinator: Coordinator, definitions: KnownDefinitions
    ) -> None:
        self.world = world
        self.coordinator = coordinator
        self.definitions = definitions
        self.records = Records()
        """What participants say that they hold."""
        numbers = itertools.count(1)
        self.sagas = SagaService(
            coordinator.engine,
            coordinator.journal,
            definitions,
            self._reconciler(),
            now_ms=world.now_ms,
            new_id=lambda: f"made-{next(numbers)}",
        )
        self.registry = DefinitionService(definitions)
        elsewhere = ChangesElsewhere(coordinator.journal, coordinator.engine.changes)
        self._looking = asyncio.create_task(elsewhere.run())

    def _reconciler(self) -> Reconciler:
        books = Books(
            effects=self.records,
            journal=self.coordinator.journal,
            definitions=self.world.definitions,
            whose=self.coordinator.participants.whose,
        )
        return Reconciler(books, now_ms=self.world.now_ms, window_ms=60_000)

    def know(self, version: CompiledDefinition) -> CompiledDefinition:
        """Make a version the newest of its name."""
        self.definitions.versions.append(version)
        self.world.definitions.by_hash[version.hash] = version.definition
        return version

    async def start(
        self, saga_id: str = "saga-1", name: str = "story", value: str = "in"
    ) -> pb.Saga:
        request = pb.StartSagaRequest(saga_id=saga_id, definition=name, input=text(value))
        return (await self.sagas.StartSaga(request, caller())).saga

    async def get(self, saga_id: str = "saga-1") -> pb.Saga:
        return (await self.sagas.GetSaga(pb.GetSagaRequest(saga_id=saga_id), caller())).saga

    async def list_ids(self) -> list[str]:
        response = await self.sagas.ListSagas(pb.ListSagasRequest(), caller())
        return [saga.saga_id for saga in response.sagas]
