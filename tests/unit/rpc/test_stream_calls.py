"""A call with streams both ways, and what its listener hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
import ngh2
import pytest
import pytest_asyncio

from tests.unit.rpc.caller import Caller, Listening, calling, turns
from tests.unit.rpc.network import HERE, OK_FIELDS, OK_TRAILERS, Host, Network, Peer, message

CODE = grpc.StatusCode
Says = Callable[[Peer, int], None]


@pytest_asyncio.fixture
async def caller(host: Host) -> AsyncIterator[Caller]:
    async with calling("10.0.0.1:50051", limit=1_000) as caller:
        yield caller


async def opened(host: Host, caller: Caller) -> tuple[Listening, Peer, int]:
    """A stream that its peer has accepted."""
    stream = caller.stream()
    stream_id = (await host.begun.get()).stream_id
    host.peers[-1].begin(stream_id)
    await stream.accepts.wait()
    return stream, host.peers[-1], stream_id


async def test_messages_go_both_ways_until_the_peer_ends_it(host: Host, caller: Caller) -> None:
    stream, peer, stream_id = await opened(host, caller)
    stream.write(b"one")
    stream.write(b"two")
    peer.h2.send_data(stream_id, message(b"1") + message(b"2") + message(b"3")[:4])
    peer.say()
    await turns()
    assert stream.sent == [b"one", b"two"]
    assert peer.heard_of(stream_id) == message(b"one") + message(b"two")
    peer.h2.send_data(stream_id, message(b"3")[4:])
    peer.end(stream_id, ((b"grpc-status", b"14"), (b"grpc-message", b"draining")))
    ending = await stream.ending()
    assert [stream.messages.get_nowait() for _ in range(3)] == [b"1", b"2", b"3"]
    assert (ending.code, ending.message) == (CODE.UNAVAILABLE, "draining")


def ends_well(peer: Peer, stream_id: int) -> None:
    peer.end(stream_id, OK_TRAILERS)


def ends_without_a_status(peer: Peer, stream_id: int) -> None:
    peer.end(stream_id, ())


def resets(peer: Peer, stream_id: int) -> None:
    peer.reset(stream_id, ngh2.ErrorCode.ENHANCE_YOUR_CALM)


def resets_without_an_error(peer: Peer, stream_id: int) -> None:
    peer.reset(stream_id, ngh2.ErrorCode.NO_ERROR)


def refuses_what_it_has_accepted(peer: Peer, stream_id: int) -> None:
    peer.reset(stream_id, ngh2.ErrorCode.REFUSED_STREAM)


def hangs_up(peer: Peer, _stream_id: int) -> None:
    peer.hang_up()


def says_too_much(peer: Peer, stream_id: int) -> None:
    peer.h2.send_data(stream_id, message(bytes(1_001)))
    peer.say()


@pytest.mark.parametrize(
    ("says", "code"),
    [
        (ends_well, CODE.OK),
        (ends_without_a_status, CODE.UNKNOWN),
        (resets, CODE.RESOURCE_EXHAUSTED),
        (resets_without_an_error, CODE.INTERNAL),
        (refuses_what_it_has_accepted, CODE.UNAVAILABLE),
        (hangs_up, CODE.UNAVAILABLE),
        (says_too_much, CODE.RESOURCE_EXHAUSTED),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_its_end_is_heard_once(
    host: Host, caller: Caller, says: Says, code: grpc.StatusCode
) -> None:
    stream, peer, stream_id = await opened(host, caller)
    says(peer, stream_id)
    assert (await stream.ending()).code is code
    await turns()
    assert len(stream.endings) == 1
    assert host.begun.empty()
    if not peer.gone.is_set():
        peer.hang_up()
    await peer.gone.wait()
    assert len(stream.endings) == 1


@pytest.mark.parametrize(
    ("status", "code"), [(b"404", CODE.UNIMPLEMENTED), (b"503", CODE.UNAVAILABLE)]
)
async def test_a_proxy_with_a_page_is_no_stream(
    host: Host, caller: Caller, status: bytes, code: grpc.StatusCode
) -> None:
    stream = caller.stream()
    stream_id = (await host.begun.get()).stream_id
    host.peers[0].begin(stream_id, b"<html>no backend</html>", ((b":status", status),))
    host.peers[0].end(stream_id, ())
    assert (await stream.ending()).code is code
    assert not stream.accepts.is_set()


async def test_what_was_given_up_says_and_hears_nothing(host: Host, caller: Caller) -> None:
    stream, peer, stream_id = await opened(host, caller)
    assert stream.call is not None
    stream.call.give_up()
    stream.write(b"late")
    await turns()
    assert peer.resets == [(stream_id, ngh2.ErrorCode.CANCEL)]
    assert (stream.endings, stream.sent) == ([], [])


@pytest.mark.parametrize("waits", [True, False], ids=["for a connection", "for nothing"])
async def test_what_is_given_up_before_it_was_opened_never_is(
    network: Network, *, waits: bool
) -> None:
    host = network.host()
    async with calling("10.0.0.1:50051") as caller:
        if not waits:
            await opened(host, caller)
        stream = caller.stream()
        assert stream.call is not None
        stream.call.give_up()
        await turns(20)
        assert host.begun.empty()
        assert stream.endings == []


async def test_nothing_opened_by_a_peer_that_leaves_is_opened_for_nobody(
    host: Host, caller: Caller
) -> None:
    stream = caller.stream()
    await host.begun.get()
    assert stream.call is not None
    stream.call.give_up()
    host.peers[0].go_away(0)
    await turns(20)
    assert host.begun.empty()


async def test_a_stream_that_was_refused_is_opened_again(host: Host, caller: Caller) -> None:
    stream = caller.stream()
    stream_id = (await host.begun.get()).stream_id
    host.peers[0].reset(stream_id, ngh2.ErrorCode.REFUSED_STREAM)
    stream_id = (await host.begun.get()).stream_id
    host.peers[0].only(stream_id, (*OK_FIELDS, *OK_TRAILERS))
    assert (await stream.ending()).code is CODE.OK


async def test_a_stream_that_was_refused_with_something_in_it_is_over(
    host: Host, caller: Caller
) -> None:
    """Opened again, it would lack what was written."""
    stream = caller.stream()
    await stream.begins.wait()
    stream.write(b"batch")
    await host.begun.get()
    host.peers[0].go_away(0)
    assert (await stream.ending()).code is CODE.UNAVAILABLE
    await turns(20)
    assert host.begun.empty()


async def test_what_a_peer_does_not_read_is_not_sent_until_it_does(network: Network) -> None:
    host = network.host()
    host.reads, host.settings = False, {ngh2.Setting.INITIAL_WINDOW_SIZE: 1_000}
    async with calling("10.0.0.1:50051") as caller:
        stream, peer, _ = await opened(host, caller)
        stream.write(bytes(100_000))
        await turns(20)
        assert stream.sent == []
        asked = caller.call()
        _, other_id = await host.called()
        peer.answer(other_id)
        assert await asked.outcome() == b"answer"
        peer.read_all()
        await turns(500)
        assert stream.sent == [bytes(100_000)]


async def test_who_waits_to_write_to_a_peer_that_vanishes_hears_the_end(network: Network) -> None:
    host = network.host()
    host.reads = False
    async with calling("10.0.0.1:50051") as caller:
        stream, peer, _ = await opened(host, caller)
        stream.write(bytes(100_000))
        peer.deaf = True
        assert (await stream.ending()).code is CODE.UNAVAILABLE
        assert asyncio.get_running_loop().time() <= 45


async def test_where_nobody_listens_a_stream_hears_so(network: Network) -> None:
    async with calling("10.0.0.1:50051") as caller:
        assert (await caller.stream().ending()).code is CODE.UNAVAILABLE
    network.black_holes.add(HERE)
    async with calling("10.0.0.1:50051") as caller:
        stream = caller.stream()
        assert (await stream.ending()).code is CODE.UNAVAILABLE
        assert not stream.begins.is_set()
