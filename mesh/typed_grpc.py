"""Names for grpc's classes with their type arguments, which only its stubs know: at run time grpc
has plain classes that cannot be subscripted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import Message

if TYPE_CHECKING:
    UnaryUnaryClientInterceptor = grpc.aio.UnaryUnaryClientInterceptor[Message, Any]
    UnaryStreamClientInterceptor = grpc.aio.UnaryStreamClientInterceptor[Message, Any]
    MethodHandler = grpc.RpcMethodHandler[Message, Message]
    GenericHandler = grpc.GenericRpcHandler[Message, Message]
    ServiceHandler = grpc.ServiceRpcHandler[Message, Message]
else:
    UnaryUnaryClientInterceptor = grpc.aio.UnaryUnaryClientInterceptor
    UnaryStreamClientInterceptor = grpc.aio.UnaryStreamClientInterceptor
    MethodHandler = grpc.RpcMethodHandler
    GenericHandler = grpc.GenericRpcHandler
    ServiceHandler = grpc.ServiceRpcHandler
