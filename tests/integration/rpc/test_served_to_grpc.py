"""The server under a client of grpc itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from mesh.rpc.served import Context
from tests.integration.rpc.served_port import LIMIT, Port, fails_with, serving


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    async with serving() as port:
        yield port


@pytest.fixture
async def channel(port: Port) -> AsyncIterator[grpc.aio.Channel]:
    options = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.keepalive_time_ms", 50),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port.port}", options) as channel:
        yield channel


def unary(channel: grpc.aio.Channel, path: str = "/t/Unary") -> Any:  # noqa: ANN401 - untyped
    return channel.unary_unary(path, None, None)


async def test_metadata_goes_both_ways_as_it_is(port: Port, channel: grpc.aio.Channel) -> None:
    async def echo(request: bytes, context: Context) -> bytes:
        sent = [pair for pair in context.invocation_metadata() if pair[0].startswith("x-")]
        await context.send_initial_metadata(sent)
        context.set_trailing_metadata(sent)
        return request

    port.serve("/t/Echo", echo)
    metadata = (("x-text", "a b, c%"), ("x-bytes-bin", bytes(range(256))), ("x-none-bin", b""))
    call = unary(channel, "/t/Echo")(b"", metadata=metadata)
    assert tuple(await call.initial_metadata())[-3:] == metadata
    assert tuple(await call.trailing_metadata()) == metadata


@pytest.mark.parametrize(
    "words", ["", "none left", " ends in spaces ", "100 %\n\t", "geht nicht: ä€"]
)
async def test_an_error_comes_with_its_words_and_details(
    port: Port, channel: grpc.aio.Channel, words: str
) -> None:
    async def fail(_: bytes, context: Context) -> None:
        await context.abort(grpc.StatusCode.ABORTED, words, (("details-bin", b"\x00\xff"),))

    port.serve("/t/Fail", fail)
    call = unary(channel, "/t/Fail")(b"")
    assert await fails_with(call) == (grpc.StatusCode.ABORTED, words)
    assert tuple(await call.trailing_metadata()) == (("details-bin", b"\x00\xff"),)


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.NoCompression])
@pytest.mark.parametrize("size", [0, 1, 1 << 20, LIMIT])
async def test_messages_of_any_size_come_whole(
    channel: grpc.aio.Channel, size: int, algorithm: grpc.Compression
) -> None:
    answer = await unary(channel)(b"." * size, compression=algorithm)
    assert len(answer) == size + 4


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.NoCompression])
async def test_a_message_beyond_the_limit_is_refused(
    channel: grpc.aio.Channel, algorithm: grpc.Compression
) -> None:
    code, words = await fails_with(unary(channel)(b"." * (LIMIT + 1), compression=algorithm))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert words == f"Received message larger than max ({LIMIT + 1} vs. {LIMIT})"


async def test_a_stream_each_way_keeps_its_order(channel: grpc.aio.Channel) -> None:
    sent = [b"%d" % number for number in range(200)]
    call = channel.stream_stream("/t/Both", None, None)(iter(sent))
    assert [answer async for answer in call] == [b"re: " + one for one in sent]
    assert await channel.stream_unary("/t/Up", None, None)(iter(sent)) == b"200"
    down = channel.unary_stream("/t/Down", None, None)(b"20 300000")
    assert [len(answer) async for answer in down] == [300_000] * 20


async def test_a_call_that_is_cancelled_cancels_its_handler(
    port: Port, channel: grpc.aio.Channel
) -> None:
    call = unary(channel, "/t/Held")(b"")
    await port.begun.wait()
    call.cancel()
    await port.cancelled.wait()
    assert await unary(channel)(b"next") == b"re: next"


async def test_a_deadline_is_known_to_the_handler_and_kept(
    port: Port, channel: grpc.aio.Channel
) -> None:
    left: list[float | None] = []

    async def look(_: bytes, context: Context) -> bytes:
        left.append(context.time_remaining())
        return b""

    port.serve("/t/Look", look)
    await unary(channel, "/t/Look")(b"", timeout=90)
    await unary(channel, "/t/Look")(b"")
    assert left[0] is not None
    assert 85 < left[0] < 91  # grpc rounds it up
    assert left[1] is None
    code, _ = await fails_with(unary(channel, "/t/Held")(b"", timeout=0.05))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    await port.cancelled.wait()


async def test_two_thousand_calls_at_once_have_each_its_own_answer(
    port: Port, channel: grpc.aio.Channel
) -> None:
    call = unary(channel)
    answers = await asyncio.gather(*(call(b"%d" % number) for number in range(2_000)))
    assert answers == [b"re: %d" % number for number in range(2_000)]
    assert port.handled == 2_000
