"""How a channel comes to its connections: what they lead to may refuse, hang, or be no gRPC."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import grpc
import ngh2
import pytest

from tests.unit.rpc.caller import calling, turns
from tests.unit.rpc.network import HERE, Host, Network, Peer

CODE = grpc.StatusCode
THERE = ("10.0.0.2", 50051)
BOTH = "ipv4:10.0.0.1:50051,10.0.0.2:50051"
ONE = "10.0.0.1:50051"


def serving(network: Network, address: tuple[str, int] = HERE) -> Host:
    """Answers with its own address."""
    host = network.host(address)
    host.serves = lambda peer, request: peer.answer(request.stream_id, address[0].encode())
    return host


async def test_calls_of_the_first_turn_wait_for_one_connection(network: Network) -> None:
    host = serving(network)
    async with calling(ONE) as caller:
        asked = [caller.call(b"%d" % number) for number in range(100)]
        for it in asked:
            assert await it.outcome() == b"10.0.0.1"
    assert len(host.peers) == 1
    heard = [host.complete.get_nowait()[1].body[5:] for _ in asked]
    assert heard == [b"%d" % number for number in range(100)]


async def test_where_nobody_listens_every_call_hears_so_at_once(network: Network) -> None:
    async with calling(ONE) as caller:
        first = caller.call()
        ending = await first.ending()
        assert ending.code is CODE.UNAVAILABLE
        assert ending.message == f"cannot connect to {ONE}: Connection refused"
        assert await caller.call().ending() == ending
        assert caller.asked[1].heard_at == [0]


async def test_the_pauses_between_tries_grow_to_a_second(network: Network) -> None:
    async with calling(ONE) as caller:
        for _ in range(500):
            await caller.call().outcome()
            await asyncio.sleep(0.01)
    assert network.tries[HERE] == pytest.approx([0, 0.1, 0.3, 0.7, 1.5, 2.5, 3.5, 4.5], abs=0.09)


async def test_a_peer_that_comes_back_is_found_within_a_second(network: Network) -> None:
    async with calling(ONE) as caller:
        for _ in range(1_000):
            await caller.call().outcome()
            await asyncio.sleep(0.01)
        serving(network)
        await asyncio.sleep(1)
        assert await caller.call().outcome() == b"10.0.0.1"


async def test_a_connection_that_hangs_is_given_up_after_two_seconds(network: Network) -> None:
    network.black_holes.add(HERE)
    async with calling(ONE) as caller:
        asked = caller.call(timeout_ms=10_000)
        assert await asked.code() is CODE.UNAVAILABLE
        assert asked.heard_at == [2.0]


async def test_a_deadline_holds_while_a_call_waits_for_a_connection(network: Network) -> None:
    network.black_holes.add(HERE)
    async with calling(ONE) as caller:
        asked = caller.call(timeout_ms=500)
        assert await asked.code() is CODE.DEADLINE_EXCEEDED
        assert asked.heard_at == [0.5]
        assert caller.holds_nothing()


async def test_a_call_whose_time_was_up_before_the_connection_is_never_sent(
    network: Network,
) -> None:
    host = network.host()
    host.greets = False
    async with calling(ONE) as caller:
        late, asked = caller.call(b"late", timeout_ms=500), caller.call(b"in time")
        assert await late.code() is CODE.DEADLINE_EXCEEDED
        host.greet()
        peer, request = await host.complete.get()
        assert request.body[5:] == b"in time"
        peer.answer(request.stream_id)
        assert await asked.outcome() == b"answer"


async def test_who_says_nothing_is_left_again_and_again_without_a_trace(
    network: Network,
) -> None:
    host = network.host()
    host.greets = False
    async with calling(ONE) as caller:
        for _ in range(10):
            asked = caller.call(timeout_ms=10_000)
            assert await asked.code() is CODE.UNAVAILABLE
            await asyncio.sleep(1)
        assert not caller.channel.connections
    assert len(host.peers) == 10
    assert all(peer.gone.is_set() for peer in host.peers)


@pytest.mark.parametrize(
    "words",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"220 mail.example ESMTP\r\n",
        b"\0" * 64,
    ],
)
async def test_who_speaks_something_else_is_left_at_once(network: Network, words: bytes) -> None:
    host = network.host()
    host.greets, host.first_words = False, words
    async with calling(ONE) as caller:
        asked = caller.call()
        assert await asked.code() is CODE.UNAVAILABLE
        assert asked.heard_at == [0]
        await host.peers[0].gone.wait()
        assert not caller.channel.connections


def leaves(peer: Peer) -> None:
    peer.h2.send_goaway(last_stream_id=0)
    peer.say()


def speaks_nonsense(peer: Peer) -> None:
    peer.say()
    peer.say_bytes(b"\0\0\0\xff" * 100)


@pytest.mark.parametrize("and_then", [leaves, speaks_nonsense, Peer.hang_up])
async def test_who_greets_and_leaves_at_once_gets_no_call_and_a_pause(
    network: Network, and_then: Callable[[Peer], None]
) -> None:
    host = network.host()
    host.on_greeting = and_then
    async with calling(ONE) as caller:
        asked = caller.call()
        assert await asked.code() is CODE.UNAVAILABLE
        assert await caller.call().code() is CODE.UNAVAILABLE
        assert asked.heard_at == [0]
        await turns()
        assert len(host.peers) <= 3
        assert not caller.channel.connections
        host.on_greeting = None
        host.serves = lambda peer, request: peer.answer(request.stream_id)
        await asyncio.sleep(1)
        assert await caller.call().outcome() == b"answer"


async def hang_up_after(peer: Peer, count: int) -> None:
    await turns(count)
    peer.hang_up()


@pytest.mark.parametrize("count", range(8))
async def test_whenever_a_new_connection_is_lost_no_call_waits_for_nothing(
    network: Network, count: int
) -> None:
    host, hanging_up = network.host(), list[object]()
    host.on_greeting = lambda peer: hanging_up.append(
        asyncio.ensure_future(hang_up_after(peer, count))
    )
    async with calling(ONE) as caller:
        for _ in range(30):
            caller.call()
            await turns(1)
        host.on_greeting = None
        await turns(30)
        assert all(asked.heard_at == [0] or not asked.outcomes for asked in caller.asked)
        waiting = [asked for asked in caller.asked if not asked.outcomes]
        assert host.complete.qsize() >= len(waiting)
        assert not caller.channel._waiting


# --- several addresses ----------------------------------------------------------


async def test_addresses_take_calls_in_turn(network: Network) -> None:
    serving(network), serving(network, THERE)
    async with calling(BOTH) as caller:
        await caller.call().outcome()
        await turns()
        heard = [await caller.call().outcome() for _ in range(4)]
    assert sorted(map(str, heard)) == ["b'10.0.0.1'"] * 2 + ["b'10.0.0.2'"] * 2


async def test_one_that_hangs_holds_up_no_call_to_the_other(network: Network) -> None:
    serving(network)
    network.black_holes.add(THERE)
    async with calling(BOTH) as caller:
        for _ in range(100):
            assert await caller.call().outcome() == b"10.0.0.1"
            await asyncio.sleep(0.1)
        assert all(
            asked.heard_at[0] == pytest.approx(0.1 * n) for n, asked in enumerate(caller.asked)
        )


async def test_one_that_comes_back_gets_its_share_again(network: Network) -> None:
    serving(network)
    async with calling(BOTH) as caller:
        await caller.call().outcome()
        await asyncio.sleep(1)
        serving(network, THERE)
        await caller.call().outcome()
        await turns()
        assert {await caller.call().outcome() for _ in range(2)} == {b"10.0.0.1", b"10.0.0.2"}


async def test_one_that_was_lost_while_another_was_awaited_is_not_forgotten(
    network: Network,
) -> None:
    host = serving(network)
    slow = network.host(THERE)
    slow.greets = False
    async with calling(BOTH) as caller:
        await caller.call().outcome()
        host.peers[0].hang_up()
        await turns()
        slow.serves = lambda peer, request: peer.answer(request.stream_id, b"10.0.0.2")
        slow.greet()
        await turns()
        heard = {await caller.call().outcome() for _ in range(3)}
        await turns()
        assert heard | {await caller.call().outcome() for _ in range(2)} == {
            b"10.0.0.1",
            b"10.0.0.2",
        }


# --- names ------------------------------------------------------------------------


async def test_a_name_leads_to_all_that_it_resolves_to(network: Network) -> None:
    serving(network), serving(network, THERE)
    network.names["payment"] = ["10.0.0.1", "10.0.0.2", "10.0.0.1"]
    async with calling("payment:50051") as caller:
        await caller.call().outcome()
        await turns()
        assert {await caller.call().outcome() for _ in range(2)} == {b"10.0.0.1", b"10.0.0.2"}
        assert [len(host.peers) for host in network.hosts.values()] == [1, 1]


@pytest.mark.parametrize(
    "error", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")]
)
async def test_a_name_that_does_not_resolve_is_unavailable(
    network: Network, error: Exception
) -> None:
    network.names["payment"] = error
    async with calling("payment:50051") as caller:
        asked = caller.call()
        assert await asked.code() is CODE.UNAVAILABLE
        assert asked.heard_at == [0]
        network.names["payment"] = ["10.0.0.1"]
        serving(network)
        await asyncio.sleep(1)
        assert await caller.call().outcome() == b"10.0.0.1"


async def test_what_a_name_resolves_to_is_followed_and_no_call_is_cut(network: Network) -> None:
    old = network.host()
    serving(network, THERE)
    network.names["payment"] = ["10.0.0.1"]
    async with calling("payment:50051") as caller:
        slow = caller.call(timeout_ms=120_000)
        peer, stream_id = await old.called()
        network.names["payment"] = ["10.0.0.2"]
        await asyncio.sleep(31)
        old.serves = lambda peer, request: peer.answer(request.stream_id, b"10.0.0.1")
        await caller.call().outcome()  # which notices
        await turns()
        assert await caller.call().outcome() == b"10.0.0.2"
        peer.answer(stream_id)
        assert await slow.outcome() == b"answer"
        await peer.gone.wait()


async def test_a_name_that_no_longer_resolves_keeps_its_connections(network: Network) -> None:
    serving(network)
    network.names["payment"] = ["10.0.0.1"]
    async with calling("payment:50051") as caller:
        await caller.call().outcome()
        network.names["payment"] = socket.gaierror(-3, "Temporary failure in name resolution")
        for _ in range(10):
            await asyncio.sleep(31)
            assert await caller.call().outcome() == b"10.0.0.1"


# --- the end --------------------------------------------------------------------


async def test_a_call_after_the_end_is_cancelled_and_connects_nowhere(network: Network) -> None:
    host = serving(network)
    async with calling(ONE) as caller:
        await caller.channel.close()
        assert await caller.call().code() is CODE.CANCELLED
        stream = caller.stream()
        assert (await stream.ending()).code is CODE.CANCELLED
        await turns()
    assert host.peers == []


@pytest.mark.parametrize("hangs", [True, False], ids=["at the connection", "at the greeting"])
async def test_whoever_waits_for_a_connection_at_the_end_is_cancelled(
    network: Network, *, hangs: bool
) -> None:
    network.black_holes |= {HERE} if hangs else set()
    host = network.host()
    host.greets = False
    async with calling(ONE) as caller:
        asked, stream = caller.call(), caller.stream()
        await asyncio.sleep(1)
        await caller.channel.close()
        assert await asked.code() is CODE.CANCELLED
        assert (await stream.ending()).code is CODE.CANCELLED
    for peer in host.peers:
        await peer.gone.wait()


async def test_whoever_waits_for_an_answer_at_the_end_is_cancelled(network: Network) -> None:
    host = network.host()
    async with calling(ONE) as caller:
        asked, stream = caller.call(), caller.stream()
        peer, _ = await host.called()
        await stream.begins.wait()
        await caller.channel.close()
        assert await asked.code() is CODE.CANCELLED
        assert (await stream.ending()).code is CODE.CANCELLED
        await peer.gone.wait()


async def test_nothing_is_left_of_a_channel(network: Network) -> None:
    """No timer fires after the end: the loop has nothing more to do."""
    network.names["payment"] = ["10.0.0.1"]
    serving(network)
    async with calling("payment:50051") as caller:
        await caller.call().outcome()
    timers = [it for it in asyncio.get_running_loop()._scheduled if not it.cancelled()]  # type: ignore[attr-defined]
    assert timers == []


async def test_a_peer_with_settings_of_its_own_is_a_peer(network: Network) -> None:
    host = serving(network)
    host.settings = {ngh2.Setting.MAX_FRAME_SIZE: 1 << 20, ngh2.Setting.HEADER_TABLE_SIZE: 0}
    async with calling(ONE) as caller:
        assert await caller.call(bytes(1 << 16)).outcome() == b"10.0.0.1"
