"""The contracts of running participants, asked of them by gRPC server reflection.

Both forms of the protocol are spoken, `v1alpha` and the newer `v1`, which have the same messages: a
participant may be written in any language. Some servers answer with a file and all it imports, some
with the file alone; whatever is missing is asked for by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha.reflection_pb2 import (
    ServerReflectionRequest,
    ServerReflectionResponse,
)

from coordinator.participants.base import Contract, ParticipantUnreachable
from coordinator.participants.grpc import CHANNEL_OPTIONS

Method: TypeAlias = grpc.aio.StreamStreamMultiCallable[
    ServerReflectionRequest, ServerReflectionResponse
]

_PROTOCOLS = ("v1alpha", "v1")
# Health, reflection and the like: every server has them, and none is part of a contract.
_INFRASTRUCTURE = "grpc."


class ServedTwice(Exception):
    """One step service is served by two participants that are not declared as one group."""


class ReflectedContracts:
    """`base.Contracts` over the network. `targets` maps participants' names to gRPC targets."""

    def __init__(self, targets: Mapping[str, str], *, timeout_s: float = 5.0) -> None:
        self._targets = dict(targets)
        self._timeout_s = timeout_s

    async def fetch(self) -> list[Contract | ParticipantUnreachable]:
        """Ask every participant at the same time; see `base.Contracts`."""
        asked = (self._fetch_one(name, target) for name, target in self._targets.items())
        return list(await asyncio.gather(*asked))

    async def _fetch_one(self, name: str, target: str) -> Contract | ParticipantUnreachable:
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel,
            ):
                return await _contract(name, channel)
        except TimeoutError:
            why = f"no answer within {self._timeout_s:g} s"
        except grpc.aio.AioRpcError as error:
            why = f"{error.code().name}, {error.details()}"
        except _NoContract as error:
            why = str(error)
        return ParticipantUnreachable(f"{name} at {target} does not tell its contract: {why}")


def check_served_once(contracts: Iterable[Contract]) -> None:
    """Make sure that it is clear whom to call for each step.

    Raises:
        ServedTwice: two participants serve the same step service.
    """
    servers: dict[str, str] = {}
    for contract in contracts:
        for service in _step_services(contract):
            other = servers.setdefault(service, contract.participant)
            if other != contract.participant:
                raise ServedTwice(
                    f"{service} is served by {other} and by {contract.participant}: let one of them"
                    f" serve it, or make them one group, PARTICIPANTS={other}=HOST:PORT|HOST:PORT"
                )


def _step_services(contract: Contract) -> Iterator[str]:
    for file in map(FileDescriptorProto.FromString, contract.files):
        for service in file.service:
            name = f"{file.package}.{service.name}" if file.package else service.name
            methods = {method.name for method in service.method}
            if name in contract.services and methods == {"Do", "Compensate"}:
                yield name


class _NoContract(Exception):
    """An answer that no contract can be made of."""


async def _contract(participant: str, channel: grpc.aio.Channel) -> Contract:
    reflection = await _Reflection.find(channel)
    services = await reflection.services()
    files: dict[str, bytes] = {}
    for service in services:
        files |= await reflection.files(ServerReflectionRequest(file_containing_symbol=service))
    while missing := _imports(files) - files.keys():
        for name in sorted(missing):
            files |= await reflection.files(ServerReflectionRequest(file_by_filename=name))
            if name not in files:
                raise _NoContract(f"asked for {name}, it answered with another file")
    return Contract(
        participant=participant,
        services=frozenset(services),
        files=tuple(files[name] for name in sorted(files)),
    )


def _imports(files: Mapping[str, bytes]) -> set[str]:
    return {name for file in files.values() for name in _parsed(file).dependency}


def _parsed(file: bytes) -> FileDescriptorProto:
    try:
        return FileDescriptorProto.FromString(file)
    except DecodeError:
        raise _NoContract("one of its file descriptors does not parse") from None


class _Reflection:
    """The reflection service of one server, in one form of the protocol."""

    def __init__(self, method: Method) -> None:
        self._method = method

    @classmethod
    async def find(cls, channel: grpc.aio.Channel) -> _Reflection:
        """The first form that the server speaks."""
        for protocol in _PROTOCOLS:
            reflection = cls(_method(channel, protocol))
            try:
                await reflection.services()
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                    raise
            else:
                return reflection
        raise _NoContract("it serves no reflection; add it to the server, as every service has")

    async def services(self) -> list[str]:
        answer = await self._ask(ServerReflectionRequest(list_services=""))
        names = (service.name for service in answer.list_services_response.service)
        return sorted(name for name in names if not name.startswith(_INFRASTRUCTURE))

    async def files(self, request: ServerReflectionRequest) -> dict[str, bytes]:
        answer = await self._ask(request)
        files = answer.file_descriptor_response.file_descriptor_proto
        return {_parsed(file).name: file for file in files}

    async def _ask(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        answers = [answer async for answer in self._method(iter([request]))]
        if len(answers) != 1:
            raise _NoContract(f"{len(answers)} answers to one question")
        if answers[0].HasField("error_response"):
            raise _NoContract(f"{_words(request)}: {answers[0].error_response.error_message}")
        return answers[0]


def _method(channel: grpc.aio.Channel, protocol: str) -> Method:
    return channel.stream_stream(
        f"/grpc.reflection.{protocol}.ServerReflection/ServerReflectionInfo",
        request_serializer=ServerReflectionRequest.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )


def _words(request: ServerReflectionRequest) -> str:
    asked = request.file_containing_symbol or request.file_by_filename or "its services"
    return f"it cannot tell {asked}"
