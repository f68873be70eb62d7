"""A server of `mesh.rpc` by itself, with methods that a test can hold and watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from mesh.rpc.method import Method
from mesh.rpc.served import Context
from mesh.rpc.server import RpcServer

LIMIT = 4 << 20


class Port:
    """Has /t/Unary, /t/Up for a stream of requests, /t/Down for one of responses, and /t/Both."""

    def __init__(self) -> None:
        self.server = RpcServer(self._find, limit=LIMIT)
        self.port = 0
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.requests: list[bytes] = []
        self.handled = 0
        """Calls whose handlers have begun."""
        self.methods: dict[str, Method] = {}
        for path, perform, up, down in (
            ("/t/Unary", self._unary, False, False),
            ("/t/Held", self._held, False, False),
            ("/t/Stubborn", self._stubborn, False, False),
            ("/t/Up", self._up, True, False),
            ("/t/Down", self._down, False, True),
            ("/t/Both", self._both, True, True),
        ):
            self.serve(path, perform, up=up, down=down)

    def serve(
        self,
        path: str,
        perform: Callable[[Any, Context], Awaitable[Any]],
        *,
        up: bool = False,
        down: bool = False,
    ) -> None:
        self.methods[path] = Method(
            perform=perform,
            request_streaming=up,
            response_streaming=down,
            parse=None,
            serialize=None,
        )

    def _find(self, path: str) -> Method | None:
        return self.methods.get(path)

    async def _unary(self, request: bytes, _: Context) -> bytes:
        self.handled += 1
        return b"re: " + request

    async def _held(self, request: bytes, context: Context) -> bytes:
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b"re: " + request

    async def _stubborn(self, request: bytes, _: Context) -> bytes:
        """Goes on although it is cancelled."""
        self.begun.set()
        while not self.go_on.is_set():
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
        return b"late: " + request

    async def _up(self, requests: AsyncIterator[bytes], _: Context) -> bytes:
        self.begun.set()
        try:
            async for request in requests:
                self.requests.append(request)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b"%d" % len(self.requests)

    async def _down(self, request: bytes, context: Context) -> None:
        count, size = map(int, request.split())
        for _ in range(count):
            await context.write(b"." * size)
            self.handled += 1

    async def _both(self, requests: AsyncIterator[bytes], context: Context) -> None:
        async for request in requests:
            await context.write(b"re: " + request)


@asynccontextmanager
async def serving() -> AsyncIterator[Port]:
    port = Port()
    port.port = await port.server.listen("127.0.0.1", 0)
    try:
        yield port
    finally:
        port.go_on.set()
        await port.server.stop(0)


async def fails_with(call: Any) -> tuple[grpc.StatusCode, str]:  # noqa: ANN401 - calls have no type
    return await call.code(), await call.details()
