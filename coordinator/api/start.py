"""Starting a saga at most once per id.

A start is tried first and looked up only when something stands against it: a saga that exists, but
also a newer version that would not take the input any more. The saga that exists is the answer
when it was started by the same request; otherwise its id is used up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from coordinator.api.ports import Sagas
from coordinator.api.refusals import saga_id_reused
from coordinator.api.stored import LoadedSaga, StoredSagas
from coordinator.api.versions import find_version
from coordinator.core.model import RequestNotBuildable
from coordinator.definitions.base import DefinitionRefused, Definitions, InputRefused
from coordinator.journal.base import RevisionConflict
from mesh.errors import NotFound
from protos.saga.v1 import saga_pb2 as pb

_IN_THE_WAY = (RevisionConflict, InputRefused, RequestNotBuildable, DefinitionRefused, NotFound)


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
        return await asyncio.shield(task)

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
