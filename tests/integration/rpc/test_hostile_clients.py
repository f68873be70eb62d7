"""Clients that break rules, flood, or read nothing: none harms another call or another client."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import ngh2
import pytest

from mesh.rpc import link, served
from mesh.rpc.link import STREAM_WINDOW
from mesh.rpc.messages import framed
from mesh.rpc.server import _Serving
from tests.integration.rpc.raw_client import RawClient, plain_socket, raw_client, request
from tests.integration.rpc.served_port import LIMIT, Port, serving

OK, UNKNOWN, LATE, EXHAUSTED, UNIMPLEMENTED, INTERNAL = b"0", b"2", b"4", b"8", b"12", b"13"


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    async with serving() as port:
        yield port


@pytest.fixture
async def client(port: Port) -> AsyncIterator[RawClient]:
    async with raw_client(port) as client:
        yield client


def link_of(port: Port) -> _Serving:
    (link,) = port.server._port.links
    return link


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def still_serves(client: RawClient) -> bool:
    stream_id = client.call("/t/Unary", b"still?")
    await client.closed(stream_id)
    return client.body(stream_id) == framed(b"re: still?")


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\nHost: test\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"\x00" * 1_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"GET / HTTP/1.1\r\n\r\n" * 10,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x08\x00\x00\x00\x00\x00",
    ],
    ids=["HTTP/1.1", "TLS", "zeros", "HTTP/1.1 after the preface", "no settings"],
)
async def test_who_speaks_something_else_is_hung_up_on_and_others_are_served(
    port: Port, client: RawClient, words: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    async with plain_socket(port) as stranger:
        await loop.sock_sendall(stranger, words)
        while await loop.sock_recv(stranger, 1 << 16):
            pass
    assert await still_serves(client)
    assert [line for line in caplog.records if line.levelno > logging.INFO] == []


@pytest.mark.parametrize("method", [b"CONNECT", b"GET"])
async def test_what_is_no_post_is_no_call_and_harms_none(client: RawClient, method: bytes) -> None:
    fields = request("/t/Unary", method=method)
    if method == b"CONNECT":  # has neither
        fields = [field for field in fields if field[0] not in {b":path", b":scheme"}]
    other, refused = client.call("/t/Unary", b"other"), client.h2.send_request(fields)
    client.h2.end_stream(refused)
    await client.closed(other, refused)
    assert client.status(refused) == (None, b"415")
    assert client.status(other)[0] == OK


@pytest.mark.parametrize("path", ["", "/", "t/Unary", "/t/Unäry", "/t/" + "x" * 1_000, "*"])
async def test_a_path_of_any_kind_is_refused_for_itself_alone(client: RawClient, path: str) -> None:
    refused = client.call(path, b"who?")
    await client.closed(refused)
    assert client.ends()[refused] or client.status(refused)[0] == b"12"
    assert await still_serves(client)


@pytest.mark.parametrize("limit", [b"", b"x", b"1", b"1.5S", b"999999999S", b"\xff\xffS"])
async def test_a_time_limit_that_is_not_readable_is_refused(
    client: RawClient, limit: bytes
) -> None:
    refused = client.call("/t/Unary", b"soon", (b"grpc-timeout", limit))
    await client.closed(refused)
    assert client.status(refused)[0] == INTERNAL
    assert await still_serves(client)


async def test_many_small_fields_are_one_refused_call_and_no_broken_connection(
    client: RawClient,
) -> None:
    fields = [(b"a%d" % number, b"." * 8) for number in range(1_500)]
    refused = client.call("/t/Unary", b"", *fields)
    await client.closed(refused)
    assert client.status(refused)[0] == EXHAUSTED
    assert await still_serves(client)


@pytest.mark.parametrize("path", ["/t/Unknown", "/t/Unary", "/t/Up"])
async def test_a_call_that_is_given_up_in_the_breath_that_began_it_harms_no_other(
    port: Port, client: RawClient, path: str
) -> None:
    given_up = client.call(path, b"never mind")
    words = client.h2.data_to_send()
    client.h2.reset_stream(given_up)
    other = client.call("/t/Unary", b"other")
    await client.send_together(words)
    await client.closed(other)
    assert client.status(other)[0] == OK
    assert await still_serves(client)
    assert (port.handled, port.begun.is_set()) == (2, False)


async def test_a_connection_that_ends_while_its_last_call_is_given_up_is_told_in_no_error(
    port: Port, client: RawClient, caplog: pytest.LogCaptureFixture
) -> None:
    given_up = client.call("/t/Up", b"." * 1_000, ends=False)
    await client.send()
    await port.begun.wait()
    client.h2.send_data(given_up, framed(b"more"))
    words = client.h2.data_to_send()
    client.h2.send_goaway()
    client.h2.reset_stream(given_up)
    await client.send_together(words)
    assert await client.hung_up()
    await port.cancelled.wait()
    assert [line for line in caplog.records if line.levelno > logging.INFO] == []


async def test_a_fault_of_ours_with_one_call_is_answered_and_the_others_go_on(
    port: Port, client: RawClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = port.server._port.find

    def broken(path: str) -> Any:  # noqa: ANN401
        if path == "/t/Broken":
            raise RuntimeError("a bug")
        return find(path)

    monkeypatch.setattr(port.server._port, "find", broken)
    calls = [client.call(path, b"") for path in ("/t/Unary", "/t/Broken", "/t/Unary")]
    await client.closed(*calls)
    assert [client.status(call)[0] for call in calls] == [OK, None, OK]
    assert client.ends()[calls[1]] == ngh2.ErrorCode.INTERNAL_ERROR


@pytest.mark.parametrize("ending", [(5, "no code"), (None, ""), ("", "")])
async def test_an_ending_that_cannot_be_said_is_answered_nevertheless(
    port: Port, client: RawClient, ending: tuple[Any, str]
) -> None:
    async def bad(_: bytes, context: Any) -> None:  # noqa: ANN401
        await context.abort(*ending)

    async def trailing(_: bytes, context: Any) -> bytes:  # noqa: ANN401
        context.set_trailing_metadata((("number", 5),))
        return b""

    port.serve("/t/Bad", bad)
    port.serve("/t/Trailing", trailing)
    calls = [client.call("/t/Bad", b""), client.call("/t/Trailing", b"")]
    await client.closed(*calls)
    assert [client.status(call)[0] for call in calls] == [UNKNOWN, UNKNOWN]


# --- messages -------------------------------------------------------------------


async def test_a_request_without_a_whole_message_is_refused(client: RawClient) -> None:
    empty, half = client.call("/t/Unary"), client.call("/t/Unary", ends=False)
    client.h2.send_data(half, framed(b"whole")[:-1], end_stream=True)
    await client.closed(empty, half)
    assert [client.status(call)[0] for call in (empty, half)] == [INTERNAL, INTERNAL]


async def test_a_stream_of_requests_that_ends_within_one_does_not_end_well(
    port: Port, client: RawClient
) -> None:
    call = client.call("/t/Up", b"whole", ends=False)
    client.h2.send_data(call, framed(b"half")[:-1], end_stream=True)
    await client.closed(call)
    assert (client.status(call)[0], port.requests) == (INTERNAL, [b"whole"])


async def test_what_comes_after_the_one_message_of_a_call_changes_nothing(
    port: Port, client: RawClient
) -> None:
    call = client.call("/t/Held", b"one", ends=False)
    client.h2.send_data(call, framed(b"two"))
    await client.send()
    await port.begun.wait()
    client.h2.send_data(call, b"\x00\xff\xff\xff\xff no message at all", end_stream=True)
    await client.send()
    port.go_on.set()
    await client.closed(call)
    assert (client.status(call)[0], client.body(call)) == (OK, framed(b"re: one"))


async def test_a_handler_that_waits_for_requests_ends_when_what_comes_is_no_request(
    port: Port, client: RawClient
) -> None:
    call = client.call("/t/Up", b"one", ends=False)
    await client.send()
    await until(lambda: port.requests)
    client.h2.send_data(call, b"\x00\xff\xff\xff\xff")
    await client.send()
    await client.hear(lambda: client.status(call)[0])
    await port.cancelled.wait()
    assert client.status(call)[0] == EXHAUSTED


async def test_trailers_of_a_client_end_its_request(port: Port, client: RawClient) -> None:
    call = client.call("/t/Up", b"one", ends=False)
    client.h2.send_trailers(call, [(b"checksum", b"1")])
    await client.closed(call)
    assert (client.status(call)[0], client.body(call)) == (OK, framed(b"1"))


# --- windows and memory ---------------------------------------------------------


async def test_every_byte_makes_room_for_another_whatever_becomes_of_its_stream(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_CONNECTION_WINDOW", 1 << 16)
    port.go_on.set()
    data = framed(b"." * 4_000)
    async with raw_client(port) as client:
        for path in ("/t/Unary", "/t/Unknown", "/t/Up", "/t/Held") * 5:
            whole, given_up = client.call(path, ends=False), client.call(path, ends=False)
            client.h2.send_data(whole, data)
            client.h2.send_data(given_up, data)
            await client.send()
            client.h2.reset_stream(given_up)
            client.h2.send_data(whole, data, end_stream=True)
            await client.closed(whole)
        assert await still_serves(client)
        for stream_id in client.ends():
            with pytest.raises(ValueError, match="exceeds unacknowledged"):
                link_of(port).h2.acknowledge_received_data(1, stream_id)


async def test_of_a_stream_of_requests_no_more_is_taken_in_than_a_window(
    port: Port, client: RawClient
) -> None:
    read = asyncio.Event()

    async def one(requests: AsyncIterator[bytes], _: Any) -> bytes:  # noqa: ANN401
        await read.wait()
        return b"%d" % sum([len(request) async for request in requests])

    port.serve("/t/Lazy", one, up=True)
    call, size = client.call("/t/Lazy", ends=False), 0
    for _ in range(3 * STREAM_WINDOW // 10_000):
        size += 9_995
        client.h2.send_data(call, framed(b"." * 9_995))
    client.h2.end_stream(call)
    await client.send()
    other = client.call("/t/Unary", b"others")
    await client.closed(other)
    assert client.h2.stream_remote_window_size(call) == 0
    assert client.h2.queued_body_size(call) > STREAM_WINDOW
    read.set()
    while call not in client.ends():
        seen = len(client.events)
        await client.hear(partial(client.more_than, seen))
        await client.send()
    assert client.body(call) == framed(b"%d" % size)


async def test_a_stream_of_responses_that_is_not_read_has_one_response_waiting(
    port: Port,
) -> None:
    async with raw_client(port, {ngh2.Setting.INITIAL_WINDOW_SIZE: 10}) as client:
        call = client.call("/t/Down", b"1000 5000")
        await client.send()
        await client.hear(lambda: client.body(call))
        assert await still_serves_small(client)
        assert (port.handled, link_of(port).h2.queued_body_size()) == (0, 5_005 - 10)


async def still_serves_small(client: RawClient) -> bool:
    refused = client.call("/t/Unknown", b"")
    await client.closed(refused)
    return client.status(refused)[0] == b"12"


async def test_a_client_that_makes_no_room_for_its_answers_is_served_no_further(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.rpc.server._MAX_UNHEARD_BYTES", 100_000)
    async with raw_client(port, {ngh2.Setting.INITIAL_WINDOW_SIZE: 0}) as client:
        calls = [client.call("/t/Unary", b"." * 10_000) for _ in range(12)]
        await client.send()
        await until(lambda: port.handled == 12)
        await client.closed(refused := client.call("/t/Unary", b""))
        assert client.ends()[refused] == ngh2.ErrorCode.REFUSED_STREAM
        client.h2.update_settings({ngh2.Setting.INITIAL_WINDOW_SIZE: 1 << 20})
        await client.closed(*calls)
        assert {client.status(call)[0] for call in calls} == {OK}


async def test_who_does_not_read_is_not_heard_until_it_does(port: Port) -> None:
    settings = {ngh2.Setting.INITIAL_WINDOW_SIZE: (1 << 31) - 1}
    async with raw_client(port, settings) as client:
        client.h2.set_local_window_size((1 << 31) - 1)
        call = client.call("/t/Down", b"3 4000000")
        await client.send()
        serving = link_of(port)
        await until(lambda: serving._full)
        later = client.call("/t/Unary", b"later")
        await client.send()
        assert serving._transport is not None
        assert not serving._transport.is_reading()
        await client.closed(call, later)
        assert [client.status(call)[0] for call in (call, later)] == [OK, OK]


async def test_a_flood_of_pings_by_one_that_reads_nothing_ends_its_connection(
    port: Port, client: RawClient
) -> None:
    await client.send(b"\x00\x00\x08\x06\x00\x00\x00\x00\x00pingping" * 2_000)
    assert await client.hung_up()
    assert not port.server._port.links


async def test_a_flood_of_settings_ends_its_connection(client: RawClient) -> None:
    await client.send(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" * 2_000)
    assert await client.hung_up()


async def test_a_thousand_calls_that_are_given_up_leave_nothing_behind(
    port: Port, client: RawClient
) -> None:
    before = len(asyncio.all_tasks())
    for _ in range(1_000):
        client.h2.reset_stream(client.call("/t/Held", b"never mind", ends=False))
    await client.send()
    assert await still_serves(client)
    await until(lambda: len(asyncio.all_tasks()) <= before)
    assert not link_of(port).streams
    assert not port.server._port.cut_off


async def test_calls_beyond_those_that_are_allowed_are_refused_and_the_others_go_on(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(link._SETTINGS, ngh2.Setting.MAX_CONCURRENT_STREAMS, 10)
    async with plain_socket(port) as connection:
        client = RawClient(connection)  # it begins before it hears how many it may
        client.h2.initiate_connection()
        calls = [client.call("/t/Held", b"", ends=True) for _ in range(11)]
        await client.closed(calls[-1])
        assert client.ends() == {calls[-1]: ngh2.ErrorCode.REFUSED_STREAM}
        port.go_on.set()
        await client.closed(*calls)
        assert {client.status(call)[0] for call in calls[:-1]} == {OK}


async def test_one_read_never_stands_for_more_than_its_pieces_may(
    port: Port, client: RawClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Header fields that the server remembers cost a client one byte each, and us 3,000."""
    fields = request("/t/Unary", *[(b"a", b"." * 3_000)] * 300)
    calls = []
    for _ in range(300):
        calls.append(client.h2.send_request(fields))
        client.h2.end_stream(calls[-1])
    serving, most = link_of(port), 0
    tell = serving._tell

    def weighed(events: Any) -> None:  # noqa: ANN401
        nonlocal most
        opened = (event for event in events if isinstance(event, ngh2.RequestReceived))
        most = max(most, sum(len(value) for event in opened for _, value in event.headers))
        tell(events)

    monkeypatch.setattr(serving, "_tell", weighed)
    serving.data_received(client.h2.data_to_send())
    await client.closed(*calls)
    assert {client.status(call)[0] for call in calls} == {EXHAUSTED}
    assert 0 < most < 200 << 20


