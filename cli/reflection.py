"""Message types that only the coordinator knows, by gRPC reflection; and JSON with them.

The input of a saga is a `google.protobuf.Any`: its type belongs to whoever wrote the definition.
"""

from __future__ import annotations

import grpc.aio
from google.protobuf import any_pb2, json_format, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc


class UnknownType(Exception):
    """The coordinator's reflection does not know a message type."""


class Types:
    """Message types that were asked for, in a pool of their own."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        self._pool = DescriptorPool()
        self._files: set[str] = set()

    async def pack(self, type_name: str, text: str) -> any_pb2.Any:
        """JSON of a message type as an Any, in deterministic bytes.

        Raises:
            UnknownType: the coordinator does not know the type.
            json_format.ParseError: the text is not JSON of this type.
        """
        if not text.lstrip().startswith("{"):  # the library takes [] for an empty message
            raise json_format.ParseError("must be a JSON object")
        await self.load(type_name)
        message = message_factory.GetMessageClass(self._pool.FindMessageTypeByName(type_name))()
        json_format.Parse(text, message, descriptor_pool=self._pool)
        packed = any_pb2.Any()
        packed.Pack(message, deterministic=True)
        return packed

    async def load(self, type_name: str) -> None:
        """Get a type with all that it is made of.

        Raises:
            UnknownType: the coordinator does not know it.
        """
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=type_name)
        files = {file.name: file for file in await self._fetch(request)}
        for name in list(files):
            await self._add(name, files)

    def to_json(self, message: Message, *, indent: int | None = 2) -> str:
        """JSON of a message, on one line when `indent` is None; what it packs has been loaded."""
        return json_format.MessageToJson(message, indent=indent, descriptor_pool=self._pool)

    async def _add(self, name: str, files: dict[str, FileDescriptorProto]) -> None:
        """Add a file after those that it imports: pools take them in this order only."""
        if name in self._files:
            return
        if name not in files:
            request = reflection_pb2.ServerReflectionRequest(file_by_filename=name)
            files |= {file.name: file for file in await self._fetch(request)}
        for imported in files[name].dependency:
            await self._add(imported, files)
        self._pool.AddSerializedFile(files[name].SerializeToString())
        self._files.add(name)

    async def _fetch(
        self, request: reflection_pb2.ServerReflectionRequest
    ) -> list[FileDescriptorProto]:
        async for answer in self._stub.ServerReflectionInfo(iter([request])):
            if answer.HasField("error_response"):
                raise UnknownType(request.file_containing_symbol or request.file_by_filename)
            files = answer.file_descriptor_response.file_descriptor_proto
            return [FileDescriptorProto.FromString(file) for file in files]
        raise UnknownType(request.file_containing_symbol or request.file_by_filename)
