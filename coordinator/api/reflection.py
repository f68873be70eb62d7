"""Server reflection that also knows the messages of registered definitions.

The coordinator has no stub of them, but its clients name them: grpcurl asks for the type of an Any,
such as StartSaga's input, before it can send it as JSON.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer  # reflection.aio, see mesh.health
from typing_extensions import override

from coordinator.definitions.base import Definitions
from coordinator.definitions.lookup import DescriptorLookup
from coordinator.journal.base import JournalUnavailable
from mesh.rpc.served import Context


class DefinitionsReflection(reflection_pb2_grpc.ServerReflectionServicer):
    """Answers reflection with the newest definitions' types first, then with our own.

    `services` are the full names of what this server serves.
    """

    def __init__(self, services: Sequence[str], definitions: Definitions) -> None:
        self._services = services
        self._definitions = definitions
        self._known: DescriptorLookup | None = None

    @override
    async def ServerReflectionInfo(
        self,
        requests: AsyncIterator[reflection_pb2.ServerReflectionRequest],
        context: Context,
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        """Answer one client with what is registered when it begins to ask."""
        async for response in (await self._answers()).ServerReflectionInfo(requests, context):
            yield response

    async def _answers(self) -> ReflectionServicer:
        with suppress(JournalUnavailable):  # away: what was registered before, and our own services
            self._known = await self._definitions.descriptors()
        return ReflectionServicer(self._services, self._known)