async def test_a_request_is_refused_at_its_prefix_and_not_kept(
    port: Port, client: RawClient
) -> None:
    call = client.call("/t/Unary", ends=False)
    client.h2.send_data(call, b"\x00" + (LIMIT + 1).to_bytes(4, "big"))
    await client.send()
    await client.hear(lambda: client.status(call)[0])
    assert client.status(call)[0] == EXHAUSTED


@pytest.mark.parametrize(("path", "whole"), [("/t/Unary", 0), ("/t/Lazy", 3)])
async def test_of_requests_that_are_never_complete_or_never_read_a_connection_keeps_little(
    port: Port, client: RawClient, path: str, whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "MAX_KEPT_BYTES", 1 << 20)
    never = asyncio.Event()

    async def lazy(_: AsyncIterator[bytes], __: Any) -> bytes:  # noqa: ANN401
        await never.wait()
        return b""

    port.serve("/t/Lazy", lazy, up=True)
    kept = framed(b"." * 100_000) * whole + framed(b"." * 300_000)[:-1]
    calls = [client.call(path, ends=False) for _ in range(20)]
    for call in calls:
        client.h2.send_data(call, kept)
    while sum(bool(client.status(call)[0]) for call in calls) < len(calls) - (1 << 20) // len(kept):
        await client.send()
        seen = len(client.events)
        await client.hear(partial(client.more_than, seen))
    link = link_of(port)
    assert {client.status(call)[0] for call in calls} == {EXHAUSTED, None}
    assert 0 < link.kept <= 1 << 20
    assert await still_serves(client)
    for call in calls:
        client.h2.reset_stream(call, ngh2.ErrorCode.CANCEL)
    await client.send()
    await until(lambda: not link.streams)
    assert link.kept == 0


