"""Starting a saga at most once per id.

A start is tried first and looked up only when something stands against it: a saga that exists, but
also a newer version that would not take the input any more. The saga that exists is the answer
when it was started by the same request; otherwise its id is used up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from coordinator.api.ports import Sagas
from coordinator.api.refusals import saga_id_reused
from coordinator.api.stored import LoadedSaga, StoredSagas
from coordinator.api.versions import find_version
from coordinator.core.model import RequestNotBuildable
from coordinator.definitions.base import DefinitionRefused, Definitions, InputRefused
from coordinator.engine.errors import Draining, Overloaded
from coordinator.journal.base import JournalUnavailable, RevisionConflict
from mesh.errors import MeshError, NotFound
from protos.saga.v1 import saga_pb2 as pb

log = structlog.get_logger(__name__)

_IN_THE_WAY = (RevisionConflict, InputRefused, RequestNotBuildable, DefinitionRefused, NotFound)
_REFUSALS = (*_IN_THE_WAY, MeshError, JournalUnavailable, Draining, Overloaded)


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
        self._under_way: set[asyncio.Task[LoadedSaga]] = set()

    async def start(self, request: pb.StartSagaRequest, traceparent: str) -> LoadedSaga:
        """Return the saga once it is on disk; a caller that goes away changes nothing.

        Raises:
            NotFound: DEFINITION_NOT_FOUND.
            AlreadyExists: SAGA_ID_REUSED.
            InputRefused, RequestNotBuildable: no saga can run with this input.
            JournalUnavailable, Draining, Overloaded: not now.
        """
        task = asyncio.create_task(self._start_once(request, traceparent))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_unheard)
            raise

    async def _start_once(self, request: pb.StartSagaRequest, traceparent: str) -> LoadedSaga:
        try:
            return await self._start_new(request, traceparent)
        except _IN_THE_WAY:
            existing = await self._existing(request)
            if existing is None:
                raise
            return existing

    async def _start_new(self, request: pb.StartSagaRequest, traceparent: str) -> LoadedSaga:
        version = await find_version(self._definitions, request.definition, request.definition_hash)
        input_bytes = version.check_input(request.input.type_url, request.input.value)
        saga = await self._sagas.start(
            saga_id=request.saga_id or self._new_id(),
            definition=version.definition,
            input_bytes=input_bytes,
            keys=version.keys_of(input_bytes),
            traceparent=traceparent,
        )
        return LoadedSaga(saga, version)

    async def _existing(self, request: pb.StartSagaRequest) -> LoadedSaga | None:
        if not request.saga_id:
            return None
        try:
            existing = await self._stored.load(request.saga_id)
        except NotFound:
            return None
        if not _is_asked_for(existing, request):
            raise saga_id_reused(request.saga_id)
        return existing


def _unheard(start: asyncio.Task[LoadedSaga]) -> None:
    """The caller has gone: of what it would have been told, only a bug is worth a line."""
    error = None if start.cancelled() else start.exception()
    if error is not None and not isinstance(error, _REFUSALS):
        log.error("start.failed", exc_info=error)


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
