"""Messages on a stream: each has one byte that says whether it is compressed, and its length.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import grpc

from mesh.rpc.headers import Ending

_PREFIX = struct.Struct(">BI")
_GZIP = 31
"""zlib's word for the format of gzip with the largest window."""


class Unreadable(Exception):
    """What arrives cannot be read any further; says how the call ends therefore."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.ending = Ending(code, message)


def framed(message: bytes) -> bytes:
    """A message as it is sent."""
    return _PREFIX.pack(0, len(message)) + message


class Inbound:
    """Cuts the bytes of one direction of a stream into messages of `limit` bytes at most."""

    __slots__ = ("_buffer", "_limit", "_needed", "_unzips")

    def __init__(self, limit: int, *, unzips: bool = False) -> None:
        """`unzips` says whether the sender announced gzip."""
        self._limit = limit
        self._unzips = unzips
        self._buffer = bytearray()
        self._needed = 0
        """So many bytes must be there before looking again is of use."""

    @property
    def partial(self) -> int:
        """Bytes that are here of a message of which a part is missing."""
        return len(self._buffer)

    def forget(self) -> None:
        """Let go of what is here of a message."""
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Sequence[bytes]:
        """The messages that are complete by now.

        Raises:
            Unreadable: RESOURCE_EXHAUSTED for one that is too large, INTERNAL for what is none.
        """
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return ()
            data, self._buffer = bytes(self._buffer), bytearray()
        messages, start = [], 0
        while (message := self._message(data, start)) is not None:
            messages.append(message)
            start += self._needed
        if start < len(data):
            self._buffer += data[start:]
        return messages

    def _message(self, data: bytes, start: int) -> bytes | None:
        """The message that begins there; `_needed` is what it takes, with its prefix."""
        self._needed = _PREFIX.size
        if len(data) - start < self._needed:
            return None
        zipped, size = _PREFIX.unpack_from(data, start)
        self._check(size)
        self._needed += size
        if len(data) - start < self._needed:
            return None
        message = data[start + _PREFIX.size : start + self._needed]
        return self._unzipped(message) if zipped else message

    def _check(self, size: int) -> None:
        if size > self._limit:
            words = f"Received message larger than max ({size} vs. {self._limit})"
            raise Unreadable(grpc.StatusCode.RESOURCE_EXHAUSTED, words)

    def _unzipped(self, message: bytes) -> bytes:
        if not self._unzips:
            raise Unreadable(grpc.StatusCode.INTERNAL, "compressed, and grpc-encoding is not set")
        unzip = zlib.decompressobj(_GZIP)
        try:
            plain = unzip.decompress(message, self._limit + 1)
        except zlib.error:
            raise Unreadable(grpc.StatusCode.INTERNAL, "the message is no gzip") from None
        self._check(len(plain))
        if not unzip.eof or unzip.unused_data:
            raise Unreadable(grpc.StatusCode.INTERNAL, "the message is no whole gzip")
        return plain
