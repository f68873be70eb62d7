"""A network inside one event loop: hosts that answer, refuse or say nothing, and peers that do what
a test tells them.

What is sent arrives in the loop's next turn, so on virtual time a whole day of a connection passes
in a moment, in the same order each time.
"""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import ngh2
from msgspec import Struct
from typing_extensions import override

Address = tuple[str, int]
Header = tuple[bytes, bytes]

HERE = ("10.0.0.1", 50051)
OK_FIELDS = ((b":status", b"200"), (b"content-type", b"application/grpc"))
OK_TRAILERS = ((b"grpc-status", b"0"),)


def message(content: bytes) -> bytes:
    """As gRPC puts it on the wire."""
    return b"\0" + len(content).to_bytes(4, "big") + content


class Request(Struct):
    """What a peer has heard of a call."""

    stream_id: int
    fields: Sequence[Header]
    body: bytes = b""


class Wire(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self.protocol = protocol
        self.far_end: Wire | None = None
        self.lost = False

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert self.far_end is not None
        self._loop.call_soon(self.far_end.arrive, bytes(data))

    def arrive(self, data: bytes) -> None:
        if not self.lost:
            self.protocol.data_received(data)

    @override
    def close(self) -> None:
        assert self.far_end is not None
        for end in (self, self.far_end):
            self._loop.call_soon(end.lose)

    @override
    def abort(self) -> None:
        self.close()

    def lose(self) -> None:
        if not self.lost:
            self.lost = True
            self.protocol.connection_lost(None)

    @override
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class Peer(asyncio.Protocol):
    """The far end of one connection; says nothing but what it is told to."""

    def __init__(self, host: Host) -> None:
        self.h2 = ngh2.Connection(ngh2.Role.SERVER, ngh2.Configuration(auto_window_update=False))
        self.gone = asyncio.Event()
        """The connection is over."""
        self.resets: list[tuple[int, int]] = []
        """Stream ids and error codes of what the client has given up."""
        self.pings = 0
        self.deaf = False
        """It is there, and nothing that is said to it is heard any more."""
        self.unheard = b""
        """What was said to it before it has greeted."""
        self._reads = host.reads
        self._host = host
        self._wire: Wire | None = None
        self._open: dict[int, Request] = {}

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast("Wire", transport)
        self._host.peers.append(self)
        if self._host.greets:
            self.h2.initiate_connection(self._host.settings)
            (self._host.on_greeting or Peer.say)(self)
            self.say()
        if self._host.first_words:
            self._wire.write(self._host.first_words)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()

    @override
    def data_received(self, data: bytes) -> None:
        if self.deaf:
            return
        if not self._host.greets:
            self.unheard += data
            return
        self.h2.receive_data(data)
        for event in self.h2.events():
            self._hear(event)
        self.say()

    def _hear(self, event: ngh2.Event) -> None:
        match event:
            case ngh2.RequestReceived(stream_id, fields):
                self._open[stream_id] = Request(stream_id, fields)
                self._host.begun.put_nowait(self._open[stream_id])
            case ngh2.DataReceived(stream_id, data):
                self._open[stream_id].body += data
                if self._reads:
                    self.h2.acknowledge_received_data(len(data), stream_id)
            case ngh2.StreamReset(stream_id, error_code):
                self.resets.append((stream_id, error_code))
            case ngh2.PingReceived():
                self.pings += 1
        if getattr(event, "end_stream", False):
            request = self._open.pop(getattr(event, "stream_id", 0))
            self._host.complete.put_nowait((self, request))
            if self._host.serves is not None:
                self._host.serves(self, request)

    def heard_of(self, stream_id: int) -> bytes:
        """The body so far of a call that has not ended."""
        return self._open[stream_id].body

    def read_all(self) -> None:
        """Let the windows open for what was heard, and for what comes."""
        self._reads = True
        for stream_id, request in self._open.items():
            self.h2.acknowledge_received_data(len(request.body), stream_id)
        self.say()

    # --- what it says ---------------------------------------------------------

    def say(self) -> None:
        """Send what was told to `h2`."""
        assert self._wire is not None
        if data := self.h2.data_to_send():
            self._wire.write(data)

    def say_bytes(self, data: bytes) -> None:
        """Send these bytes, whatever they are."""
        assert self._wire is not None
        self._wire.write(data)

    def answer(self, stream_id: int, content: bytes = b"answer") -> None:
        """The response to a call, as it should be."""
        self.begin(stream_id, message(content))
        self.end(stream_id)

    def begin(
        self, stream_id: int, body: bytes = b"", fields: Iterable[Header] = OK_FIELDS
    ) -> None:
        """Headers, and a part of the body."""
        self.h2.send_response(stream_id, fields)
        self.h2.send_data(stream_id, body)
        self.say()

    def end(self, stream_id: int, trailers: Iterable[Header] = OK_TRAILERS) -> None:
        """Trailers; without any, the end of the body."""
        if fields := tuple(trailers):
            self.h2.send_trailers(stream_id, fields)
        else:
            self.h2.end_stream(stream_id)
        self.say()

    def only(self, stream_id: int, fields: Iterable[Header]) -> None:
        """An answer of header fields alone."""
        self.h2.send_response(stream_id, tuple(fields), end_stream=True)
        self.say()

    def reset(self, stream_id: int, error_code: int) -> None:
        self.h2.reset_stream(stream_id, error_code)
        self.say()

    def go_away(self, last_stream_id: int) -> None:
        """It takes no calls after this one."""
        self.h2.send_goaway(last_stream_id=last_stream_id)
        self.say()

    def hang_up(self) -> None:
        assert self._wire is not None
        self.say()
        self._wire.close()


def echo(peer: Peer, request: Request) -> None:
    """Answer a call with what it has sent."""
    peer.answer(request.stream_id, request.body[5:])


class Host:
    """Something at an address that takes connections."""

    def __init__(self) -> None:
        self.settings: Mapping[int, int] = {}
        self.greets = True
        self.reads = True
        """Whether the windows of its connections open again for what they have let in."""
        self.on_greeting: Callable[[Peer], None] | None = None
        self.first_words = b""
        """What it says of its own accord."""
        self.serves: Callable[[Peer, Request], None] | None = None
        self.peers: list[Peer] = []
        """One for each connection, in order."""
        self.begun: asyncio.Queue[Request] = asyncio.Queue()
        self.complete: asyncio.Queue[tuple[Peer, Request]] = asyncio.Queue()

    def greet(self) -> None:
        """Let the first connection hear what all others hear at once."""
        self.greets = True
        self.peers[0].h2.initiate_connection(self.settings)
        self.peers[0].data_received(self.peers[0].unheard)

    async def called(self) -> tuple[Peer, int]:
        """The connection and the stream of the next call that has arrived as a whole."""
        peer, request = await self.complete.get()
        return peer, request.stream_id


class Network:
    """Where connections lead to. What has no host refuses them."""

    def __init__(self) -> None:
        loop: Any = asyncio.get_running_loop()
        loop.create_connection, loop.getaddrinfo = self._connect, self._resolve
        self.hosts: dict[Address, Host] = {}
        self.black_holes: set[Address] = set()
        """Connections to these are neither made nor refused."""
        self.names: dict[str, list[str] | BaseException] = {}
        self.tries: dict[Address, list[float]] = defaultdict(list)
        """When it was tried to connect."""

    def host(self, address: Address = HERE) -> Host:
        self.hosts[address] = host = Host()
        return host

    async def _connect(
        self, factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> tuple[Wire, asyncio.Protocol]:
        self.tries[host, port].append(round(asyncio.get_running_loop().time(), 3))
        if (host, port) in self.black_holes:
            await asyncio.get_running_loop().create_future()
        if (host, port) not in self.hosts:
            raise ConnectionRefusedError(111, "Connection refused")
        near, far = Wire(factory()), Wire(Peer(self.hosts[host, port]))
        near.far_end, far.far_end = far, near
        near.protocol.connection_made(near)
        far.protocol.connection_made(far)
        await asyncio.sleep(0)
        return near, near.protocol

    async def _resolve(self, host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        found = self.names.get(host, [host])
        if isinstance(found, BaseException):
            raise found
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (it, port)) for it in found]
