"""How a server stops: what it has taken on is answered and heard, and nobody can hold it up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import ngh2
import pytest

from mesh.rpc import server
from mesh.rpc.messages import framed
from mesh.rpc.served import Context
from mesh.rpc.server import RpcServer
from tests.integration.rpc.raw_client import plain_socket, raw_client
from tests.integration.rpc.served_port import Port, serving

OK, UNAVAILABLE = b"0", b"14"


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    async with serving() as port:
        yield port


async def test_a_call_in_flight_is_answered_and_a_new_one_is_not_begun(port: Port) -> None:
    async with raw_client(port) as client:
        call = client.call("/t/Held", b"in flight")
        await client.send()
        await port.begun.wait()
        stopping = asyncio.create_task(port.server.stop(5))
        await client.hear(lambda: any(isinstance(e, ngh2.GoAwayReceived) for e in client.events))
        assert not client.h2.can_send_request
        port.go_on.set()
        await client.closed(call)
        assert client.status(call)[0] == OK
        assert await client.hung_up()
        await stopping


async def test_calls_that_come_before_the_goodbye_has_left_are_refused_unbegun(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that hears of a goodbye asks elsewhere what came after it: it must not be done."""
    async with raw_client(port) as client:
        held = client.call("/t/Held", b"")
        await client.send()
        await port.begun.wait()
        (link,) = port.server._port.links
        link._full = True
        came, opened = asyncio.Event(), link.opened

        def open_and_tell(event: ngh2.RequestReceived) -> None:
            opened(event)
            came.set()

        monkeypatch.setattr(link, "opened", open_and_tell)
        stopping = asyncio.create_task(port.server.stop(5))
        await asyncio.sleep(0)
        late = client.call("/t/Unary", b"late")
        await client.send()
        await came.wait()
        while any(task is not None and not task.done() for task in tasks_but(link, held)):
            await asyncio.sleep(0)
        link.resume_writing()
        port.go_on.set()
        await client.closed(held, late)
        assert (client.ends()[late], port.handled) == (ngh2.ErrorCode.REFUSED_STREAM, 0)
        await stopping


def tasks_but(link: server._Serving, held: int) -> list[asyncio.Task[None] | None]:
    contexts = (context for stream_id, context in link.streams.items() if stream_id != held)
    return [context.task for context in contexts if isinstance(context, Context)]


async def test_a_call_whose_request_arrives_during_the_stop_is_answered(port: Port) -> None:
    async with raw_client(port) as client:
        held, slow = client.call("/t/Held", b""), client.call("/t/Held", ends=False)
        await client.send()
        await port.begun.wait()
        stopping = asyncio.create_task(port.server.stop(5))
        await client.hear(lambda: any(isinstance(e, ngh2.GoAwayReceived) for e in client.events))
        client.h2.send_data(slow, framed(b"slow"), end_stream=True)
        await client.send()
        (link,) = port.server._port.links
        while len(link.tasks()) < 2:
            await asyncio.sleep(0)
        port.go_on.set()
        await client.closed(held, slow)
        assert client.body(slow) == framed(b"re: slow")
        await stopping


async def test_an_answer_larger_than_the_clients_window_is_heard_to_its_end(port: Port) -> None:
    async with raw_client(port, {ngh2.Setting.INITIAL_WINDOW_SIZE: 1_000}) as client:
        call = client.call("/t/Unary", b"." * 10_000)
        await client.send()
        await client.hear(lambda: client.body(call))
        stopping = asyncio.create_task(port.server.stop(0))
        while not port.server._port.leaving:
            await asyncio.sleep(0)
        client.h2.update_settings({ngh2.Setting.INITIAL_WINDOW_SIZE: 100_000})
        await client.closed(call)
        assert (client.status(call)[0], len(client.body(call))) == (OK, 10_009)
        await stopping


async def test_what_is_cut_off_hears_so_and_has_ended_when_the_server_has_stopped(
    port: Port,
) -> None:
    async with raw_client(port) as client:
        calls = [client.call("/t/Held", b""), client.call("/t/Up", ends=False)]
        calls.append(client.call("/t/Unary", ends=False))
        await client.send()
        (link,) = port.server._port.links
        while len(link.streams) < 3:
            await asyncio.sleep(0)
        stopping = asyncio.create_task(port.server.stop(0))
        await client.hear(lambda: all(client.status(call)[0] for call in calls))
        assert [client.status(call)[0] for call in calls] == [UNAVAILABLE] * 3
        client.h2.reset_stream(calls[1])
        client.h2.reset_stream(calls[2])
        await client.send()
        await stopping
        assert port.cancelled.is_set()


async def test_a_handler_that_a_lost_client_left_behind_is_waited_for(port: Port) -> None:
    async with raw_client(port) as client:
        client.call("/t/Stubborn", b"")
        await client.send()
        await port.begun.wait()
    await port.cancelled.wait()
    assert not port.server._port.links
    stopping = asyncio.create_task(port.server.stop(5))
    while not port.server._port.leaving:
        await asyncio.sleep(0)
    assert not stopping.done()
    port.go_on.set()
    await stopping
    assert not port.server._port.cut_off


async def test_neither_a_stubborn_handler_nor_a_client_that_does_not_read_holds_a_stop_up(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_CLEAR_SECONDS", 0.01)
    settings = {ngh2.Setting.INITIAL_WINDOW_SIZE: (1 << 31) - 1}
    async with raw_client(port, settings) as client, raw_client(port) as other:
        client.call("/t/Down", b"3 4000000")
        await client.send()
        other.call("/t/Stubborn", b"")
        await other.send()
        await port.begun.wait()
        while not (full := [link for link in port.server._port.links if link._full]):
            await asyncio.sleep(0)
        assert full[0]._transport is not None
        connection = full[0]._transport.get_extra_info("socket")
        await asyncio.wait_for(port.server.stop(0), 5)
        await asyncio.sleep(0)
        assert (connection.fileno(), port.server._port.links) == (-1, set())


async def test_a_connection_that_is_made_during_the_stop_is_told_goodbye(port: Port) -> None:
    async with plain_socket(port) as connection:
        await port.server.stop(0)
        loop = asyncio.get_running_loop()
        try:
            while await loop.sock_recv(connection, 1 << 16):
                pass
        except ConnectionResetError:
            pass
        assert not port.server._port.links


async def test_a_port_is_free_again_at_once_and_may_be_shared() -> None:
    servers = [RpcServer(lambda _: None, limit=1) for _ in range(3)]
    number = await servers[0].listen("127.0.0.1", 0)
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{number}"):
        await servers[1].listen("127.0.0.1", number)
    await servers[0].stop(0)
    assert await servers[1].listen("127.0.0.1", number, shares_port=True) == number
    assert await servers[2].listen("127.0.0.1", number, shares_port=True) == number
    for one in servers:
        await one.stop(0)
