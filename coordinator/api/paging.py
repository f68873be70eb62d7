"""Pages of lists. A token is a place in one list, made opaque.

It holds a digest of the request that it came from, pages aside, so that a token of another list, or
of the same list with other filters, is unknown instead of leading somewhere else.
"""

from __future__ import annotations

import base64
import copy
import re
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import TypeAlias, TypeVar

from google.protobuf.message import Message

from mesh import paging
from mesh.errors import FieldViolation
from protos.saga.v1 import saga_pb2 as pb

SAGA_PLACE = re.compile(r"([0-9]{1,14})/([A-Za-z0-9][A-Za-z0-9_-]{0,63})")
"""When a saga was created, in milliseconds, and its id."""
EVENT_PLACE = re.compile(r"([0-9]{1,9})")
"""A revision."""
NAME_PLACE = re.compile(r"([a-z][a-z0-9-]{0,62})")
"""The name of a definition."""

MessageT = TypeVar("MessageT", bound=Message)
ListRequest: TypeAlias = pb.ListSagasRequest | pb.ListSagaEventsRequest | pb.ListDefinitionsRequest


def size(request: ListRequest) -> int:
    """How many entries the page has at most."""
    return paging.size(request.page_size)


def page(
    request: ListRequest, entries: Sequence[MessageT], place_of: Callable[[MessageT], str]
) -> tuple[Sequence[MessageT], str]:
    """The entries that fit into one page, and the token of the next page, empty at the end.

    `entries` holds more than `size` when there is a next page.
    """
    fitting = paging.fitting(entries[: size(request)])
    more = len(fitting) < len(entries)
    return fitting, _make_token(request, place_of(fitting[-1])) if more else ""


def _make_token(request: ListRequest, place: str) -> str:
    return base64.urlsafe_b64encode(f"{_digest(request)}:{place}".encode()).decode()


def read_token(request: ListRequest, pattern: re.Pattern[str]) -> tuple[str, ...] | None:
    """The place that the page begins after, in the parts of its pattern; None for the first page.

    Raises:
        ValueError: no token of this list.
    """
    if not request.page_token:
        return None
    token = base64.b64decode(request.page_token, b"-_", validate=True).decode()
    digest, _, place = token.partition(":")
    found = pattern.fullmatch(place)
    if digest != _digest(request) or found is None:
        raise ValueError("a token of another list")
    return found.groups()


def page_violations(request: ListRequest, pattern: re.Pattern[str]) -> Iterator[FieldViolation]:
    """What is wrong with the page that is asked for."""
    if request.page_size < 0:
        yield FieldViolation("page_size", f"must be 0 to {paging.MAX_SIZE}")
    try:
        read_token(request, pattern)
    except ValueError:
        yield FieldViolation(
            "page_token", "must be the next_page_token of a response to the same request"
        )


def _digest(request: ListRequest) -> str:
    question = copy.deepcopy(request)
    question.ClearField("page_size")
    question.ClearField("page_token")
    asked = question.SerializeToString(deterministic=True)
    return sha256(question.DESCRIPTOR.full_name.encode() + asked).hexdigest()[:16]
