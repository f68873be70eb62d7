from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

from mesh.border import MAX_REQUEST_BYTES
from mesh.server import MAX_RECEIVE_BYTES, Server
from mesh.settings import ServiceSettings
from protos.inventory.v1 import inventory_pb2, inventory_pb2_grpc
from protos.saga.v1 import saga_pb2, saga_pb2_grpc
from tests.integration.mesh.sample_service import METADATA, Sagas, Step

SETTINGS = ServiceSettings(grpc_host="127.0.0.1", grpc_port=0, shutdown_grace_seconds=5)


@pytest.fixture
async def step() -> Step:
    return Step()


@pytest.fixture
async def server(step: Step) -> AsyncIterator[Server]:
    server = Server(SETTINGS)
    server.add_step(step)
    server.add_service(saga_pb2_grpc.add_SagaServiceServicer_to_server, Sagas())
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def channel(server: Server) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel


async def do(
    channel: grpc.aio.Channel, order_id: str, metadata: Sequence[tuple[str, str]] = METADATA
) -> tuple[grpc.StatusCode, dict[str, str | bytes], str]:
    """Code, trailing metadata and words of the answer."""
    stub = inventory_pb2_grpc.ReserveStockStub(channel)
    request = inventory_pb2.ReserveStockRequest(order_id=order_id)
    return await ending(stub.Do(request, metadata=metadata))


async def ending(call: grpc.aio.Call) -> tuple[grpc.StatusCode, dict[str, str | bytes], str]:
    code = await call.code()
    return code, dict(await call.trailing_metadata()), await call.details()


def error_info(trailing: dict[str, str | bytes]) -> error_details_pb2.ErrorInfo:
    packed = trailing["grpc-status-details-bin"]
    assert isinstance(packed, bytes)
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(packed).details[0].Unpack(info)
    return info


async def test_a_do_is_answered_and_marked_done(channel: grpc.aio.Channel) -> None:
    stub = inventory_pb2_grpc.ReserveStockStub(channel)
    call = stub.Do(inventory_pb2.ReserveStockRequest(), metadata=METADATA)

    assert (await call).reservation_id == "saga-1:reserve_stock"
    assert dict(await call.trailing_metadata()) == {"saga-outcome": "done"}


async def test_a_rejection_is_marked_and_says_why(channel: grpc.aio.Channel) -> None:
    code, trailing, words = await do(channel, "reject")

    assert (code, words) == (grpc.StatusCode.FAILED_PRECONDITION, "none left")
    assert trailing["saga-outcome"] == "rejected"
    info = error_info(trailing)
    assert (info.reason, info.domain) == ("OUT_OF_STOCK", "inventory.v1")
    assert dict(info.metadata) == {"product_id": "p1"}


@pytest.mark.parametrize("order_id", ["conflict", "fail"])
async def test_an_unknown_outcome_is_not_marked(channel: grpc.aio.Channel, order_id: str) -> None:
    _, trailing, _ = await do(channel, order_id)

    assert "saga-outcome" not in trailing


@pytest.mark.parametrize("order_id", ["", "reject"])
async def test_a_compensate_is_never_marked(channel: grpc.aio.Channel, order_id: str) -> None:
    request = inventory_pb2.ReserveStockCompensation()
    request.request.order_id = order_id
    stub = inventory_pb2_grpc.ReserveStockStub(channel)

    _, trailing, _ = await ending(stub.Compensate(request, metadata=METADATA))

    assert "saga-outcome" not in trailing


async def test_a_call_without_saga_metadata_is_told_how_to_set_it(
    channel: grpc.aio.Channel,
) -> None:
    code, trailing, words = await do(channel, "", metadata=())

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "grpcurl -H 'saga-id: demo-1'" in words
    assert error_info(trailing).reason == "SAGA_METADATA_INVALID"
    assert "saga-outcome" not in trailing


async def test_an_unexpected_exception_tells_the_log_and_not_the_caller(
    channel: grpc.aio.Channel,
) -> None:
    with structlog.testing.capture_logs() as logs:
        code, trailing, words = await do(channel, "fail")

    assert code is grpc.StatusCode.INTERNAL
    assert "4242" not in words + str(trailing)
    failure = next(line for line in logs if line["event"] == "rpc.failed")
    assert failure["method"] == "/inventory.v1.ReserveStock/Do"
    assert failure["exc_info"]


async def test_a_stream_may_end_with_an_error(channel: grpc.aio.Channel) -> None:
    watch = saga_pb2_grpc.SagaServiceStub(channel).WatchSaga(
        saga_pb2.WatchSagaRequest(saga_id="conflict")
    )

    assert (await watch.read()).event.revision == 1
    code, trailing, _ = await ending(watch)
    assert (code, error_info(trailing).reason) == (grpc.StatusCode.ABORTED, "LOST")


async def test_a_stream_may_end_well(channel: grpc.aio.Channel) -> None:
    stub = saga_pb2_grpc.SagaServiceStub(channel)

    events = [event async for event in stub.WatchSaga(saga_pb2.WatchSagaRequest())]

    assert len(events) == 1


