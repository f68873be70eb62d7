"""What is asked of a saga's owner through the inbox, and what comes of it; see `base.py`."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class VerbKind(Enum):
    """What an operator or a client may ask of a saga's owner."""

    CANCEL = "CANCEL"
    RETRY = "RETRY"
    SKIP = "SKIP"
    ABANDON = "ABANDON"


class Verb(Struct, frozen=True, kw_only=True, gc=False):
    """One request to a saga's owner."""

    request_id: str
    """Idempotency key; the same id with other content is refused by `post_verb`."""
    saga_id: str
    kind: VerbKind
    step: str = ""
    """Only for SKIP."""
    actor: str = ""
    reason: str = ""
    revision: int = 0
    """Only legal while this is the saga's revision; 0 for any."""


class VerbState(Enum):
    """Where a verb is."""

    PENDING = "PENDING"
    ACCEPTED = "ACCEPTED"
    REFUSED = "REFUSED"


class VerbOutcome(Struct, frozen=True, gc=False):
    """What came of a verb."""

    state: VerbState
    explanation: str = ""
    """Why it was refused; empty otherwise."""
    revision: int = 0
    """The revision that the verb was bound to; 0 for any."""


class VerbIdReused(Exception):
    """The request id belongs to another verb."""


class UnknownSaga(Exception):
    """There is no saga that the verb could be for."""
