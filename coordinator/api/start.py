"""Starting a saga at most once per id.

A start is tried first and looked up only when something stands against it: a saga that exists, but
also a newer version that would not take the input any more. The saga that exists is the answer
when it was started by the same request; otherwise its id is used up.

As a rule a start needs no task: its version is at hand, and the engine calls back. Only what has to
ask the store waits in a task of its own. Whoever asked may go away meanwhile; the start goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

import structlog

from coordinator.api.ports import Sagas
from coordinator.api.refusals import saga_id_reused
from coordinator.api.stored import LoadedSaga, StoredSagas
from coordinator.api.versions import find_version, version_at_hand
from coordinator.core.model import RequestNotBuildable
from coordinator.core.saga import Saga
from coordinator.definitions.base import (
    CompiledDefinition,
    DefinitionRefused,
    Definitions,
    InputRefused,
)
from coordinator.engine.errors import Draining, Overloaded
from coordinator.engine.ports import NewSaga
from coordinator.journal.base import JournalUnavailable, RevisionConflict
from mesh.errors import MeshError, NotFound
from protos.saga.v1 import saga_pb2 as pb

log = structlog.get_logger(__name__)

Begun: TypeAlias = Callable[[LoadedSaga | Exception], None]

_IN_THE_WAY = (RevisionConflict, InputRefused, RequestNotBuildable, DefinitionRefused, NotFound)
_REFUSALS = (*_IN_THE_WAY, MeshError, JournalUnavailable, Draining, Overloaded)
_TURNS = 3
"""Sagas that are looked up at the same time: however many starts are repeated at once, readers have
sessions left for others."""


class Starts:
    """Starts sagas. `new_id` makes UUIDv7s."""

    def __init__(
        self,
        sagas: Sagas,
        definitions: Definitions,
        stored: StoredSagas,
        *,
        new_id: Callable[[], str],
    ) -> None:
        self._sagas = sagas
        self._definitions = definitions
        self._stored = stored
        self._new_id = new_id
        self._turns = asyncio.Semaphore(_TURNS)
        self._under_way: set[asyncio.Task[LoadedSaga]] = set()

    async def start(self, request: pb.StartSagaRequest, traceparent: str) -> LoadedSaga:
        """Return the saga once it is on disk; a caller that goes away changes nothing.

        Raises:
            NotFound: DEFINITION_NOT_FOUND.
            AlreadyExists: SAGA_ID_REUSED.
            InputRefused, RequestNotBuildable: no saga can run with this input.
            JournalUnavailable, Draining, Overloaded: not now.
        """
        answer: asyncio.Future[LoadedSaga] = asyncio.get_running_loop().create_future()
        self.begin(request, traceparent, partial(_tell, answer))
        return await answer

    def begin(self, request: pb.StartSagaRequest, traceparent: str, begun: Begun) -> None:
        """Start a saga; `begun` hears once, as `start` answers. It may be called at once."""
        name, content_hash = request.definition, request.definition_hash
        version = version_at_hand(self._definitions, name, content_hash)
        if version is None:
            self._resolve(self._start_slowly(request, traceparent), begun)
            return
        try:
            new = self._new(request, version, traceparent)
        except InputRefused as error:
            self._resolve(self._existing(request, error), begun)
            return
        except Exception as error:  # noqa: BLE001 - a bug; its caller hears it, the others go on
            begun(error)
            return
        self._sagas.begin(new, partial(self._heard, request, version, begun))

    def _heard(
        self,
        request: pb.StartSagaRequest,
        version: CompiledDefinition,
        begun: Begun,
        outcome: Saga | Exception,
    ) -> None:
        if isinstance(outcome, Saga):
            begun(LoadedSaga(outcome, version))
        elif isinstance(outcome, _IN_THE_WAY):
            self._resolve(self._existing(request, outcome), begun)
        else:
            begun(outcome)

    def _resolve(self, answer: Coroutine[Any, Any, LoadedSaga], begun: Begun) -> None:
        task = asyncio.create_task(answer)
        self._under_way.add(task)

        def resolved(task: asyncio.Task[LoadedSaga]) -> None:
            self._under_way.discard(task)
            if not task.cancelled():
                error = task.exception()
                begun(error if isinstance(error, Exception) else task.result())

        task.add_done_callback(resolved)

    async def _start_slowly(self, request: pb.StartSagaRequest, traceparent: str) -> LoadedSaga:
        name, content_hash = request.definition, request.definition_hash
        try:
            version = await find_version(self._definitions, name, content_hash)
            saga = await self._sagas.start(self._new(request, version, traceparent))
        except _IN_THE_WAY as error:
            return await self._existing(request, error)
        return LoadedSaga(saga, version)

    def _new(
        self, request: pb.StartSagaRequest, version: CompiledDefinition, traceparent: str
    ) -> NewSaga:
        input_bytes = version.check_input(request.input.type_url, request.input.value)
        return NewSaga(
            saga_id=request.saga_id or self._new_id(),
            definition=version.definition,
            input_bytes=input_bytes,
            keys=version.keys_of(input_bytes),
            traceparent=traceparent,
        )

    async def _existing(self, request: pb.StartSagaRequest, error: Exception) -> LoadedSaga:
        """The saga that this request has started; raises the error if there is none."""
        if not request.saga_id:
            raise error
        try:
            async with self._turns:
                existing = await self._stored.load(request.saga_id)
        except NotFound:
            raise error from None
        if not _is_asked_for(existing, request):
            raise saga_id_reused(request.saga_id)
        return existing


def _tell(answer: asyncio.Future[LoadedSaga], outcome: LoadedSaga | Exception) -> None:
    """To a caller that has gone nothing is told, and only a bug is worth a line."""
    if isinstance(outcome, LoadedSaga):
        if not answer.done():
            answer.set_result(outcome)
    elif not answer.done():
        answer.set_exception(outcome)
    elif not isinstance(outcome, _REFUSALS):
        log.error("start.failed", exc_info=outcome)


def _is_asked_for(existing: LoadedSaga, request: pb.StartSagaRequest) -> bool:
    if existing.version.name != request.definition:
        return False
    if request.definition_hash not in ("", existing.version.hash):
        return False
    try:
        given = existing.version.check_input(request.input.type_url, request.input.value)
    except InputRefused:
        return False
    return given == existing.saga.input_bytes
