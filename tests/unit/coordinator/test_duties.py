from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import cast

from google.protobuf.descriptor_pb2 import (
    FileDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)
from structlog.testing import capture_logs

from coordinator.definitions.base import (
    CompiledDefinition,
    DefinitionProblem,
    DefinitionRefused,
    Definitions,
    Registration,
)
from coordinator.participants.base import Contract, ParticipantUnreachable
from coordinator.routing import Routing
from coordinator.shipped import ShippedDefinitions

ORDER = Contract(participant="order", services=frozenset({"order.v1.CreateOrder"}), files=())
AWAY = ParticipantUnreachable("payment at 127.0.0.1:1 is away")


class Participants:
    """Answers reflection, one more participant each time."""

    def __init__(self, *answers: Sequence[Contract | ParticipantUnreachable]) -> None:
        self._answers = list(answers)
        self.run_out: Callable[[], None] = lambda: None
        """Called when the last answer, which is given for ever, is given again."""

    async def fetch(self) -> Iterable[Contract | ParticipantUnreachable]:
        if len(self._answers) > 1:
            return self._answers.pop(0)
        self.run_out()
        return self._answers[0]


async def test_what_reachable_participants_serve_is_routed_whoever_is_away() -> None:
    routed: list[list[Contract]] = []
    routing = Routing(Participants([ORDER, AWAY]), lambda told: routed.append(list(told)))
    await routing.refresh()
    assert routed == [[ORDER]]


async def test_a_participant_that_comes_up_late_is_found() -> None:
    found = asyncio.Event()

    def route(told: Iterable[Contract]) -> None:
        if list(told):
            found.set()

    routing = Routing(Participants([AWAY], [ORDER]), route, while_away_seconds=0.001)
    await routing.refresh()
    task = asyncio.create_task(routing.run())
    await asyncio.wait_for(found.wait(), 5)
    task.cancel()


def serving(participant: str) -> Contract:
    do, compensate = MethodDescriptorProto(name="Do"), MethodDescriptorProto(name="Compensate")
    step = ServiceDescriptorProto(name="CreateOrder", method=[do, compensate])
    file = FileDescriptorProto(package="order.v1", service=[step]).SerializeToString()
    return Contract(participant=participant, services=ORDER.services, files=(file,))


async def test_a_step_that_is_served_twice_is_told_once_until_that_changes() -> None:
    once, twice = [serving("order")], [serving("order"), serving("stock")]
    participants = Participants(once, twice, twice, once, twice)
    asked = asyncio.Event()
    participants.run_out = asked.set
    routing = Routing(participants, lambda _: None, every_seconds=0.001)
    await routing.refresh()
    with capture_logs() as told:
        task = asyncio.create_task(routing.run())
        async with asyncio.timeout(5):
            await asked.wait()
        task.cancel()
    assert [line["event"] for line in told] == ["participants.served_twice"] * 2
    assert "order.v1.CreateOrder is served by order and by stock" in told[0]["why"]


class Registry:
    """Refuses a definition as often as it is told to."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.registered: list[str] = []

    async def register(self, source: str) -> Registration:
        if self.refusals:
            self.refusals -= 1
            raise DefinitionRefused([_problem()])
        self.registered.append(source)
        version = cast("CompiledDefinition", _Named())
        return Registration(version=version, created=True, warnings=())


class _Named:
    name = "story"
    hash = "00"


def _problem() -> DefinitionProblem:
    return DefinitionProblem(
        line=1, column=1, path="steps[0]", reason="PARTICIPANT_UNREACHABLE", message="", excerpt=""
    )


async def test_shipped_definitions_are_registered_once_their_participants_answer(
    tmp_path: Path,
) -> None:
    (tmp_path / "story.yaml").write_text("name: story")
    (tmp_path / "notes.txt").write_text("no definition")
    registry = Registry(refusals=3)
    shipped = ShippedDefinitions(cast("Definitions", registry), tmp_path, retry_seconds=0.001)
    await shipped.register()
    assert registry.registered == ["name: story"]


async def test_a_file_that_cannot_be_read_is_told_and_does_not_stop_the_coordinator(
    tmp_path: Path,
) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe")
    (tmp_path / "good.yaml").write_text("name: story")
    registry = Registry(refusals=0)
    shipped = ShippedDefinitions(cast("Definitions", registry), tmp_path, retry_seconds=0.001)
    task = asyncio.create_task(shipped.register())
    while not registry.registered:
        await asyncio.sleep(0)
    (tmp_path / "bad.yaml").write_text("name: mended")
    await asyncio.wait_for(task, 5)
    assert registry.registered == ["name: story", "name: mended"]
