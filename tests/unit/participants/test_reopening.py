"""When streams are opened again: no network, and a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import grpc
import pytest
from opentelemetry.trace import NoOpTracer

from coordinator.participants.base import Answer, Attempt
from coordinator.participants.streams import Streams
from mesh.rpc.channel import Channel
from mesh.rpc.headers import Ending
from mesh.rpc.streaming import Listener
from tests.integration.participants.participant import DO
from tests.unit.rpc.network import Network


class Rpc:
    """One stream that a channel has made; it ends when a test says so."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.given_up = False

    def write(self, _batch: bytes, sent: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(sent)

    def give_up(self) -> None:
        self.given_up = True

    def end(self, code: grpc.StatusCode) -> None:
        self._listener.ended(Ending(code))


class Address:
    """A channel to a participant; keeps the streams that were opened and when."""

    def __init__(self) -> None:
        self.refuses: grpc.StatusCode | None = None
        self.streams: list[Rpc] = []
        self.opened: list[float] = []

    def stream(self, _path: str, listener: Listener) -> Rpc:
        rpc, loop = Rpc(listener), asyncio.get_running_loop()
        if self.refuses:
            loop.call_soon(rpc.end, self.refuses)
        else:
            loop.call_soon(listener.accepted)
        self.streams.append(rpc)
        self.opened.append(round(loop.time(), 3))
        return rpc


class Unsent:
    def __init__(self) -> None:
        self.attempts: list[Attempt] = []

    def __call__(self, attempt: Attempt, _answered: object) -> None:
        self.attempts.append(attempt)


@asynccontextmanager
async def streams_to(*addresses: Address | Channel, chance: float = 0.0) -> AsyncIterator[Streams]:
    streams = Streams(
        "payment",
        cast("list[Channel]", addresses),
        unsent=Unsent(),
        tracer=NoOpTracer(),
        chance=lambda: chance,
    )
    try:
        yield streams
    finally:
        await streams.close()


async def test_no_stream_is_opened_before_it_is_offered() -> None:
    address = Address()
    async with streams_to(address) as streams:
        await asyncio.sleep(100)
        assert address.streams == []
        assert streams.of(DO) is None
        streams.offered()
        await asyncio.sleep(0.001)
        assert streams.open == 1


async def test_a_participant_that_is_away_is_tried_less_and_less_often() -> None:
    address = Address()
    address.refuses = grpc.StatusCode.UNAVAILABLE
    async with streams_to(address) as streams:
        streams.offered()
        await asyncio.sleep(25)
        assert address.opened == [0, 0.2, 0.6, 1.4, 3.0, 6.2, 11.2, 16.2, 21.2]


@pytest.mark.parametrize(("chance", "second"), [(0.0, 0.2), (0.5, 0.15), (1.0, 0.1)])
async def test_chance_spreads_the_tries(chance: float, second: float) -> None:
    address = Address()
    address.refuses = grpc.StatusCode.UNAVAILABLE
    async with streams_to(address, chance=chance) as streams:
        streams.offered()
        await asyncio.sleep(1)
        assert address.opened[1] == second


async def test_a_stream_that_has_lived_for_long_is_opened_again_at_once() -> None:
    address = Address()
    async with streams_to(address) as streams:
        streams.offered()
        await asyncio.sleep(30)
        address.streams[0].end(grpc.StatusCode.UNAVAILABLE)
        await asyncio.sleep(0.001)
        assert address.opened == [0, 30]


async def test_a_participant_that_was_asked_anew_is_tried_at_once() -> None:
    address = Address()
    address.refuses = grpc.StatusCode.UNAVAILABLE
    async with streams_to(address) as streams:
        streams.offered()
        await asyncio.sleep(7)
        address.refuses = None
        streams.offered()
        await asyncio.sleep(0.001)
        assert streams.open == 1


async def test_one_that_refuses_the_stream_is_not_tried_until_it_was_asked_anew() -> None:
    address = Address()
    address.refuses = grpc.StatusCode.UNIMPLEMENTED
    async with streams_to(address) as streams:
        streams.offered()
        await asyncio.sleep(100)
        streams.offered()
        await asyncio.sleep(100)
        assert address.opened == [0, 100]


@pytest.mark.parametrize(("chance", "life"), [(0.0, 60), (0.5, 90)])
async def test_a_stream_is_replaced_after_its_life(chance: float, life: float) -> None:
    address = Address()
    async with streams_to(address, chance=chance) as streams:
        streams.offered()
        await asyncio.sleep(life + 1)
        assert address.opened == [0, life]
        assert [rpc.given_up for rpc in address.streams] == [True, False]


async def test_a_stream_that_is_replaced_awaits_what_is_in_flight() -> None:
    address, answers = Address(), list[Answer]()
    async with streams_to(address) as streams:
        streams.offered()
        await asyncio.sleep(58)
        stream = streams.of(DO)
        assert stream is not None
        stream.call(DO, answers.append)
        await asyncio.sleep(3)
        assert [rpc.given_up for rpc in address.streams] == [False, False]
        assert answers == []
        await asyncio.sleep(3)
        assert [rpc.given_up for rpc in address.streams] == [True, False]
        assert len(answers) == 1


async def test_a_stream_that_says_nothing_while_a_call_waits_is_replaced() -> None:
    address, answers = Address(), list[Answer]()
    async with streams_to(address) as streams:
        streams.offered()
        await asyncio.sleep(10)
        stream = streams.of(DO)
        assert stream is not None
        stream.call(DO, answers.append)
        await asyncio.sleep(6)
        assert len(answers) == 1
        assert address.opened == [0, 15]


async def test_calls_take_the_addresses_in_turn_and_leave_out_one_that_is_away() -> None:
    one, two = Address(), Address()
    async with streams_to(one, two) as streams:
        streams.offered()
        await asyncio.sleep(10)
        first, second, third = (streams.of(DO) for _ in range(3))
        assert first is third
        assert first is not second
        two.refuses = grpc.StatusCode.UNAVAILABLE
        two.streams[0].end(grpc.StatusCode.UNAVAILABLE)
        await asyncio.sleep(1)
        assert streams.open == 1
        assert streams.of(DO) is streams.of(DO)


async def test_a_participant_has_not_accepted_a_stream_of_which_it_has_not_heard() -> None:
    """Its silence means that it serves the stream from when it could have refused it."""
    network, channel = Network(), Channel("10.0.0.1:50051")
    host = network.host()
    host.greets = False
    async with streams_to(channel) as streams:
        streams.offered()
        await asyncio.sleep(1.5)
        assert streams.open == 0
        host.greet()
        await asyncio.sleep(0.5)
        assert streams.open == 0
        await asyncio.sleep(1)
        stream = streams.of(DO)
        assert stream is not None
        stream.call(DO, lambda _: None)
        await asyncio.sleep(0.1)
        assert b"charge_payment" in host.peers[0].heard_of(1)
    await channel.close()
