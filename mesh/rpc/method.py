"""How a method is served, and what its handler may raise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from mesh.rpc.headers import Ending

if TYPE_CHECKING:
    from mesh.rpc.served import Context


class Method(Struct, frozen=True, kw_only=True):
    """How one method is served. Messages are bytes where nothing is said of parsing them."""

    perform: Callable[[Any, Context], Awaitable[Any]]
    """Given the request, or an iterator of requests, returns the response; where responses are
    streamed it writes them to the context instead."""
    request_streaming: bool
    response_streaming: bool
    parse: Callable[[bytes], Any] | None
    serialize: Callable[[Any], bytes] | None


class Ended(Exception):
    """Ends the call that is served, as it says."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.message)
        self.ending = ending


class StreamOver(Exception):
    """The client does not hear any more: it has gone, or has given up the call."""
