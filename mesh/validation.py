"""What services check alike in a request. Pure; violations never repeat what was sent.

refuse_if_any([*text_violations("customer_id", request.customer_id), ...])
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from mesh.errors import FieldViolation, InvalidRequest, Rejected

MAX_TEXT = 128
MAX_VIOLATIONS = 20
"""As many as fit the details of an answer."""

_TOKEN = re.compile(r"pm_[A-Za-z0-9_]+")
_CARD_NUMBER = re.compile(r"[0-9](_?[0-9]){11}")
"""Twelve digits in a row, grouped or not: the shortest card number. Tokens are never like this."""


def text_violations(field: str, text: str) -> Iterator[FieldViolation]:
    """What is wrong with a name or an id that somebody else made."""
    if not 1 <= len(text) <= MAX_TEXT or not text.isprintable():
        yield FieldViolation(field, f"must have 1 to {MAX_TEXT} printable characters")


def card_token_violations(field: str, token: str) -> Iterator[FieldViolation]:
    """What is wrong with the provider's name of a card; a card number must get no further."""
    if len(token) > MAX_TEXT or not _TOKEN.fullmatch(token) or _CARD_NUMBER.search(token):
        yield FieldViolation(
            field,
            f"must match {_TOKEN.pattern} in at most {MAX_TEXT} characters:"
            " a token, never a card number",
        )


def refuse_if_any(violations: Iterable[FieldViolation]) -> None:
    """Refuse a request with everything that is wrong with it.

    Raises:
        InvalidRequest: there is at least one violation; many are cut short.
    """
    if found := _cut_short(violations):
        raise InvalidRequest(found)


def reject_if_any(reason: str, violations: Iterable[FieldViolation]) -> None:
    """Reject a step for good with everything that is wrong with its request.

    Raises:
        Rejected: there is at least one violation; many are cut short.
    """
    if found := _cut_short(violations):
        raise Rejected.for_fields(reason, found)


def _cut_short(violations: Iterable[FieldViolation]) -> list[FieldViolation]:
    found = list(violations)
    if len(found) > MAX_VIOLATIONS:
        hidden = len(found) - MAX_VIOLATIONS
        found[MAX_VIOLATIONS:] = [FieldViolation("", f"and {hidden} more violations")]
    return found
