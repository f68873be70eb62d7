"""saga.v1.DefinitionService: register what sagas run, and read it."""

from __future__ import annotations

from typing_extensions import override

from coordinator.api import paging, validate
from coordinator.api.convert import problem_message, version_message, warning_message
from coordinator.api.refusals import definition_invalid, translated
from coordinator.api.versions import find_version
from coordinator.definitions.base import DefinitionRefused, Definitions
from mesh.rpc.served import Context
from mesh.validation import refuse_if_any
from protos.saga.v1 import saga_pb2 as pb
from protos.saga.v1 import saga_pb2_grpc


class DefinitionService(saga_pb2_grpc.DefinitionServiceServicer):
    """Answers DefinitionService."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions

    @override
    async def RegisterDefinition(
        self, request: pb.RegisterDefinitionRequest, context: Context
    ) -> pb.RegisterDefinitionResponse:
        """Store a definition that fits the running participants.

        Raises:
            InvalidRequest: DEFINITION_INVALID, with everything that is wrong; nothing is stored.
        """
        refuse_if_any(validate.source_violations(request.source))
        with translated():
            try:
                registration = await self._definitions.register(request.source)
            except DefinitionRefused as refused:
                raise definition_invalid(refused.problems) from None
        return pb.RegisterDefinitionResponse(
            version=version_message(registration.version),
            created=registration.created,
            warnings=[warning_message(warning) for warning in registration.warnings],
        )

    @override
    async def ValidateDefinition(
        self, request: pb.ValidateDefinitionRequest, context: Context
    ) -> pb.ValidateDefinitionResponse:
        """Say everything that is wrong with a definition; nothing is stored."""
        refuse_if_any(validate.source_violations(request.source))
        with translated():
            try:
                warnings = await self._definitions.validate(request.source)
            except DefinitionRefused as refused:
                errors = [problem_message(problem) for problem in refused.problems]
                return pb.ValidateDefinitionResponse(errors=errors)
        return pb.ValidateDefinitionResponse(warnings=[warning_message(it) for it in warnings])

    @override
    async def GetDefinition(
        self, request: pb.GetDefinitionRequest, context: Context
    ) -> pb.GetDefinitionResponse:
        """Read one version of a definition, by default the newest.

        Raises:
            NotFound: DEFINITION_NOT_FOUND.
        """
        refuse_if_any(validate.version_violations("name", request.name, request.definition_hash))
        with translated():
            version = await find_version(self._definitions, request.name, request.definition_hash)
        return pb.GetDefinitionResponse(version=version_message(version))

    @override
    async def ListDefinitions(
        self, request: pb.ListDefinitionsRequest, context: Context
    ) -> pb.ListDefinitionsResponse:
        """List the newest version of every definition, by name."""
        refuse_if_any(validate.list_definitions_violations(request))
        place = paging.read_token(request, paging.NAME_PLACE)
        after, limit = place[0] if place else "", paging.size(request) + 1
        with translated():
            found = await self._definitions.list(after=after, limit=limit)
        messages = [version_message(version) for version in found]
        versions, token = paging.page(request, messages, lambda version: version.name)
        return pb.ListDefinitionsResponse(versions=versions, next_page_token=token)