async def test_a_call_whose_time_is_up_leaves_nothing_of_its_request_behind(
    port: Port, client: RawClient
) -> None:
    call = client.call("/t/Unary", None, (b"grpc-timeout", b"50m"), ends=False)
    client.h2.send_data(call, framed(b"." * 500_000)[:-1])
    await client.send()
    await until(lambda: link_of(port).kept == 500_004)
    (context,) = link_of(port).streams.values()
    await client.hear(lambda: client.status(call)[0])
    assert (client.status(call)[0], link_of(port).kept) == (LATE, 0)
    assert isinstance(context, served.Context)
    assert context._inbound.partial == 0


async def test_a_request_that_is_compressed_as_nobody_here_knows_is_told_what_is_known(
    client: RawClient,
) -> None:
    call = client.call("/t/Unary", b"squeezed", (b"grpc-encoding", b"snappy"))
    await client.closed(call)
    assert client.status(call)[0] == UNIMPLEMENTED
    (answer,) = (each for each in client.events if isinstance(each, ngh2.ResponseReceived))
    assert dict(answer.headers)[b"grpc-accept-encoding"] == b"identity,gzip"


async def test_a_hundred_connections_that_say_nothing_do_not_keep_others_out(port: Port) -> None:
    silent = [plain_socket(port) for _ in range(100)]
    for connection in silent:
        await connection.__aenter__()
    await until(lambda: len(port.server._port.links) == 100)
    async with raw_client(port) as client:
        assert await still_serves(client)
    for connection in silent:
        await connection.__aexit__(None, None, None)
    await until(lambda: not port.server._port.links)


