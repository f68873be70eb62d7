"""Pages of lists, alike in every service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from google.protobuf.message import Message

DEFAULT_SIZE = 50
MAX_SIZE = 500
MAX_BYTES = 2 << 20
"""A page ends early once it is this large: gRPC clients take 4 MiB."""

MessageT = TypeVar("MessageT", bound=Message)


def size(asked: int) -> int:
    """How many entries a page has at most, when `asked` is the request's `page_size`."""
    return min(asked or DEFAULT_SIZE, MAX_SIZE)


def fitting(entries: Sequence[MessageT]) -> Sequence[MessageT]:
    """As many of the first entries as a page may hold by its bytes; always one of them."""
    room = MAX_BYTES
    for count, entry in enumerate(entries):
        room -= entry.ByteSize()
        if room < 0 and count > 0:
            return entries[:count]
    return entries
