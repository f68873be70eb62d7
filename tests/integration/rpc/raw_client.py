"""A client that speaks HTTP/2 by hand, and so may do what no gRPC client does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import ngh2

from mesh.rpc.messages import framed
from tests.integration.rpc.served_port import Port

Header = tuple[bytes, bytes]
SettingsInput = dict[ngh2.Setting, int]
_CONFIGURATION = ngh2.Configuration(
    auto_window_update=False,
    peer_max_concurrent_streams=1 << 20,
    max_send_header_block_length=1 << 30,
)
_ROOM = (1 << 31) - 1


def request(path: str, *more: Header, method: bytes = b"POST") -> list[Header]:
    return [
        (b":method", method),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"test"),
        (b"content-type", b"application/grpc"),
        *more,
    ]


class RawClient:
    """Everything that the server says is in `events`."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.h2 = ngh2.Connection(ngh2.Role.CLIENT, _CONFIGURATION)
        self.events: list[ngh2.Event] = []
        self._loop = asyncio.get_running_loop()

    def call(
        self, path: str, message: bytes | None = None, *more: Header, ends: bool = True
    ) -> int:
        """Begins a call; its bytes leave with `send`."""
        stream_id = self.h2.send_request(request(path, *more))
        if message is not None or ends:
            body = b"" if message is None else framed(message)
            self.h2.send_data(stream_id, body, end_stream=ends)
        return stream_id

    async def send(self, more: bytes = b"") -> None:
        """Say all that is to be said, and `more`."""
        await self._loop.sock_sendall(self.socket, self.h2.data_to_send() + more)

    async def send_together(self, before: bytes) -> None:
        """Send in one write, so that the server reads it at once."""
        await self._loop.sock_sendall(self.socket, before + self.h2.data_to_send())

    async def hear(self, enough: Callable[[], object]) -> None:
        """Read until it is so, or until the server has hung up."""
        while not enough():
            try:
                data = await self._loop.sock_recv(self.socket, 1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                self.events.append(ngh2.ConnectionClosed(0, b"hung up"))
                return
            self.h2.receive_data(data)
            self.events += self.h2.events()

    def more_than(self, seen: int) -> bool:
        """Whether there are more events than were seen."""
        return len(self.events) > seen

    async def closed(self, *stream_ids: int) -> None:
        """Send, and read until these streams are closed."""
        await self.send()
        await self.hear(lambda: set(stream_ids) <= set(self.ends()))

    async def hung_up(self) -> bool:
        await self.hear(lambda: False)
        return isinstance(self.events[-1], ngh2.ConnectionClosed)

    def ends(self) -> dict[int, int]:
        """The streams that are closed, and with which code."""
        events = (event for event in self.events if isinstance(event, ngh2.StreamClosed))
        return {event.stream_id: event.error_code for event in events}

    def status(self, stream_id: int) -> tuple[bytes | None, bytes]:
        """Of HTTP and of gRPC."""
        fields = [
            field
            for event in self.events
            if isinstance(event, ngh2.ResponseReceived | ngh2.TrailersReceived)
            and event.stream_id == stream_id
            for field in event.headers
        ]
        return dict(fields).get(b"grpc-status"), dict(fields).get(b":status", b"")

    def body(self, stream_id: int) -> bytes:
        data = (event for event in self.events if isinstance(event, ngh2.DataReceived))
        return b"".join(event.data for event in data if event.stream_id == stream_id)


@asynccontextmanager
async def raw_client(port: Port, settings: SettingsInput | None = None) -> AsyncIterator[RawClient]:
    """A client that has said its name, and has heard the server's."""
    async with plain_socket(port) as connection:
        client = RawClient(connection)
        client.h2.initiate_connection(settings or {ngh2.Setting.INITIAL_WINDOW_SIZE: _ROOM})
        client.h2.set_local_window_size(_ROOM)
        await client.send()
        settled = (ngh2.SettingsReceived, ngh2.SettingsAcknowledged)
        await client.hear(lambda: {type(event) for event in client.events} >= set(settled))
        await client.send()
        yield client


@asynccontextmanager
async def plain_socket(port: Port) -> AsyncIterator[socket.socket]:
    with socket.socket() as connection:
        connection.setblocking(False)  # noqa: FBT003 - the name says it
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port.port))
        yield connection
