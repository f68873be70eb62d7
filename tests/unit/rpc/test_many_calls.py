"""Thousands of calls: peers that take few at a time or read nothing, and what is left of them."""

from __future__ import annotations

import asyncio
import gc

import grpc
import ngh2

from tests.unit.rpc.caller import calling, turns
from tests.unit.rpc.network import HERE, Host, Network, Peer, Request, echo, message

CODE = grpc.StatusCode
ONE = "10.0.0.1:50051"


async def test_a_peer_that_takes_100_at_a_time_gets_10000_calls_in_order(host: Host) -> None:
    host.settings = {ngh2.Setting.MAX_CONCURRENT_STREAMS: 100}
    open_now: list[Request] = []
    most = 0

    def serve_later(peer: Peer, request: Request) -> None:
        nonlocal most
        open_now.append(request)
        most = max(most, len(open_now))
        asyncio.get_running_loop().call_later(0.01, finish, peer, request)

    def finish(peer: Peer, request: Request) -> None:
        open_now.remove(request)
        echo(peer, request)

    host.serves = serve_later
    async with calling(ONE) as caller:
        asked = [caller.call(b"%d" % number) for number in range(10_000)]
        for number, it in enumerate(asked):
            assert await it.outcome() == b"%d" % number
        assert most == 100
        assert asked[-1].heard_at[0] < 2
    served = [host.complete.get_nowait()[1].body[5:] for _ in asked]
    assert served == [b"%d" % number for number in range(10_000)]


async def test_calls_that_wait_for_their_turn_are_due_in_time_and_let_others_pass(
    host: Host,
) -> None:
    host.settings = {ngh2.Setting.MAX_CONCURRENT_STREAMS: 1}
    async with calling(ONE) as caller:
        holding = caller.call(b"holding")
        hurried = [caller.call(b"hurried", timeout_ms=100 + n) for n in range(100)]
        patient = caller.call(b"patient")
        peer, stream_id = await host.called()
        await asyncio.sleep(1)
        assert [it.heard_at for it in hurried] == [[(100 + n) / 1_000] for n in range(100)]
        assert {await it.code() for it in hurried} == {CODE.DEADLINE_EXCEEDED}
        host.serves = echo
        peer.answer(stream_id)
        assert await holding.outcome() == b"answer"
        assert await patient.outcome() == b"patient"
        assert [host.complete.get_nowait()[1].body[5:]] == [b"patient"]


async def test_calls_whose_time_is_up_make_room_for_others(host: Host) -> None:
    """A peer that answers none of its hundred calls hears that nobody waits for them."""
    host.settings = {ngh2.Setting.MAX_CONCURRENT_STREAMS: 100}
    async with calling(ONE) as caller:
        hung = [caller.call(timeout_ms=100) for _ in range(100)]
        assert {await it.code() for it in hung} == {CODE.DEADLINE_EXCEEDED}
        host.serves = echo
        assert await caller.call(b"next").outcome() == b"next"
        assert [code for _, code in host.peers[0].resets] == [ngh2.ErrorCode.CANCEL] * 100


async def test_a_peer_that_reads_nothing_holds_up_only_what_it_should_read(host: Host) -> None:
    host.settings = {ngh2.Setting.INITIAL_WINDOW_SIZE: 1_000}
    host.reads = False
    async with calling(ONE) as caller:
        large = [caller.call(bytes(100_000), timeout_ms=1_000) for _ in range(10)]
        host.serves = echo
        for number in range(10):
            assert await caller.call(b"%d" % number).outcome() == b"%d" % number
        assert {await it.code() for it in large} == {CODE.DEADLINE_EXCEEDED}
        assert {it.heard_at[0] for it in large} == {1.0}
        await turns()
        assert caller.holds_nothing()


async def test_a_peer_that_answers_without_an_end_is_bounded(host: Host) -> None:
    async with calling(ONE, limit=1 << 20) as caller:
        asked = caller.call(timeout_ms=1_000)
        peer, stream_id = await host.called()
        peer.begin(stream_id, (1 << 20).to_bytes(5, "big"))
        said = 0
        while not peer.resets:
            said += 1
            peer.h2.send_data(stream_id, bytes(1 << 16))
            peer.say()
            await turns(3)
        assert await asked.code() is CODE.INTERNAL
        assert said <= 20


async def test_nothing_is_left_of_ten_thousand_calls(host: Host) -> None:
    """Answered, refused, cut short and late ones."""
    kinds = (
        echo,
        lambda peer, request: peer.only(request.stream_id, ((b":status", b"503"),)),
        lambda peer, request: peer.reset(request.stream_id, ngh2.ErrorCode.CANCEL),
        lambda peer, request: peer.begin(request.stream_id, message(b"never ends")),
    )
    host.serves = lambda peer, request: kinds[request.stream_id // 2 % 4](peer, request)
    async with calling(ONE) as caller:

        async def thousands(count: int) -> None:
            for _ in range(count):
                asked = [caller.call(b"question", timeout_ms=100) for _ in range(1_000)]
                for it in asked:
                    await it.outcome()
                caller.asked.clear()
                while not host.complete.empty():
                    host.complete.get_nowait(), host.begun.get_nowait()
                host.peers[0].resets.clear()

        await thousands(2)
        gc.collect()
        before = len(gc.get_objects())
        await thousands(8)
        await turns()
        gc.collect()
        assert len(gc.get_objects()) - before < 500
        assert caller.holds_nothing()
        assert caller.channel._deadlines._due.keys() <= {100}
    assert host.peers[0].gone.is_set() or len(host.peers) == 1


async def test_each_call_has_one_outcome_whenever_its_peers_come_and_go(network: Network) -> None:
    host = network.host(HERE)
    host.serves = echo
    async with calling(ONE) as caller:
        for round_ in range(200):
            for _ in range(20):
                caller.call(b"question", timeout_ms=1_000)
            await turns(round_ % 7)
            match round_ % 5:
                case 0 if host.peers:
                    host.peers[-1].hang_up()
                case 1 if host.peers and not host.peers[-1].gone.is_set():
                    host.peers[-1].go_away(max(0, 2 * round_ - 1))
                case 2:
                    del network.hosts[HERE]
                case 3:
                    network.hosts[HERE] = host
            await asyncio.sleep(0.02 * (round_ % 3))
        await asyncio.sleep(2)
        assert all(asked.outcomes for asked in caller.asked)
        assert await caller.call(b"the end").outcome() == b"the end"