async def test_an_abort_by_hand_passes_unchanged(channel: grpc.aio.Channel) -> None:
    stub = saga_pb2_grpc.SagaServiceStub(channel)

    code, _, words = await ending(stub.GetSaga(saga_pb2.GetSagaRequest()))

    assert (code, words) == (grpc.StatusCode.NOT_FOUND, "by hand")


async def test_a_request_over_four_mebibytes_is_refused_with_its_size(
    channel: grpc.aio.Channel,
) -> None:
    code, trailing, words = await do(channel, "o" * MAX_REQUEST_BYTES)

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert error_info(trailing).reason == "REQUEST_TOO_LARGE"
    assert f"at most {MAX_REQUEST_BYTES}" in words


async def test_a_message_that_grpc_itself_does_not_let_in_is_refused(
    channel: grpc.aio.Channel,
) -> None:
    code, _, _ = await do(channel, "o" * (MAX_RECEIVE_BYTES + 1))

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "method", ["/inventory.v1.ReserveStock/Do", "/saga.v1.SagaService/WatchSaga"]
)
async def test_bytes_that_do_not_parse_are_refused(method: str, channel: grpc.aio.Channel) -> None:
    call = channel.unary_stream(method, None, None)

    code, trailing, _ = await ending(call(b"\xff\xff\xff"))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert error_info(trailing).reason == "REQUEST_UNREADABLE"


async def test_an_unknown_method_is_unimplemented(channel: grpc.aio.Channel) -> None:
    unknown = channel.unary_unary("/inventory.v1.ReserveStock/Undo", None, None)

    code, _, _ = await ending(unknown(b""))

    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_every_service_is_found_by_reflection(channel: grpc.aio.Channel) -> None:
    assert await reflected(channel) == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "inventory.v1.ReserveStock",
        "mesh.v1.StepStream",
        "saga.v1.SagaService",
    }


async def reflected(channel: grpc.aio.Channel) -> set[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    await call.done_writing()
    return {service.name for service in answer.list_services_response.service}


async def test_the_reflection_servicer_can_be_replaced() -> None:
    server = Server(
        SETTINGS, reflection=lambda names: ReflectionServicer([*names, "order.v1.CreateOrder"])
    )
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        assert "order.v1.CreateOrder" in await reflected(channel)
    await server.stop()


async def test_a_server_without_probes_is_serving(channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", "inventory.v1.ReserveStock", "saga.v1.SagaService", "liveness"):
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=name))
        while (await watch.read()).status != health_pb2.HealthCheckResponse.SERVING:
            pass
        watch.cancel()


async def test_a_port_that_is_taken_is_an_error(server: Server) -> None:
    second = Server(SETTINGS.model_copy(update={"grpc_port": server.port}))

    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{server.port}"):
        await second.start()


async def test_a_drain_lets_calls_in_flight_finish_and_ends_streams(
    server: Server, step: Step, channel: grpc.aio.Channel
) -> None:
    health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    while (await health.read()).status != health_pb2.HealthCheckResponse.SERVING:
        pass
    watch = saga_pb2_grpc.SagaServiceStub(channel).WatchSaga(
        saga_pb2.WatchSagaRequest(saga_id="endless")
    )
    await watch.read()
    doing = asyncio.create_task(do(channel, "wait"))
    await step.entered.wait()

    stopping = asyncio.create_task(server.stop())

    assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    code, trailing, _ = await ending(watch)
    assert (code, error_info(trailing).reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert not doing.done()
    step.leave.set()
    assert (await doing)[0] is grpc.StatusCode.OK
    await stopping
    assert (await do(channel, ""))[0] is grpc.StatusCode.UNAVAILABLE


async def test_a_stream_that_slips_in_during_a_drain_ends_too(
    server: Server, channel: grpc.aio.Channel
) -> None:
    server._border.drain()
    request = saga_pb2.WatchSagaRequest(saga_id="endless")

    code, _, _ = await ending(saga_pb2_grpc.SagaServiceStub(channel).WatchSaga(request))

    assert code is grpc.StatusCode.UNAVAILABLE


async def test_a_drain_refuses_new_calls_in_words_and_still_tells_its_health(
    server: Server, channel: grpc.aio.Channel
) -> None:
    server._health.drain()
    server._border.drain()

    code, trailing, _ = await do(channel, "")
    health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())

    assert (code, error_info(trailing).reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_call_longer_than_the_grace_time_is_cut_off(step: Step) -> None:
    server = Server(SETTINGS.model_copy(update={"shutdown_grace_seconds": 0.05}))
    server.add_step(step)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        doing = asyncio.create_task(do(channel, "wait"))
        await step.entered.wait()
        await server.stop()

        assert (await doing)[0] is not grpc.StatusCode.OK


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_run_serves_until_a_signal_and_says_its_port(number: signal.Signals) -> None:
    server = Server(SETTINGS)
    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(server.run())
        while not any(line["event"] == "server.listening" for line in logs):
            await asyncio.sleep(0)
        os.kill(os.getpid(), number)
        await running

    listening = next(line for line in logs if line["event"] == "server.listening")
    assert listening["port"] == server.port != 0
    assert logs[-1]["event"] == "server.stopped"
