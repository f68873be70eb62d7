"""Which effects of sagas a participant holds, from its barrier's records: the port.

Contract, for every barrier (`tests/contract/test_effects.py` holds each to it):

- A record is an `Effect`, in whatever state; a key without a record is left out.
- `page` walks over all records in an order of the store's own that does not change: each record
  that is there from the first page to the last is in exactly one of them.
- A page costs the same wherever in the walk it is, however many records there are.
- No payload is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol


class EffectState(StrEnum):
    """Where one step of one saga is, seen from its participant."""

    DOING = "DOING"
    """The effect may have begun."""
    HELD = "HELD"
    REJECTED = "REJECTED"
    COMPENSATING = "COMPENSATING"
    COMPENSATED = "COMPENSATED"
    """The effect is gone, or was refused in advance."""


class EffectKey(NamedTuple):
    """Which step of which saga."""

    saga_id: str
    step: str


@dataclass(frozen=True, slots=True)
class Effect:
    """A participant's record of one step of one saga."""

    key: EffectKey
    state: EffectState
    updated_ms: int
    """When the record changed last, in milliseconds since the epoch."""


class Effects(Protocol):
    """The records of one barrier. Both raise `mesh.errors.Retry` while its store is away."""

    async def page(self, after: EffectKey | None, limit: int) -> Sequence[Effect]:
        """The next `limit` records after this key, or the first; fewer only at the end."""
        ...

    async def of_saga(self, saga_id: str) -> Sequence[Effect]:
        """Every record of one saga: as many as it has steps here."""
        ...

    async def find(self, keys: Sequence[EffectKey]) -> Sequence[Effect]:
        """Those of these records that there are, in any order."""
        ...
