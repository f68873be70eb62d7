"""Our channel and grpc's own server: they must mean the same by what they say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import cast

import grpc
import pytest

from mesh.rpc.headers import Ending
from tests.unit.rpc.caller import Caller, calling

CODE = grpc.StatusCode
Context = grpc.aio.ServicerContext[bytes, bytes]
Serve = Callable[[bytes, Context], Awaitable[bytes]]


async def echo(request: bytes, _context: Context) -> bytes:
    return request


class Charge:
    """Serves one method as a test says, and one with streams both ways."""

    def __init__(self, serve: Serve = echo) -> None:
        self.serve = serve
        self.called = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.may_end = asyncio.Event()
        self.metadata: dict[str, str | bytes] = {}
        self.seconds_left = 0.0
        self.port = 0
        self.server: grpc.aio.Server | None = None

    async def start(self) -> None:
        do = grpc.unary_unary_rpc_method_handler(self._do)
        run = grpc.stream_stream_rpc_method_handler(self._run)
        handlers = grpc.method_handlers_generic_handler("test.v1.Charge", {"Do": do, "Run": run})
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 8 << 20)]
        self.server = grpc.aio.server(handlers=(handlers,), options=options)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self.server.start()

    async def stop(self, grace: float | None = None) -> None:
        assert self.server is not None
        await self.server.stop(grace)

    async def _do(self, request: bytes, context: Context) -> bytes:
        self.metadata = dict(
            cast("Iterable[tuple[str, str | bytes]]", context.invocation_metadata())
        )
        self.seconds_left = context.time_remaining()
        self.called.set()
        try:
            return await self.serve(request, context)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _run(self, requests: AsyncIterator[bytes], context: Context) -> None:
        await context.send_initial_metadata(())
        async for request in requests:
            if request == b"end":
                context.set_trailing_metadata((("last", "word"),))
                await context.abort(CODE.ABORTED, "as you wish")
            await context.write(request)


@asynccontextmanager
async def serving(serve: Serve = echo) -> AsyncIterator[tuple[Charge, Caller]]:
    charge = Charge(serve)
    await charge.start()
    try:
        async with asyncio.timeout(10), calling(f"127.0.0.1:{charge.port}") as caller:
            yield charge, caller
    finally:
        await charge.stop()


async def hang(_request: bytes, _context: Context) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def test_metadata_and_the_time_limit_arrive() -> None:
    async with serving() as (charge, caller):
        asked = caller.call(
            b"question", metadata=[(b"saga-id", b"saga 1"), (b"proof-bin", b"AAEC")]
        )
        assert await asked.outcome() == b"question"
        assert charge.metadata["saga-id"] == "saga 1"
        assert charge.metadata["proof-bin"] == b"\0\1\2"
        assert 4 < charge.seconds_left <= 5


async def test_how_a_call_ends_arrives_in_every_letter() -> None:
    words = "100% voll, schöne Grüße\n✓"
    trailing = (("saga-outcome", "rejected"), ("grpc-status-details-bin", bytes(range(256))))

    async def refuse(_request: bytes, context: Context) -> bytes:
        await context.abort(CODE.FAILED_PRECONDITION, words, trailing)

    async with serving(refuse) as (_, caller):
        ending = await caller.call().ending()
        assert (ending.code, ending.message) == (CODE.FAILED_PRECONDITION, words)
        assert sorted(ending.metadata) == sorted(trailing)


async def test_a_bug_of_a_server_is_unknown_and_a_method_that_is_missing_unimplemented() -> None:
    async def bug(_request: bytes, _context: Context) -> bytes:
        raise RuntimeError("a bug")

    async with serving(bug) as (_, caller):
        assert await caller.call().code() is CODE.UNKNOWN
        outcome: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        caller.channel.call("/test.v1.Charge/Undo", b"", (), 5_000, outcome.set_result)
        ending = await outcome
        assert isinstance(ending, Ending)
        assert ending.code is CODE.UNIMPLEMENTED


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_server_that_would_compress_does_not(compression: grpc.Compression) -> None:
    """We do not say that we could read it."""

    async def compress(request: bytes, context: Context) -> bytes:
        context.set_compression(compression)
        return request

    async with serving(compress) as (_, caller):
        assert await caller.call(bytes(100_000)).outcome() == bytes(100_000)


async def test_messages_of_four_mebibytes_go_both_ways_among_small_ones() -> None:
    large = bytes(range(256)) * (1 << 14)
    async with serving() as (_, caller):
        asked = [caller.call(large if number % 4 else b"%d" % number) for number in range(8)]
        for number, it in enumerate(asked):
            assert await it.outcome() == (large if number % 4 else b"%d" % number)
        assert await caller.call(large + b"!").code() is CODE.RESOURCE_EXHAUSTED


async def test_a_server_hears_that_nobody_waits_any_more() -> None:
    async with serving(hang) as (charge, caller):
        assert await caller.call(timeout_ms=50).code() is CODE.DEADLINE_EXCEEDED
        await charge.cancelled.wait()


async def test_a_server_that_stops_with_grace_finishes_its_calls_and_takes_no_more() -> None:
    may_answer, all_called = asyncio.Event(), asyncio.Barrier(21)

    async def slowly(request: bytes, _context: Context) -> bytes:
        await all_called.wait()
        await may_answer.wait()
        return request

    async with serving(slowly) as (charge, caller):
        asked = [caller.call(b"%d" % number) for number in range(20)]
        await all_called.wait()
        stopping = asyncio.ensure_future(charge.stop(5))
        while caller.channel._links:
            await asyncio.sleep(0.001)
        may_answer.set()
        assert [await it.outcome() for it in asked] == [b"%d" % number for number in range(20)]
        assert await caller.call().code() is CODE.UNAVAILABLE
        await stopping


async def test_a_server_that_restarts_under_load_leaves_no_call_without_an_outcome() -> None:
    async with serving() as (charge, caller):
        for _ in range(5):
            answered = await load(caller, 200)
            await charge.stop()
            refused = await load(caller, 200)
            await charge.start()
            assert answered == {b"question"}
            assert refused == {CODE.UNAVAILABLE}
            while await caller.call(b"back").outcome() != b"back":
                await asyncio.sleep(0.01)
        running = asyncio.ensure_future(load(caller, 2_000))
        for _ in range(3):
            await charge.stop()
            await charge.start()
        assert await running <= {b"question", CODE.UNAVAILABLE, CODE.CANCELLED}


async def load(caller: Caller, count: int) -> set[object]:
    """What so many calls, twenty at a time, have heard."""
    outcomes: set[object] = set()
    for _ in range(count // 20):
        for asked in [caller.call(b"question") for _ in range(20)]:
            outcome = await asked.outcome()
            outcomes.add(outcome.code if isinstance(outcome, Ending) else outcome)
    return outcomes


async def test_a_stream_goes_both_ways_and_ends_as_its_server_says() -> None:
    async with serving() as (_, caller):
        stream = caller.stream("/test.v1.Charge/Run")
        await stream.accepts.wait()
        for number in range(100):
            stream.write(b"%d" % number)
        heard = [await stream.messages.get() for _ in range(100)]
        assert heard == [b"%d" % number for number in range(100)]
        stream.write(b"end")
        ending = await stream.ending()
        assert ending == Ending(CODE.ABORTED, "as you wish", (("last", "word"),))


async def test_localhost_is_reached_on_whichever_address_it_listens() -> None:
    async with serving() as (charge, _), calling(f"localhost:{charge.port}") as caller:
        assert await caller.call(b"question").outcome() == b"question"


async def test_an_address_of_ip_version_6_is_reached() -> None:
    server = grpc.aio.server()
    do = grpc.unary_unary_rpc_method_handler(echo)
    handlers = grpc.method_handlers_generic_handler("test.v1.Charge", {"Do": do})
    server.add_generic_rpc_handlers((handlers,))
    try:
        port = server.add_insecure_port("[::1]:0")
    except RuntimeError:
        pytest.skip("this machine has no IP version 6")
    await server.start()
    for target in (f"[::1]:{port}", f"ipv6:[::1]:{port},[::1]:{port}"):
        async with calling(target) as caller:
            assert await caller.call(b"question").outcome() == b"question"
    await server.stop(None)
