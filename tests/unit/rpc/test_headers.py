from __future__ import annotations

import string
from base64 import b64encode
from contextlib import suppress

import grpc
import ngh2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.rpc.headers import (
    Ending,
    ending_of,
    fields_of,
    metadata_of,
    seconds_of,
    timeout_field,
    trailers_of,
)

NAMES = st.text(string.ascii_lowercase + string.digits + "-_.", min_size=1).map("x".__add__)
TEXT = st.text([chr(code) for code in range(0x20, 0x7F)]).map(str.strip)
METADATA = st.lists(
    st.one_of(
        st.tuples(NAMES.filter(lambda name: not name.endswith("-bin")), TEXT),
        st.tuples(NAMES.map(lambda name: name + "-bin"), st.binary()),
    )
).map(tuple)
CODES = st.sampled_from(list(grpc.StatusCode))


@given(METADATA)
def test_metadata_comes_as_it_was_sent(metadata: tuple[tuple[str, str | bytes], ...]) -> None:
    assert metadata_of(fields_of(metadata)) == metadata


@given(CODES, st.text(), METADATA)
def test_an_ending_comes_as_it_was_sent(
    code: grpc.StatusCode, message: str, metadata: tuple[tuple[str, str | bytes], ...]
) -> None:
    message = message.encode(errors="replace").decode()
    ending = Ending(code, message, metadata)
    assert ending_of(trailers_of(ending)) == ending


@given(st.text())
def test_the_words_of_an_ending_are_a_field_that_http2_permits(message: str) -> None:
    server, client = ngh2.Connection(ngh2.Role.SERVER), ngh2.Connection(ngh2.Role.CLIENT)
    server.initiate_connection()
    client.initiate_connection()
    request = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"a"),
    )
    stream_id = client.send_request(request, end_stream=True)
    server.receive_data(client.data_to_send())
    trailers = trailers_of(Ending(grpc.StatusCode.UNKNOWN, message))
    server.send_response(stream_id, [(b":status", b"200"), *trailers], end_stream=True)
    client.receive_data(server.data_to_send())
    (answer,) = (e for e in client.events() if isinstance(e, ngh2.ResponseReceived))
    assert ending_of(answer.headers).message == message.encode(errors="replace").decode()


@given(st.integers(-5, 99_999_999_999))
def test_a_time_limit_comes_to_the_millisecond_or_a_second_less(milliseconds: int) -> None:
    name, value = timeout_field(milliseconds)
    exact = max(milliseconds, 0) / 1_000
    lost = exact - seconds_of(value)
    assert (name, len(value) <= 9) == (b"grpc-timeout", True)
    assert lost == pytest.approx(0, abs=1e-6) if milliseconds < 10**8 else 0 <= lost < 1


@pytest.mark.parametrize(
    ("field", "seconds"),
    [(b"2H", 7_200), (b"3M", 180), (b"4S", 4), (b"5m", 0.005), (b"6u", 6e-6), (b"7n", 7e-9)],
)
def test_each_unit_is_read(field: bytes, seconds: float) -> None:
    assert seconds_of(field) == pytest.approx(seconds)


@given(st.binary(max_size=12))
@pytest.mark.parametrize(
    "field", [b"", b"S", b"1", b"-1S", b"+1S", b"1.5S", b"1s", b"1 S", b"123456789S", b"\xb2S"]
)
def test_what_is_no_time_limit_is_a_value_error_and_nothing_else(
    field: bytes, anything: bytes
) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - that is all that is promised
        seconds_of(field)
    with suppress(ValueError):
        assert seconds_of(anything) >= 0


@given(st.lists(st.tuples(st.binary(min_size=1), st.binary())))
def test_fields_of_any_kind_are_read_without_an_error(fields: list[tuple[bytes, bytes]]) -> None:
    metadata_of([*fields, *((name + b"-bin", value) for name, value in fields)])
    ending_of(fields)
    ending_of([(b"grpc-status", value) for _, value in fields])


def test_values_that_were_joined_by_commas_are_several() -> None:
    joined = b64encode(b"\x01").rstrip(b"=") + b"," + b64encode(b"\x02")
    assert metadata_of([(b"a-bin", joined)]) == (("a-bin", b"\x01"), ("a-bin", b"\x02"))


@pytest.mark.parametrize("value", [b"!!!!", b"A", b"AA=A", b"\xff"])
def test_what_is_no_base64_is_left_out(value: bytes) -> None:
    assert metadata_of([(b"a-bin", value), (b"b", b"c")]) == (("b", "c"),)


def test_a_status_without_end_is_unknown() -> None:
    assert ending_of([(b"grpc-status", b"9" * 10_000)]).code is grpc.StatusCode.UNKNOWN
