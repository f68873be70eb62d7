from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import cast

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

    def __init__(self, *answers: list[Contract | ParticipantUnreachable]) -> None:
        self._answers = list(answers)

    async def fetch(self) -> Iterable[Contract | ParticipantUnreachable]:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


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
