"""Contracts for tests: of our own stubs, and of protos written in the test."""

from __future__ import annotations

import functools
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

from coordinator.definitions.services import Offer
from coordinator.participants.base import Contract
from protos.fulfillment.v1 import fulfillment_pb2
from protos.inventory.v1 import inventory_pb2
from protos.order.v1 import order_pb2
from protos.payment.v1 import payment_pb2

_protoc = cast("Callable[[list[str]], int]", protoc.main)


def contract_of_stubs(participant: str, file: FileDescriptor) -> Contract:
    """What a participant with these generated stubs tells by reflection."""
    files: dict[str, bytes] = {}
    _collect(file, files)
    services = frozenset(service.full_name for service in file.services_by_name.values())
    return Contract(participant=participant, services=services, files=tuple(files.values()))


def _collect(file: FileDescriptor, files: dict[str, bytes]) -> None:
    files[file.name] = file.serialized_pb
    for imported in file.dependencies:
        _collect(imported, files)


def shop() -> Offer:
    """The four participants of the shop, all running."""
    return Offer.of(
        [
            contract_of_stubs("order", order_pb2.DESCRIPTOR),
            contract_of_stubs("inventory", inventory_pb2.DESCRIPTOR),
            contract_of_stubs("payment", payment_pb2.DESCRIPTOR),
            contract_of_stubs("fulfillment", fulfillment_pb2.DESCRIPTOR),
        ]
    )


def contract(participant: str, **protos: str) -> Contract:
    """A participant with these protos, by file name without `.proto`, all of whose services run."""
    files = _compiled(tuple(protos.items()))
    services = frozenset(
        f"{file.package}.{service.name}"
        for file in FileDescriptorSet.FromString(files).file
        for service in file.service
    )
    return Contract(
        participant=participant,
        services=services,
        files=tuple(f.SerializeToString() for f in FileDescriptorSet.FromString(files).file),
    )


@functools.cache
def _compiled(protos: tuple[tuple[str, str], ...]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in protos:
            Path(folder, f"{name}.proto").write_text(f'syntax = "proto3";{text}')
        output = Path(folder, "set")
        names = [f"{name}.proto" for name, _ in protos]
        site = sysconfig.get_paths()["purelib"]
        paths = [f"-I{path}" for path in (folder, site, f"{site}/grpc_tools/_proto")]
        arguments = ["protoc", *paths, "--include_imports", f"-o{output}"]
        assert _protoc([*arguments, *names]) == 0
        return output.read_bytes()


def step(name: str, request: str, response: str = "", *, more: str = "") -> str:
    """The proto of one step service, with the fields of its request and response."""
    return f"""
      service {name} {{
        rpc Do({name}Request) returns ({name}Response);
        rpc Compensate({name}Compensation) returns ({name}Compensated);
      }}
      message {name}Request {{ {request} }}
      message {name}Response {{ {response} }}
      message {name}Compensation {{
        {name}Request request = 1;
        optional {name}Response response = 2;
      }}
      message {name}Compensated {{}}
      {more}
    """