async def test_one_that_does_not_say_in_time_that_it_speaks_http2_is_hung_up_on(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.rpc.server._GREETING_SECONDS", 0.01)
    loop = asyncio.get_running_loop()
    async with plain_socket(port) as silent:
        while await loop.sock_recv(silent, 1 << 16):
            pass
    assert not port.server._port.links


async def test_a_client_that_vanishes_has_its_calls_cancelled(port: Port) -> None:
    async with raw_client(port) as client:
        client.call("/t/Held", b"")
        await client.send()
        await port.begun.wait()
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await port.cancelled.wait()
    await until(lambda: not port.server._port.links)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="not on this system")
async def test_a_peer_to_which_nothing_gets_through_is_left_as_soon_as_one_that_vanished(
    port: Port, client: RawClient
) -> None:
    connection = link_of(port)._transport
    assert connection is not None
    told = connection.get_extra_info("socket")
    assert told.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 75_000


async def test_a_deadline_is_answered_whatever_the_handler_does(
    port: Port, client: RawClient
) -> None:
    calls = [
        client.call("/t/Stubborn", b"", (b"grpc-timeout", b"20m")),
        client.call("/t/Held", b"", (b"grpc-timeout", b"0n")),
        client.call("/t/Unary", ends=False),
        client.call("/t/Unary", None, (b"grpc-timeout", b"1n"), ends=False),
    ]
    await client.send()
    await client.hear(lambda: all(client.status(calls[n])[0] for n in (0, 1, 3)))
    assert [client.status(call)[0] for call in calls] == [b"4", b"4", None, b"4"]
