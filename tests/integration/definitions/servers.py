"""Participants in this process that serve nothing but reflection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import (
    ServerReflectionRequest,
    ServerReflectionResponse,
)

Answer = Callable[[ServerReflectionRequest], ServerReflectionResponse]


@asynccontextmanager
async def reflecting(pool: DescriptorPool, *services: str) -> AsyncIterator[str]:
    """A server with grpcio's own reflection of these services; yields its address."""
    server = grpc.aio.server()
    names = [*services, reflection.SERVICE_NAME, "grpc.health.v1.Health"]
    reflection.enable_server_reflection(names, server, pool)
    async with _started(server) as address:
        yield address


@asynccontextmanager
async def answering(answer: Answer, *, protocol: str = "v1alpha") -> AsyncIterator[str]:
    """A server whose reflection answers as a test wants; yields its address."""

    async def info(
        requests: AsyncIterator[ServerReflectionRequest],
        _context: grpc.aio.ServicerContext[ServerReflectionRequest, ServerReflectionResponse],
    ) -> AsyncIterator[ServerReflectionResponse]:
        async for request in requests:
            yield answer(request)

    handler = grpc.stream_stream_rpc_method_handler(
        info,
        request_deserializer=ServerReflectionRequest.FromString,
        response_serializer=ServerReflectionResponse.SerializeToString,
    )
    server = grpc.aio.server()
    service = f"grpc.reflection.{protocol}.ServerReflection"
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {"ServerReflectionInfo": handler}),)
    )
    async with _started(server) as address:
        yield address


@asynccontextmanager
async def _started(server: grpc.aio.Server) -> AsyncIterator[str]:
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def listing(services: Iterable[str]) -> ServerReflectionResponse:
    """The answer to list_services."""
    response = ServerReflectionResponse()
    for name in services:
        response.list_services_response.service.add(name=name)
    return response


def files(*contents: bytes) -> ServerReflectionResponse:
    """The answer to a question for a file."""
    response = ServerReflectionResponse()
    response.file_descriptor_response.file_descriptor_proto.extend(contents)
    return response
