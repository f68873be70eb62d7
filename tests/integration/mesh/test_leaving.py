"""A client that leaves while a response is written to it: that is no failure of the server's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from typing_extensions import override

from mesh.rpc.served import Context
from mesh.server import Server
from mesh.settings import ServiceSettings
from protos.saga.v1 import saga_pb2 as pb
from protos.saga.v1 import saga_pb2_grpc

LARGE = "." * (3 << 20)
"""More than the window of a stream that nobody reads."""
SMALL_WINDOW = [("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]

Leave = Callable[[grpc.aio.Channel, Any], Any]


class Sagas(saga_pb2_grpc.SagaServiceServicer):
    """Streams of either kind, whose first response is not soon written."""

    def __init__(self) -> None:
        self.writing = asyncio.Event()

    @override
    async def WatchSaga(
        self, request: pb.WatchSagaRequest, context: Context
    ) -> AsyncIterator[pb.WatchSagaResponse]:
        self.writing.set()
        yield pb.WatchSagaResponse(event=pb.SagaEvent(step=LARGE))

    @override
    async def StartSagas(self, requests: AsyncIterator[Any], context: Context) -> None:
        self.writing.set()
        await context.write(pb.StartSagasResponse(reports=[pb.SagaReport(saga_id=LARGE)]))


def watch(stub: saga_pb2_grpc.SagaServiceStub) -> Any:  # noqa: ANN401 - a call of asyncio has no type
    return stub.WatchSaga(pb.WatchSagaRequest(saga_id="saga-1"))


def start(stub: saga_pb2_grpc.SagaServiceStub) -> Any:  # noqa: ANN401 - as above
    return stub.StartSagas()


async def cancel(channel: grpc.aio.Channel, call: Any) -> None:  # noqa: ANN401 - as above
    call.cancel()


async def disconnect(channel: grpc.aio.Channel, call: Any) -> None:  # noqa: ANN401 - as above
    await channel.close(None)


@pytest.mark.parametrize("leave", [cancel, disconnect])
@pytest.mark.parametrize("ask", [watch, start])
async def test_a_client_that_leaves_in_the_middle_of_a_write_is_logged_as_no_failure(
    ask: Callable[[saga_pb2_grpc.SagaServiceStub], Any],
    leave: Leave,
    caplog: pytest.LogCaptureFixture,
) -> None:
    exporter, tracer_provider = InMemorySpanExporter(), TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    settings = ServiceSettings(grpc_host="127.0.0.1", grpc_port=0, shutdown_grace_seconds=5)
    server, sagas = Server(settings, tracer_provider=tracer_provider), Sagas()
    server.add_service(saga_pb2_grpc.add_SagaServiceServicer_to_server, sagas)
    await server.start()
    with structlog.testing.capture_logs() as logs:
        address = f"127.0.0.1:{server.port}"
        async with grpc.aio.insecure_channel(address, options=SMALL_WINDOW) as channel:
            call = ask(saga_pb2_grpc.SagaServiceStub(channel))
            await sagas.writing.wait()
            await leave(channel, call)
            await server.stop()

    assert [line["event"] for line in logs if line["log_level"] == "error"] == []
    assert [line for line in caplog.records if line.levelno > logging.INFO] == []
    (span,) = exporter.get_finished_spans()
    assert (span.attributes or {})["rpc.grpc.status_code"] == grpc.StatusCode.CANCELLED.value[0]
