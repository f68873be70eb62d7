"""Calls to one target: an address, several, or a name that resolves to some.

Each address has one connection, and calls take those that are open in turn. A connection is made
when a call needs it: the first call waits for that, as do those that come meanwhile. When it cannot
be made they are answered UNAVAILABLE, and so is, at once, whoever calls within the pause that
follows: waiting is left to those who call, where everybody can see it. The pauses grow from a tenth
of a second to one. While some addresses have a connection the others are tried beside the calls.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from itertools import count
from typing import cast

import grpc
import ngh2

from mesh.rpc.calling import Address, Call, Calling, Ended, Outcome
from mesh.rpc.deadlines import Deadlines
from mesh.rpc.headers import CONTENT_TYPE, Ending, Field, timeout_field
from mesh.rpc.streaming import Listener, StreamCall
from mesh.telling import tell_all

MAX_RESPONSE_BYTES = 4 << 20

_CONNECT_SECONDS = 2.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 1.0
_RESOLVED_SECONDS = 30.0
"""How long it is believed what a name resolves to: instances come and go."""
_TRIES = 3
_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
_LATE = Ending(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
_CLOSED = Ending(grpc.StatusCode.CANCELLED, "the channel was closed")


class Channel:
    """A target to call. Made inside the event loop that it is used in."""

    def __init__(self, target: str, *, limit: int = MAX_RESPONSE_BYTES) -> None:
        """`target` is HOST:PORT, or ipv4:HOST:PORT,HOST:PORT.

        A response has `limit` bytes at most.
        """
        self.limit = limit
        self._target = target
        self._hosts = _hosts(target)
        self._loop = asyncio.get_running_loop()
        self._heads: dict[str, list[Field]] = {}
        self._keys = count(1)
        self._calls: dict[int, Call] = {}
        """Those without an outcome, by their keys."""
        self._waiting: dict[int, Call | StreamCall] = {}
        """Calls that wait for a connection."""
        self._deadlines = Deadlines(self._expired)
        self._concluded: list[tuple[Ended, Outcome]] = []
        self._links: list[Calling] = []
        """Connections that take calls."""
        self.connections: set[Calling] = set()
        """All that are not over: also those that are being made, and those that were left."""
        self._turn = 0
        self._connecting: asyncio.Task[None] | None = None
        self._complete = False
        """Whether every address has a connection, as far as is known."""
        self._doubting: asyncio.TimerHandle | None = None
        self._pause = self._again_at = 0.0
        self._why = Ending(_UNAVAILABLE, "not connected")
        self._closed = False

    def call(
        self, path: str, request: bytes, metadata: Sequence[Field], timeout_ms: int, ended: Ended
    ) -> None:
        """Call /package.Service/Method; `ended` hears the response, or how else it ended, once."""
        head = self._heads.get(path) or self._head(path)
        fields = [*head, timeout_field(timeout_ms), *metadata]
        call = Call(self, fields, request, ended, key=next(self._keys), length_ms=timeout_ms)
        self._calls[call.key] = call
        self._deadlines.add(call.key, timeout_ms)
        self._send(call)
        self.spread()

    def stream(self, path: str, listener: Listener) -> StreamCall:
        """Call /package.Service/Method with streams both ways; `listener` hears nothing yet."""
        head = self._heads.get(path) or self._head(path)
        call = StreamCall(self, head, listener, key=next(self._keys))
        self._loop.call_soon(self._send, call)
        return call

    async def close(self) -> None:
        """Hang up; calls without an outcome end CANCELLED."""
        self._closed, self._why = True, _CLOSED
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._doubting is not None:
            self._doubting.cancel()
        self._fail_waiting()
        for link in tuple(self.connections):
            for call in tuple(link.streams.values()):
                cast("Call | StreamCall", call).fail(_CLOSED)
            link.close()
        self._deadlines.clear()
        self.spread()

    def _head(self, path: str) -> list[Field]:
        head = self._heads[path] = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b":authority", self._hosts[0].encode()),
            (b"te", b"trailers"),
            (b"content-type", CONTENT_TYPE),
            (b"user-agent", b"saga-mesh"),
        ]
        return head

    # --- what becomes of a call -----------------------------------------------

    def _send(self, call: Call | StreamCall) -> None:
        if not self._complete:
            self._connect()
        while self._links:
            self._turn += 1
            link = self._links[self._turn % len(self._links)]
            try:
                call.begin(link)
            except ngh2.NGH2Error:  # it takes no further call
                link.leave()
            except TypeError as error:
                call.fail(Ending(grpc.StatusCode.INTERNAL, f"cannot be sent: {error}"))
                return
            else:
                return
        self._connect()
        if self._connecting is not None:
            self._waiting[call.key] = call
        else:
            call.fail(self._why)

    def again(self, call: Call | StreamCall) -> bool:
        """Send a call once more that the peer has not looked at; False when that was tried."""
        if call.tries >= _TRIES or self._closed:
            return False
        self._send(call)
        return True

    def conclude(self, call: Call, outcome: Outcome) -> None:
        """Let a call have this outcome, if it has none yet; `spread` tells it."""
        if call.key in self._calls:
            self._forget(call)
            self._concluded.append((call.ended, outcome))

    def _forget(self, call: Call) -> None:
        del self._calls[call.key]
        self._deadlines.discard(call.key, call.length_ms)
        self.forget(call)

    def forget(self, call: Call | StreamCall) -> None:
        """It needs no connection any more."""
        self._waiting.pop(call.key, None)

    def spread(self) -> None:
        """Let those hear whose calls were concluded."""
        if self._concluded:
            tell_all(self._loop, self._concluded)
            self._concluded = []

    def _expired(self, key: int) -> None:
        call = self._calls.pop(key)
        self.forget(call)
        call.give_up()
        self._concluded.append((call.ended, _LATE))
        self.spread()

    # --- connections ----------------------------------------------------------

    def leave(self, link: Calling) -> None:
        """Begin no further call on a connection."""
        if link in self._links:
            self._links.remove(link)
            self._complete = False

    def _connect(self) -> None:
        if self._connecting or self._closed or self._loop.time() < self._again_at:
            return
        self._connecting = self._loop.create_task(self._connect_all())

    async def _connect_all(self) -> None:
        """Connect to every address that has no connection."""
        failure: OSError | None = None
        try:
            addresses = await self._resolve()
            self._leave_all_but(addresses)
            missing = set(addresses) - self._there()
            failures = await asyncio.gather(*(self._open(a) for a in addresses if a in missing))
            failure = next(filter(None, failures), None)
        except OSError as error:
            failure = error
        finally:
            self._connecting = None
        self._connected(addresses) if failure is None else self._not_connected(failure)
        self.spread()

    def _there(self) -> set[Address]:
        return {link.address for link in self._links}

    async def _open(self, address: Address) -> OSError | None:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                _, link = await self._loop.create_connection(
                    lambda: Calling(self, address), *address
                )
                await link.greeting()
        except OSError as error:  # a time-out is one
            return error
        self._links.append(link)
        self._send_waiting()
        return None

    def _connected(self, addresses: Sequence[Address]) -> None:
        self._complete = self._there().issuperset(addresses)  # some may be lost again
        self._pause = 0.0
        if not all(map(_is_address, self._hosts)):
            self._believe()
        self._send_waiting()

    def _not_connected(self, failure: OSError) -> None:
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        self._again_at = self._loop.time() + self._pause
        words = failure.strerror or type(failure).__name__
        self._why = Ending(_UNAVAILABLE, f"cannot connect to {self._target}: {words}")
        self._fail_waiting()

    def _send_waiting(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for call in waiting.values():
            self._send(call)

    def _fail_waiting(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for call in waiting.values():
            call.fail(self._why)

    def _believe(self) -> None:
        """Look again some time what the name resolves to."""
        if self._doubting is not None:
            self._doubting.cancel()
        self._doubting = self._loop.call_later(_RESOLVED_SECONDS, self._doubt)

    def _doubt(self) -> None:
        self._complete = False

    def _leave_all_but(self, addresses: Sequence[Address]) -> None:
        for link in [link for link in self._links if link.address not in addresses]:
            link.leave()

    async def _resolve(self) -> list[Address]:
        found: list[Address] = []
        for host in self._hosts:
            name, _, port = host.rpartition(":")
            try:
                infos = await self._loop.getaddrinfo(
                    name.strip("[]"), int(port), type=socket.SOCK_STREAM
                )
            except UnicodeError as error:
                raise OSError(0, "it can be no name") from error
            found += [(str(info[4][0]), int(info[4][1])) for info in infos]
        return list(dict.fromkeys(found))


def _hosts(target: str) -> list[str]:
    """HOST:PORT, each of them."""
    scheme, colon, rest = target.partition(":")
    return rest.split(",") if colon and scheme in ("ipv4", "ipv6") else [target]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return True
