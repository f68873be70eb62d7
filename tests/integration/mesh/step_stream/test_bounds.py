"""What one client can do to a server by a stream: take its places, and no more."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import grpc
import pytest
from google.rpc.code_pb2 import UNAVAILABLE
from structlog.testing import capture_logs

from mesh.errors import refusal_of
from mesh.server import Server
from mesh.settings import ServiceSettings
from mesh.step_stream import MAX_CALLS
from protos.mesh.v1 import mesh_pb2 as pb
from tests.integration.mesh.step_stream.client import Stream, by_itself, call, ending, until
from tests.integration.mesh.step_stream.service import Step

TEN_KILOBYTES = 10_000
IN_TRANSPORT = 1_000
"""More answers of ten kilobytes than grpc and the network keep on their way."""


async def test_calls_beyond_the_places_of_a_stream_wait_for_one(step: Step, stream: Stream) -> None:
    waiting = [call(number, "wait", saga_id=f"saga-{number}") for number in range(MAX_CALLS)]
    await stream.send(*waiting, call(MAX_CALLS))
    await stream.send(call(MAX_CALLS + 1))
    await until(lambda: len(step.begun) == MAX_CALLS)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(step.begun) == MAX_CALLS

    step.leave.set()
    await stream.read_until(MAX_CALLS + 2)

    assert len(step.begun) == MAX_CALLS + 2


async def test_a_call_whose_time_ran_out_before_its_turn_is_not_performed(
    step: Step, stream: Stream
) -> None:
    waiting = [call(number, "wait", timeout_ms=100) for number in range(MAX_CALLS)]

    await stream.send(*waiting, call(MAX_CALLS, saga_id="in-line", timeout_ms=50))
    await stream.read_until(MAX_CALLS + 1)

    assert "in-line" not in step.begun


async def test_who_does_not_read_is_served_no_more_and_harms_nobody(
    step: Step, stream: Stream, channel: grpc.aio.Channel
) -> None:
    step.response_bytes = TEN_KILOBYTES
    ids = count()
    while True:
        calls = [call(next(ids), "." * TEN_KILOBYTES) for _ in range(200)]
        sending = asyncio.create_task(stream.send(*calls))
        if (await asyncio.wait({sending}, timeout=0.5))[1]:
            break
    performed = len(step.begun)
    sent = next(ids)
    assert performed <= MAX_CALLS + IN_TRANSPORT

    assert (await by_itself(channel, call())).response
    (other,) = await Stream(channel).ask(call())
    assert other.response

    await stream.read_until(sent)
    await sending
    assert len(step.begun) == sent + 2


async def test_large_requests_take_more_room_than_a_place(step: Step, stream: Stream) -> None:
    megabyte = "wait" + "." * (1 << 20)
    sending = asyncio.create_task(_one_by_one(stream, [call(n, megabyte) for n in range(30)]))
    await until(lambda: len(step.begun) == 16)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(step.begun) == 16

    step.leave.set()
    await stream.read_until(30)
    await sending


async def _one_by_one(stream: Stream, calls: list[pb.StepCall]) -> None:
    for one in calls:
        await stream.send(one)


async def test_a_hundred_thousand_calls_at_once_are_performed_in_order_and_hold_up_nobody(
    step: Step, stream: Stream, channel: grpc.aio.Channel
) -> None:
    total = 100_000
    bare: dict[str, Any] = {"step": "s", "request": b"", "timeout_ms": 0}
    sending = asyncio.create_task(_send_all(stream, total, bare))
    reading = asyncio.create_task(stream.read_until(total))
    overtaken: list[int] = []
    while not reading.done():
        before = len(step.begun)
        assert (await by_itself(channel, call(saga_id="alone"))).response
        overtaken.append(len(step.begun) - before)
    await asyncio.gather(sending, reading)

    assert [saga for saga in step.begun if saga != "alone"] == [f"s{n}" for n in range(total)]
    assert sorted(overtaken)[len(overtaken) // 2] <= 2 * MAX_CALLS


async def _send_all(stream: Stream, total: int, bare: dict[str, Any]) -> None:
    for first in range(0, total, 50_000):
        batch = (call(n, saga_id=f"s{n}", **bare) for n in range(first, first + 50_000))
        await stream.send(*batch)


async def test_who_hangs_up_has_his_calls_cancelled_and_is_no_error(
    step: Step, server: Server, channel: grpc.aio.Channel
) -> None:
    step.response_bytes = TEN_KILOBYTES
    with capture_logs() as logs:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as short:
            gone = Stream(short)
            await gone.send(*(call(number, "wait", saga_id=f"s{number}") for number in range(20)))
            await gone.send(*(call(number) for number in range(20, 2_000)))
            await until(lambda: len(step.begun) > 500)  # so many that some answers are not written
        await until(lambda: len(step.cancelled) == 20)
        assert (await by_itself(channel, call())).response

    assert [line for line in logs if line["log_level"] == "error"] == []


@pytest.fixture
async def draining(step: Step) -> Server:
    settings = ServiceSettings(grpc_host="127.0.0.1", grpc_port=0, shutdown_grace_seconds=30)
    server = Server(settings)
    server.add_step(step)
    await server.start()
    return server


async def test_a_drain_finishes_what_has_begun_refuses_the_rest_and_ends_the_stream(
    draining: Server, step: Step
) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{draining.port}") as channel:
        stream, idle = Stream(channel), Stream(channel)
        await idle.ask(call())
        await stream.send(call(1, "wait"))
        await until(lambda: len(step.begun) == 2)
        stopping = asyncio.create_task(draining.stop())
        assert await ending(idle) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")

        (late,) = await stream.ask(call(2))
        assert late.status.code == UNAVAILABLE
        assert refusal_of(late.status).reason == "DRAINING"
        step.leave.set()
        await stream.read_until(2)

        assert stream.results[1].response
        assert await ending(stream) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        await stopping
        assert len(step.begun) == 2


async def test_a_stream_that_slips_in_during_a_drain_ends_too(
    server: Server, stream: Stream
) -> None:
    server._step_stream.drain()

    assert await ending(stream) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")


async def test_what_takes_longer_than_the_grace_time_is_cancelled(
    server: Server, step: Step, stream: Stream
) -> None:
    await stream.send(call(1, "wait"))
    await until(lambda: step.begun)

    await server.stop()

    await until(lambda: step.cancelled)
