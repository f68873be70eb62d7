"""Peers that leave, refuse and vanish: what nobody has looked at is made again, nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import ngh2
import pytest_asyncio

from tests.unit.rpc.caller import Caller, calling, turns
from tests.unit.rpc.network import HERE, OK_FIELDS, Host, Network, echo, message

CODE = grpc.StatusCode
REFUSED = ngh2.ErrorCode.REFUSED_STREAM


@pytest_asyncio.fixture
async def caller(host: Host) -> AsyncIterator[Caller]:
    async with calling("10.0.0.1:50051") as caller:
        yield caller


async def test_a_call_beyond_the_last_that_is_served_goes_by_another_connection_once(
    host: Host, caller: Caller
) -> None:
    served, unseen = caller.call(b"first"), caller.call(b"second")
    peer, first_id = await host.called()
    await host.called()
    host.serves = echo
    peer.go_away(first_id)
    assert await unseen.outcome() == b"second"
    assert not served.outcomes
    peer.answer(first_id)
    assert await served.outcome() == b"answer"
    await peer.gone.wait()
    assert len(host.peers) == 2


async def test_the_last_answer_of_a_peer_that_leaves_is_heard_though_it_hangs_up_next(
    host: Host, caller: Caller
) -> None:
    asked = caller.call()
    peer, stream_id = await host.called()
    peer.h2.send_response(stream_id, OK_FIELDS)
    peer.h2.send_data(stream_id, message(b"answer"))
    peer.h2.send_trailers(stream_id, ((b"grpc-status", b"0"),))
    peer.h2.send_goaway(last_stream_id=stream_id)
    peer.say()
    peer.hang_up()
    assert await asked.outcome() == b"answer"


async def test_a_peer_that_has_left_in_two_steps_is_called_no_more(
    host: Host, caller: Caller
) -> None:
    served = caller.call()
    peer, stream_id = await host.called()
    peer.h2.send_shutdown_notice()
    peer.say()
    await turns()
    host.serves = echo
    assert await caller.call(b"new").outcome() == b"new"
    peer.go_away(stream_id)
    peer.answer(stream_id)
    assert await served.outcome() == b"answer"


async def test_a_call_that_was_refused_is_made_again_and_its_answer_counts(
    host: Host, caller: Caller
) -> None:
    asked = caller.call(b"question")
    peer, stream_id = await host.called()
    host.serves = echo
    peer.reset(stream_id, REFUSED)
    assert await asked.outcome() == b"question"


async def test_a_call_that_is_refused_again_and_again_is_unavailable(
    host: Host, caller: Caller
) -> None:
    host.serves = lambda peer, request: peer.reset(request.stream_id, REFUSED)
    assert await caller.call().code() is CODE.UNAVAILABLE
    assert host.complete.qsize() == 3


async def test_a_call_whose_headers_were_answered_is_not_made_again(
    host: Host, caller: Caller
) -> None:
    asked = caller.call()
    peer, stream_id = await host.called()
    peer.begin(stream_id)
    peer.reset(stream_id, REFUSED)
    assert await asked.code() is CODE.UNAVAILABLE
    assert host.complete.empty()


async def test_a_call_that_was_lost_is_not_made_again(host: Host, caller: Caller) -> None:
    asked = caller.call()
    peer, _ = await host.called()
    host.serves = echo
    peer.hang_up()
    assert await asked.code() is CODE.UNAVAILABLE
    assert await caller.call(b"next").outcome() == b"next"
    assert host.complete.qsize() == 1


async def test_calls_that_waited_for_a_peer_that_leaves_go_to_the_next(
    host: Host, caller: Caller
) -> None:
    """The second waits because the peer takes one at a time, so it has never left."""
    host.settings = {ngh2.Setting.MAX_CONCURRENT_STREAMS: 1}
    served, waiting = caller.call(b"first"), caller.call(b"second")
    peer, stream_id = await host.called()
    host.serves = echo
    peer.go_away(stream_id)
    peer.answer(stream_id)
    assert await served.outcome() == b"answer"
    assert await waiting.outcome() == b"second"
    assert [len(caller.asked), len(host.peers)] == [2, 2]


async def test_a_deadline_holds_across_tries(host: Host, caller: Caller) -> None:
    asked = caller.call(timeout_ms=1_000)
    peer, stream_id = await host.called()
    await asyncio.sleep(0.9)
    peer.reset(stream_id, REFUSED)
    assert await asked.code() is CODE.DEADLINE_EXCEEDED
    assert asked.heard_at == [1.0]


async def test_a_connection_without_ids_for_further_calls_is_replaced(
    host: Host, caller: Caller
) -> None:
    first = caller.call()
    peer, stream_id = await host.called()
    (link,) = caller.channel.connections
    link.h2 = WithoutIds(link.h2)  # type: ignore[assignment]
    host.serves = echo
    assert await caller.call(b"second").outcome() == b"second"
    peer.answer(stream_id)
    assert await first.outcome() == b"answer"
    await peer.gone.wait()
    assert len(caller.channel.connections) == 1


class WithoutIds:
    """A connection after 2**30 calls."""

    def __init__(self, h2: ngh2.Connection) -> None:
        self._h2 = h2

    def send_request(self, _: object) -> int:
        raise ngh2.NoAvailableStreamIDError

    def __getattr__(self, name: str) -> object:
        return getattr(self._h2, name)


# --- signs of life ------------------------------------------------------------


async def test_a_peer_that_vanished_is_left_and_its_calls_hear_so(
    host: Host, caller: Caller
) -> None:
    asked = caller.call(timeout_ms=60_000)
    (peer, _), began = await host.called(), asyncio.get_running_loop().time()
    await asyncio.sleep(1)
    peer.deaf = True
    await asyncio.sleep(20)
    assert not asked.outcomes
    assert await asked.code() is CODE.UNAVAILABLE
    assert asked.heard_at[0] - began <= 45
    await peer.gone.wait()


async def test_a_peer_that_is_only_slow_is_asked_not_more_than_every_20_seconds(
    host: Host, caller: Caller
) -> None:
    asked = caller.call(timeout_ms=300_000)
    peer, stream_id = await host.called()
    await asyncio.sleep(200)
    assert 2 <= peer.pings <= 10
    peer.answer(stream_id)
    assert await asked.outcome() == b"answer"


async def test_a_peer_that_speaks_is_not_asked(host: Host, caller: Caller) -> None:
    asked = caller.call(timeout_ms=300_000)
    peer, stream_id = await host.called()
    peer.begin(stream_id)
    for byte in message(b"answer"):
        await asyncio.sleep(15)
        peer.h2.send_data(stream_id, bytes([byte]))
        peer.say()
    assert peer.pings == 0
    peer.end(stream_id)
    assert await asked.outcome() == b"answer"


async def test_a_connection_without_calls_is_let_be(host: Host, caller: Caller) -> None:
    host.serves = echo
    await caller.call().outcome()
    host.peers[0].deaf = True
    await asyncio.sleep(24 * 3_600)
    assert [peer.pings for peer in host.peers] == [0]
    assert not host.peers[0].gone.is_set()


async def test_what_was_left_is_closed_with_the_channel(network: Network) -> None:
    host = network.host(HERE)
    async with calling("10.0.0.1:50051") as caller:
        asked = caller.call(timeout_ms=60_000)
        peer, stream_id = await host.called()
        peer.go_away(stream_id)
        await turns()
    assert await asked.code() is CODE.CANCELLED
    await peer.gone.wait()
