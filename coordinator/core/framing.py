"""Protobuf by hand, where a message is made of parts that are bytes already.

A part is its tag, the number of its bytes, seven bits at a time, and its bytes:
https://protobuf.dev/programming-guides/encoding/#length-types
"""

from __future__ import annotations


def framed(tag: bytes, content: bytes) -> bytes:
    """Return a field of bytes, text or a message; `tag` is its number times eight, plus two."""
    size = len(content)
    while size > 0x7F:
        tag += b"%c" % (size & 0x7F | 0x80)
        size >>= 7
    return b"%b%c%b" % (tag, size, content)
