"""A coordinator without an engine: it starts sagas idempotently and tells what the test decides."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from typing_extensions import override

from mesh.errors import AlreadyExists, MeshError, NotFound
from mesh.server import Server
from mesh.settings import ServiceSettings
from protos.saga.v1 import saga_pb2, saga_pb2_grpc


class StandInCoordinator(saga_pb2_grpc.SagaServiceServicer):
    """Answers StartSaga and GetSaga as the coordinator does, on one port, whether up or down."""

    def __init__(self) -> None:
        self.sagas: dict[str, saga_pb2.Saga] = {}
        self.starts = 0
        """How often StartSaga was asked, whatever the answer."""
        self._asked = asyncio.Condition()
        self.refusal: MeshError | None = None
        """What StartSaga answers instead of starting anything."""
        self.lose_answers = False
        """StartSaga starts the saga and then does not say so."""
        self.silent = False
        """StartSaga is never answered, as by a process that is stopped."""
        self._started: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._server: Server | None = None
        self._port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def up(self) -> None:
        settings = ServiceSettings(
            grpc_host="127.0.0.1", grpc_port=self._port, shutdown_grace_seconds=0
        )
        self._server = Server(settings)
        self._server.add_service(saga_pb2_grpc.add_SagaServiceServicer_to_server, self)
        await self._server.start()
        self._port = self._server.port

    async def down(self) -> None:
        if self._server is not None:
            await self._server.stop()
        self._server = None

    async def was_asked(self, times: int) -> None:
        """Wait until StartSaga was asked so often, whatever the answer."""
        async with self._asked:
            await self._asked.wait_for(lambda: self.starts >= times)

    async def has_started(self, saga_id: str) -> saga_pb2.Saga:
        """Wait until the saga is started."""
        await self._started[saga_id].wait()
        return self.sagas[saga_id]

    def fail(
        self,
        saga_id: str,
        reason: str,
        state: saga_pb2.SagaState = saga_pb2.SAGA_STATE_COMPENSATED,
    ) -> None:
        """The saga has taken the way back."""
        self.sagas[saga_id].failure.reason = reason
        self.sagas[saga_id].state = state

    @override
    async def StartSaga(
        self, request: saga_pb2.StartSagaRequest, context: object
    ) -> saga_pb2.StartSagaResponse:
        async with self._asked:
            self.starts += 1
            self._asked.notify_all()
        if self.silent:
            await asyncio.get_running_loop().create_future()
        if self.refusal is not None:
            raise self.refusal
        wanted = saga_pb2.Saga(
            saga_id=request.saga_id,
            definition=request.definition,
            input=request.input,
            state="SAGA_STATE_RUNNING",
        )
        saga = self.sagas.setdefault(request.saga_id, wanted)
        if (saga.definition, saga.input) != (wanted.definition, wanted.input):
            raise AlreadyExists("SAGA_ID_REUSED", "another definition or input")
        self._started[request.saga_id].set()
        if self.lose_answers:
            raise MeshError("LOST", "the answer is lost on its way")
        return saga_pb2.StartSagaResponse(saga=saga)

    @override
    async def GetSaga(
        self, request: saga_pb2.GetSagaRequest, context: object
    ) -> saga_pb2.GetSagaResponse:
        saga = self.sagas.get(request.saga_id)
        if saga is None:
            raise NotFound("SAGA_NOT_FOUND", "no saga", resource_type="Saga", name=request.saga_id)
        return saga_pb2.GetSagaResponse(saga=saga)
