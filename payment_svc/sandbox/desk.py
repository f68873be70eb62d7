"""Where requests are served: keys in use, latency, faults, and the turns of the ledger.

A request waits for `latency_ms` before it has any effect, then it is answered in one transaction,
with all that have come meanwhile: a disk syncs for many as for one. Nobody is heard while it does,
which makes the next transaction larger, and is cheaper than a thread to hand requests to.
Its effect happens even when the client has gone away meanwhile. A fault that is used up by a
replayed request changes only how the answer travels, never the answer.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from payment_svc.sandbox.errors import Json, key_in_use, rate_limited
from payment_svc.sandbox.operations import Asked, Operations, Reply, Request
from payment_svc.sandbox.rules import Moment
from payment_svc.sandbox.switches import FaultKind, SwitchBoard


class Desk:
    """Serves requests one at a time, waiting ones meanwhile. `clock` gives seconds of the epoch."""

    def __init__(
        self, operations: Operations, board: SwitchBoard, clock: Callable[[], float]
    ) -> None:
        self.board = board
        self._operations = operations
        self._clock = clock
        self._seconds_ahead = 0
        self._in_progress: list[Request] = []
        self._waiting: list[tuple[Asked, asyncio.Future[Reply]]] = []

    async def serve(self, request: Request) -> Reply | None:
        """Answer one request; None where the connection is to be closed without an answer.

        Raises:
            ApiError: 429 by a switch, the key is in use, or belongs to another request.
        """
        with self._marked(request):
            fault = self.board.fault_for(request.parameters.operation)
            await asyncio.sleep(self.board.switches.latency_ms / 1000)
            if fault is FaultKind.RATE_LIMIT:
                raise rate_limited()
            if fault is FaultKind.DROP_BEFORE:
                return None
            reply = await self._reply(Asked(request, self._moment(), fault))
            return None if fault is FaultKind.DROP_AFTER else reply

    async def _reply(self, asked: Asked) -> Reply:
        """The answer, of a transaction with all who ask in this turn of the event loop."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Reply] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._answer_all)
        self._waiting.append((asked, answered))
        return await answered

    def _answer_all(self) -> None:
        taken, self._waiting = self._waiting, []
        replies: Sequence[Reply | Exception]
        try:
            replies = self._operations.replies([asked for asked, _ in taken])
        except sqlite3.Error as failed:
            replies = [failed] * len(taken)
        for (_, answered), reply in zip(taken, replies, strict=True):
            _settle(answered, reply)

    def books(self) -> list[Json]:
        """What was captured and refunded, per PaymentIntent, oldest first."""
        return self._operations.books(self._moment())

    def in_progress(self) -> list[Json]:
        """The requests that are being answered at this moment."""
        return [
            {"operation": each.parameters.operation, "target": each.target, "key": each.key}
            for each in self._in_progress
        ]

    def put_forward(self, seconds: int) -> int:
        """Put the clock forward; returns what it says now."""
        self._seconds_ahead += seconds
        return self._moment().now

    @contextmanager
    def _marked(self, request: Request) -> Iterator[None]:
        if request.key is not None and request.key in {each.key for each in self._in_progress}:
            raise key_in_use()
        self._in_progress.append(request)
        try:
            yield
        finally:
            self._in_progress.remove(request)

    def _moment(self) -> Moment:
        return Moment(
            now=int(self._clock()) + self._seconds_ahead,
            new_id=secrets.token_hex(12),
            settle_seconds=self.board.switches.settle_seconds,
        )


def _settle(answered: asyncio.Future[Reply], reply: Reply | Exception) -> None:
    if answered.cancelled():  # the client has gone
        return
    if isinstance(reply, Exception):
        answered.set_exception(reply)
    else:
        answered.set_result(reply)
