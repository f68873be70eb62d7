from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from itertools import pairwise

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.rpc.messages import Inbound, Unreadable, framed

LIMIT = 64
Messages = st.lists(st.binary(max_size=LIMIT), max_size=6)
Cuts = st.lists(st.integers(0, 6 * (LIMIT + 5)), max_size=12)


def fed(inbound: Inbound, data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """What comes out when it arrives in pieces; some of them are empty."""
    places = [0, *sorted(cuts), len(data)]
    pieces = (data[start:end] for start, end in pairwise(places))
    return [message for piece in pieces for message in inbound.feed(piece)]


def zipped(message: bytes) -> bytes:
    packed = gzip.compress(message)
    return b"\x01" + len(packed).to_bytes(4, "big") + packed


def ending(inbound: Inbound, data: bytes) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(Unreadable) as raised:
        inbound.feed(data)
    return raised.value.ending.code, raised.value.ending.message


@given(Messages, Cuts)
def test_any_cutting_of_the_bytes_gives_the_same_messages(
    messages: list[bytes], cuts: list[int]
) -> None:
    inbound = Inbound(LIMIT)
    assert fed(inbound, b"".join(map(framed, messages)), cuts) == messages
    assert not inbound.partial


@given(Messages, Cuts)
def test_any_cutting_of_gzip_gives_the_same_messages(
    messages: list[bytes], cuts: list[int]
) -> None:
    sent = [zipped(m) if len(gzip.compress(m)) <= LIMIT else framed(m) for m in messages]
    assert fed(Inbound(LIMIT, unzips=True), b"".join(sent), cuts) == messages


@given(Messages, st.binary(min_size=1, max_size=LIMIT), st.integers(1, LIMIT + 4))
def test_what_is_no_whole_message_yet_is_partial(
    messages: list[bytes], last: bytes, missing: int
) -> None:
    inbound, begun = Inbound(LIMIT), framed(last)[: -min(missing, len(last) + 4)]
    assert fed(inbound, b"".join(map(framed, messages)) + begun, []) == messages
    assert inbound.partial
    assert list(inbound.feed(framed(last)[len(begun) :])) == [last]


def test_a_message_of_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    assert Inbound(LIMIT).feed(framed(b"." * LIMIT)) == [b"." * LIMIT]
    assert ending(Inbound(LIMIT), framed(b"." * (LIMIT + 1))) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "Received message larger than max (65 vs. 64)",
    )


def test_a_message_that_is_too_large_is_refused_by_its_prefix() -> None:
    assert ending(Inbound(LIMIT), b"\x00\xff\xff\xff\xff")[0] is (
        grpc.StatusCode.RESOURCE_EXHAUSTED
    )


def test_gzip_of_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    assert Inbound(LIMIT, unzips=True).feed(zipped(b"." * LIMIT)) == [b"." * LIMIT]
    code, _ = ending(Inbound(LIMIT, unzips=True), zipped(b"." * (LIMIT + 1)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_gzip_bomb_is_unpacked_no_further_than_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unpacked: list[int] = []

    class Spy:
        def __init__(self, window: int) -> None:
            self._real = zlib.decompressobj(window)
            self.eof, self.unused_data = False, b""

        def decompress(self, data: bytes, most: int) -> bytes:
            plain = self._real.decompress(data, most)
            unpacked.append(len(plain))
            return plain

    bomb, limit = zipped(bytes(10 << 20)), 1 << 16
    monkeypatch.setattr("mesh.rpc.messages.zlib", _Zlib(Spy))
    code, _ = ending(Inbound(limit, unzips=True), bomb)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert unpacked == [limit + 1]


class _Zlib:
    error = zlib.error

    def __init__(self, decompressobj: object) -> None:
        self.decompressobj = decompressobj


@pytest.mark.parametrize(
    "packed",
    [
        b"no gzip",
        gzip.compress(b"half of it" * 3)[:-1],
        gzip.compress(b"half of it" * 3)[:-12],
        gzip.compress(b"two") + gzip.compress(b"of them"),
        gzip.compress(b"and more") + b"more",
        b"",
    ],
    ids=["something else", "without its last byte", "half", "two", "and more", "nothing"],
)
def test_what_is_no_whole_gzip_is_no_message(packed: bytes) -> None:
    sent = b"\x01" + len(packed).to_bytes(4, "big") + packed
    assert ending(Inbound(LIMIT, unzips=True), sent)[0] is grpc.StatusCode.INTERNAL


def test_gzip_that_was_not_announced_is_no_message() -> None:
    code, words = ending(Inbound(LIMIT), zipped(b"message"))
    assert (code, words) == (
        grpc.StatusCode.INTERNAL,
        "compressed, and grpc-encoding is not set",
    )
