"""A client of StartSagas for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias, cast

from google.rpc import error_details_pb2

from mesh.errors import InvalidRequest, MeshError
from mesh.rpc.served import Context
from protos.saga.v1 import saga_pb2 as pb
from tests.unit.api.desk import Desk, text
from tests.unit.engine.world import World

RUNNING, COMPLETED = pb.SAGA_STATE_RUNNING, pb.SAGA_STATE_COMPLETED
COMPENSATED, STUCK = pb.SAGA_STATE_COMPENSATED, pb.SAGA_STATE_STUCK


def start(
    saga_id: str = "saga-1",
    value: str = "in",
    **fields: Any,  # noqa: ANN401 - the message's fields
) -> pb.StartSagaRequest:
    given = {"definition": "story", "input": text(value), **fields}
    return pb.StartSagaRequest(saga_id=saga_id, **given)


class Client:
    """One client of StartSagas; it reads what it is told unless it is made to stop."""

    def __init__(self, desk: Desk) -> None:
        self._sent: asyncio.Queue[pb.StartSagasRequest | MeshError | None] = asyncio.Queue()
        self.told: list[pb.StartSagasResponse] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.taken = 0
        """Messages that were read from it."""
        self.stream: asyncio.Task[None] = asyncio.create_task(self._serve(desk))

    async def _serve(self, desk: Desk) -> None:
        serve = cast("Callable[..., Awaitable[None]]", desk.sagas.StartSagas)
        await serve(self._requests(), cast("Context", self))

    async def _requests(self) -> AsyncIterator[pb.StartSagasRequest]:
        while (sent := await self._sent.get()) is not None:
            if isinstance(sent, MeshError):
                raise sent
            self.taken += 1
            yield sent

    async def write(self, response: pb.StartSagasResponse) -> None:
        await self.reads.wait()
        self.told.append(response)

    def send(self, *sagas: pb.StartSagaRequest) -> None:
        self._sent.put_nowait(pb.StartSagasRequest(sagas=sagas))

    def send_garbage(self) -> None:
        """The border says it where the message is awaited."""
        self._sent.put_nowait(InvalidRequest([], reason="REQUEST_UNREADABLE"))

    def half_close(self) -> None:
        self._sent.put_nowait(None)

    @property
    def reports(self) -> list[tuple[str, int]]:
        """Every saga that was told of, with its state; 0 for a refusal."""
        return [(it.saga_id, it.state) for message in self.told for it in message.reports]

    async def hears(self, count: int) -> list[tuple[str, int]]:
        """All reports, once there are so many."""
        while len(self.reports) < count:
            await asyncio.sleep(0.001)
        assert len(self.reports) == count
        return self.reports

    async def refusal(self) -> pb.SagaReport:
        await self.hears(1)
        return self.told[0].reports[0]


Connect: TypeAlias = Callable[[Desk], Client]


async def wide_desk(world: World, desk: Desk) -> Desk:
    """A coordinator with room for many sagas."""
    coordinator = await world.coordinator("wide", max_sagas=50_000)
    return Desk(world, coordinator, desk.definitions)


def reason_of(report: pb.SagaReport) -> str:
    info = error_details_pb2.ErrorInfo()
    assert report.refusal.details[0].Unpack(info)
    assert info.domain == "saga.v1"
    return info.reason
