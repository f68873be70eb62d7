"""A coordinator that gives the answers a test has prepared, in a thread of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from mesh.errors import MeshError, to_status
from protos.order.v1 import order_pb2
from protos.saga.v1 import saga_pb2

SERVICES = tuple(saga_pb2.DESCRIPTOR.services_by_name.values())
TYPES = order_pb2.DESCRIPTOR
"""Served by reflection, as the types of a registered definition."""


@dataclass
class StandIn:
    """Answers each RPC with what is next in its list, and notes what it was asked."""

    answers: dict[str, list[Message | MeshError | None]] = field(default_factory=dict)
    requests: dict[str, list[Any]] = field(default_factory=dict)
    address: str = ""

    def will(self, rpc: str, *answers: Message | MeshError | None) -> None:
        """Answer this RPC so, one after the other; a stream gives all up to a refusal or None."""
        self.answers.setdefault(rpc, []).extend(answers)

    def asked(self, rpc: str) -> Any:  # noqa: ANN401 - every request has fields of its own
        """The one request of this RPC."""
        (request,) = self.requests[rpc]
        return request

    def handler(self, method: MethodDescriptor) -> grpc.RpcMethodHandler[Any, Any]:
        make = (
            grpc.unary_stream_rpc_method_handler
            if method.server_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return make(
            self._stream(method.name) if method.server_streaming else self._unary(method.name),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )

    def _unary(self, rpc: str) -> Callable[..., Message]:
        def unary(request: Message, context: grpc.ServicerContext) -> Message:
            self.requests.setdefault(rpc, []).append(request)
            answer = self.answers[rpc].pop(0)
            assert answer is not None
            return _told(answer, context)

        return unary

    def _stream(self, rpc: str) -> Callable[..., Iterator[Message]]:
        def stream(request: Message, context: grpc.ServicerContext) -> Iterator[Message]:
            self.requests.setdefault(rpc, []).append(request)
            while self.answers[rpc] and (answer := self.answers[rpc].pop(0)) is not None:
                yield _told(answer, context)

        return stream


def _told(answer: Message | MeshError, context: grpc.ServicerContext) -> Message:
    if isinstance(answer, MeshError):
        context.abort_with_status(rpc_status.to_status(to_status(answer, domain="saga.v1")))
    return answer


@contextmanager
def serving(stand_in: StandIn) -> Iterator[StandIn]:
    """Serve it, with reflection, on a free port of this machine."""
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    for service in SERVICES:
        handlers = {method.name: stand_in.handler(method) for method in service.methods}
        generic = grpc.method_handlers_generic_handler(service.full_name, handlers)
        server.add_generic_rpc_handlers((generic,))
    reflection.enable_server_reflection([it.full_name for it in SERVICES], server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    stand_in.address = f"127.0.0.1:{port}"
    yield stand_in
    server.stop(grace=None).wait()
