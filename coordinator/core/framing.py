"""Protobuf by hand, where a message is made of parts that are bytes already.

A part is its tag, the number of its bytes, seven bits at a time, and its bytes:
https://protobuf.dev/programming-guides/encoding/#length-types
"""

from __future__ import annotations

from functools import lru_cache


def framed(tag: bytes, content: bytes) -> bytes:
    """Return a field of bytes, text or a message; `tag` is its number times eight, plus two."""
    return tag + _varint(len(content)) + content


@lru_cache(maxsize=4_096)
def _varint(number: int) -> bytes:
    """What takes few values takes each of them often."""
    groups = []
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])
