"""What any store can hold, and which questions it can be asked. The fake keeps the same limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coordinator.journal.base import InvalidQuery

MAX_TIME_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, where Python's calendar ends."""
MAX_LIMIT = 10_000
"""Longest page, and longest batch of a claim."""
MAX_REVISION = 2**31 - 1


def storable_text(*texts: str) -> bool:
    """Whether PostgreSQL can hold these texts as they are: no NUL, no half of a surrogate pair."""
    text = "".join(texts)
    return "\0" not in text and (text.isascii() or text == text.encode(errors="replace").decode())


def storable_time(time_ms: int) -> bool:
    """Whether a time is one that both PostgreSQL and Python can tell."""
    return 0 <= time_ms <= MAX_TIME_MS


def check_texts(*texts: str) -> None:
    """Refuse ids, names and keys that no row can have.

    Raises:
        InvalidQuery: one of them cannot be stored.
    """
    if not storable_text(*texts):
        raise InvalidQuery("a text contains NUL or half of a surrogate pair")


def check_saga_ids(saga_ids: Sequence[str]) -> None:
    """Refuse more ids than a question may have, and ids that no row can have.

    Raises:
        InvalidQuery: says what is wrong.
    """
    check_texts(*saga_ids)
    if len(saga_ids) > MAX_LIMIT:
        raise InvalidQuery(f"a question is about {MAX_LIMIT} sagas at most, not {len(saga_ids)}")


def check_page(limit: int, *, after_revision: int = 0, before_ms: int = 0) -> None:
    """Refuse a page of no size, or at a position that no row can have.

    Raises:
        InvalidQuery: says what is wrong.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidQuery(f"a page has 1 to {MAX_LIMIT} rows, not {limit}")
    if not 0 <= after_revision <= MAX_REVISION:
        raise InvalidQuery(f"there is no revision {after_revision}")
    if not storable_time(before_ms):
        raise InvalidQuery(f"there is no time {before_ms}")


def check_saga_page(
    definition: str, keys: Mapping[str, str], before: tuple[int, str] | None, limit: int
) -> None:
    """Refuse a list of sagas that cannot be.

    Raises:
        InvalidQuery: says what is wrong.
    """
    before_ms, before_id = before or (0, "")
    check_texts(definition, before_id, *keys, *keys.values())
    check_page(limit, before_ms=before_ms)
