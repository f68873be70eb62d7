"""What a call hears, in whatever order and shape a peer says it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import ngh2
import pytest
import pytest_asyncio

from mesh.rpc.headers import Ending
from tests.unit.rpc.caller import Caller, calling, turns
from tests.unit.rpc.network import OK_FIELDS, OK_TRAILERS, Host, Network, Peer, message

Says = Callable[[Peer, int], None]
CODE = grpc.StatusCode
CUT = message(b"a long answer")[:-3]
UNAVAILABLE = ((b"grpc-status", b"14"), (b"grpc-message", b"later"))


@pytest_asyncio.fixture
async def caller(host: Host) -> AsyncIterator[Caller]:
    async with calling("10.0.0.1:50051", limit=1_000) as caller:
        yield caller


async def test_an_answer_is_its_message(host: Host, caller: Caller) -> None:
    asked = caller.call(b"question")
    peer, request = await host.complete.get()
    assert request.body == message(b"question")
    assert (b":path", b"/test.v1.Charge/Do") in request.fields
    assert (b"grpc-timeout", b"5000m") in request.fields
    peer.answer(request.stream_id, b"answer")
    assert await asked.outcome() == b"answer"


async def test_an_empty_message_is_an_answer(host: Host, caller: Caller) -> None:
    asked = caller.call()
    peer, stream_id = await host.called()
    peer.answer(stream_id, b"")
    assert await asked.outcome() == b""


async def test_an_answer_may_come_byte_by_byte(host: Host, caller: Caller) -> None:
    asked = caller.call()
    peer, stream_id = await host.called()
    peer.begin(stream_id)
    for byte in message(b"answer"):
        peer.h2.send_data(stream_id, bytes([byte]))
        peer.say()
        await turns()
    peer.end(stream_id)
    assert await asked.outcome() == b"answer"


async def test_a_response_of_as_many_bytes_as_are_allowed_is_one(
    host: Host, caller: Caller
) -> None:
    asked = caller.call()
    peer, stream_id = await host.called()
    peer.answer(stream_id, bytes(1_000))
    assert await asked.outcome() == bytes(1_000)


def no_status(peer: Peer, stream_id: int) -> None:
    peer.begin(stream_id, message(b"answer"))
    peer.end(stream_id, ())


def trailers_without_status(peer: Peer, stream_id: int) -> None:
    peer.begin(stream_id, message(b"answer"))
    peer.end(stream_id, ((b"some", b"thing"),))


def no_message(peer: Peer, stream_id: int) -> None:
    peer.begin(stream_id)
    peer.end(stream_id)


def only_ok(peer: Peer, stream_id: int) -> None:
    peer.only(stream_id, (*OK_FIELDS, *OK_TRAILERS))


def two_messages(peer: Peer, stream_id: int) -> None:
    peer.begin(stream_id, message(b"answer") + message(b"another"))
    peer.end(stream_id)


def a_message_that_is_cut(peer: Peer, stream_id: int) -> None:
    peer.begin(stream_id, CUT)
    peer.end(stream_id)


def a_message_and_a_piece(peer: Peer, stream_id: int) -> None:
    peer.begin(stream_id, message(b"answer") + CUT)
    peer.end(stream_id)


def compressed(peer: Peer, stream_id: int) -> None:
    peer.begin(stream_id, b"\1" + message(b"answer")[1:])
    peer.end(stream_id)


def too_large(peer: Peer, stream_id: int) -> None:
    peer.begin(stream_id, message(bytes(1_001)))
    peer.end(stream_id)


def refused_in_words(peer: Peer, stream_id: int) -> None:
    peer.only(stream_id, (*OK_FIELDS, *UNAVAILABLE))


def refused_after_a_message(peer: Peer, stream_id: int) -> None:
    peer.begin(stream_id, message(b"answer"))
    peer.end(stream_id, UNAVAILABLE)


def a_code_unheard_of(peer: Peer, stream_id: int) -> None:
    peer.only(stream_id, (*OK_FIELDS, (b"grpc-status", b"99")))


def a_code_of_ten_thousand_digits(peer: Peer, stream_id: int) -> None:
    peer.only(stream_id, (*OK_FIELDS, (b"grpc-status", b"1" * 10_000)))


def a_proxy_that_finds_nothing(peer: Peer, stream_id: int) -> None:
    peer.only(stream_id, ((b":status", b"404"),))


def a_proxy_with_a_page(peer: Peer, stream_id: int) -> None:
    peer.begin(stream_id, b"<html>no backend</html>", ((b":status", b"503"),))
    peer.end(stream_id, ())


def a_proxy_with_a_page_and_trailers(peer: Peer, stream_id: int) -> None:
    peer.begin(stream_id, b"<html>no backend</html>", ((b":status", b"503"),))
    peer.end(stream_id, ((b"server-timing", b"1"),))


def a_proxy_that_seems_fine(peer: Peer, stream_id: int) -> None:
    peer.begin(stream_id, b"", ((b":status", b"200"), (b"content-type", b"text/html")))
    peer.end(stream_id, ())


def reset_at_once(peer: Peer, stream_id: int) -> None:
    peer.reset(stream_id, ngh2.ErrorCode.CANCEL)


def reset_after_the_message(peer: Peer, stream_id: int) -> None:
    peer.begin(stream_id, message(b"answer"))
    peer.reset(stream_id, ngh2.ErrorCode.NO_ERROR)


def reset_with_a_code_of_its_own(peer: Peer, stream_id: int) -> None:
    peer.reset(stream_id, 0xC0FFEE)


def hangs_up(peer: Peer, _stream_id: int) -> None:
    peer.hang_up()


def hangs_up_before_the_trailers(peer: Peer, stream_id: int) -> None:
    peer.begin(stream_id, message(b"answer"))
    peer.hang_up()


def says_nonsense(peer: Peer, _stream_id: int) -> None:
    peer.say_bytes(b"\0\0\0\xff" * 100)


@pytest.mark.parametrize(
    ("says", "code", "words"),
    [
        (no_status, CODE.UNKNOWN, "no grpc-status"),
        (trailers_without_status, CODE.UNKNOWN, "no grpc-status"),
        (no_message, CODE.INTERNAL, "not one message"),
        (only_ok, CODE.INTERNAL, "not one message"),
        (two_messages, CODE.INTERNAL, "not one message"),
        (a_message_that_is_cut, CODE.INTERNAL, "not one message"),
        (a_message_and_a_piece, CODE.INTERNAL, "not one message"),
        (compressed, CODE.INTERNAL, "compressed"),
        (too_large, CODE.RESOURCE_EXHAUSTED, "1001 vs. 1000"),
        (refused_in_words, CODE.UNAVAILABLE, "later"),
        (refused_after_a_message, CODE.UNAVAILABLE, "later"),
        (a_code_unheard_of, CODE.UNKNOWN, ""),
        (a_code_of_ten_thousand_digits, CODE.UNKNOWN, ""),
        (a_proxy_that_finds_nothing, CODE.UNIMPLEMENTED, "HTTP status 404"),
        (a_proxy_with_a_page, CODE.UNAVAILABLE, "HTTP status 503"),
        (a_proxy_with_a_page_and_trailers, CODE.UNAVAILABLE, "HTTP status 503"),
        (a_proxy_that_seems_fine, CODE.UNKNOWN, "no grpc-status"),
        (reset_at_once, CODE.CANCELLED, "HTTP/2 error 8"),
        (reset_after_the_message, CODE.INTERNAL, "HTTP/2 error 0"),
        (reset_with_a_code_of_its_own, CODE.INTERNAL, "HTTP/2 error 12648430"),
        (hangs_up, CODE.UNAVAILABLE, "lost before the answer"),
        (hangs_up_before_the_trailers, CODE.UNAVAILABLE, "lost before the answer"),
        (says_nonsense, CODE.UNAVAILABLE, "lost before the answer"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_what_is_no_answer_says_why(
    host: Host, caller: Caller, says: Says, code: grpc.StatusCode, words: str
) -> None:
    asked = caller.call()
    says(*await host.called())
    ending = await asked.ending()
    assert ending.code is code
    assert words in ending.message


async def test_the_peer_of_a_response_that_is_too_large_is_told(host: Host, caller: Caller) -> None:
    asked = caller.call()
    peer, stream_id = await host.called()
    peer.begin(stream_id, message(bytes(1_001)))
    assert await asked.code() is CODE.RESOURCE_EXHAUSTED
    await turns()
    assert peer.resets == [(stream_id, ngh2.ErrorCode.CANCEL)]


async def test_metadata_at_the_end_arrives(host: Host, caller: Caller) -> None:
    asked = caller.call()
    peer, stream_id = await host.called()
    peer.begin(stream_id)
    peer.end(
        stream_id,
        (
            (b"grpc-status", b"9"),
            (b"grpc-message", b"100%25 full"),
            (b"saga-outcome", b"rejected"),
            (b"proof-bin", b"AAEC,AwQ"),
        ),
    )
    metadata = (("saga-outcome", "rejected"), ("proof-bin", b"\0\1\2"), ("proof-bin", b"\3\4"))
    assert await asked.ending() == Ending(CODE.FAILED_PRECONDITION, "100% full", metadata)


@pytest.mark.parametrize("error_code", list(ngh2.ErrorCode), ids=lambda code: code.name)
async def test_a_peer_may_answer_before_it_has_heard_everything(
    error_code: ngh2.ErrorCode,
) -> None:
    """It then ends the stream with a reset, which takes nothing from the answer."""
    network = Network()
    host = network.host()
    host.reads = False
    async with calling("10.0.0.1:50051") as caller:
        asked = caller.call(bytes(200_000))
        request = await host.begun.get()
        host.peers[0].answer(request.stream_id)
        host.peers[0].reset(request.stream_id, error_code)
        assert await asked.outcome() == b"answer"


async def test_an_answer_ends_a_call_that_was_not_heard_to_its_end(
    host: Host, caller: Caller
) -> None:
    host.reads = False
    asked = caller.call(bytes(200_000))
    request = await host.begun.get()
    host.peers[0].only(request.stream_id, (*OK_FIELDS, *UNAVAILABLE))
    assert await asked.code() is CODE.UNAVAILABLE
    assert asked.heard_at == [0]
    await turns()
    assert caller.holds_nothing()


async def test_a_reset_breaks_no_other_call(host: Host, caller: Caller) -> None:
    first, second = caller.call(), caller.call()
    peer, stream_id = await host.called()
    _, other_id = await host.called()
    peer.reset(stream_id, 0xC0FFEE)
    peer.answer(other_id)
    assert await first.code() is CODE.INTERNAL
    assert await second.outcome() == b"answer"
    assert len(host.peers) == 1


async def test_what_comes_after_the_end_harms_nobody(host: Host, caller: Caller) -> None:
    asked = caller.call(timeout_ms=100)
    peer, stream_id = await host.called()
    peer.deaf = True  # what it says crosses what it is told
    assert await asked.code() is CODE.DEADLINE_EXCEEDED
    await turns()
    peer.answer(stream_id)
    peer.deaf = False
    other = caller.call()
    _, other_id = await host.called()
    peer.answer(other_id)
    assert await other.outcome() == b"answer"


async def test_a_caller_that_raises_is_heard_of_and_takes_nobody_with_it(
    host: Host, caller: Caller
) -> None:
    told = list[object]()
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: told.append(str(context["exception"]))
    )

    def broken(_: object) -> None:
        raise RuntimeError("a bug in the caller")

    caller.channel.call("/test.v1.Charge/Do", b"", (), 5_000, broken)
    asked = caller.call()
    for _ in range(2):
        peer, stream_id = await host.called()
        peer.h2.send_response(stream_id, OK_FIELDS)
        peer.h2.send_data(stream_id, message(b"answer"))
        peer.h2.send_trailers(stream_id, OK_TRAILERS)
    peer.say()
    assert await asked.outcome() == b"answer"
    assert told == ["a bug in the caller"]


async def test_a_call_that_cannot_be_sent_hears_so_and_holds_nobody_up(
    host: Host, caller: Caller
) -> None:
    no_bytes: Any = [(b"saga-id", None)]
    before, bad, after = caller.call(), caller.call(metadata=no_bytes), caller.call()
    for _ in range(2):
        peer, stream_id = await host.called()
        peer.answer(stream_id)
    assert [await it.outcome() for it in (before, after)] == [b"answer", b"answer"]
    assert await bad.code() is CODE.INTERNAL
    assert await caller.call(metadata=no_bytes).code() is CODE.INTERNAL
