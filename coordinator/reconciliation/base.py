"""What a reconciliation finds, and the port to the effects that participants hold.

Contract of `HeldEffects`, for every implementation:

- `held` walks over every effect that is there, or may be: DOING, HELD or COMPENSATING. A record
  that changes meanwhile may be told as it was before, or as it is after.
- `find` reads records as they are when it is called.
- Both raise `EffectsUnavailable` for reasons of the wire or the participant, and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from coordinator.core.model import SagaState
from mesh.effects import Effect, EffectKey, EffectState

THERE = frozenset({EffectState.DOING, EffectState.HELD, EffectState.COMPENSATING})
"""States of an effect that is there, or may be."""


class EffectsUnavailable(Exception):
    """A participant that cannot tell what it holds now; says which one and why."""


class HeldEffects(Protocol):
    """What the participants say that they hold."""

    @property
    def participants(self) -> Sequence[str]:
        """Their names in the settings."""
        ...

    def held(self, participant: str, since_ms: int) -> AsyncIterator[Sequence[Effect]]:
        """Its effects whose record changed at this time or later, page by page."""
        ...

    async def find(self, participant: str, keys: Sequence[EffectKey]) -> Sequence[Effect]:
        """Those of these records that it has, in any order."""
        ...


class OrphanKind(Enum):
    """What is wrong with an effect."""

    UNKNOWN_SAGA = "UNKNOWN_SAGA"
    """Its participant holds it, and the journal knows no such saga or no such call."""
    STILL_HELD = "STILL_HELD"
    """Its participant holds it, and its saga ended COMPENSATED."""
    MISSING = "MISSING"
    """Its saga is COMPLETED, and its participant does not hold it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """One effect that should not be there, or is not where it should be."""

    participant: str
    key: EffectKey
    kind: OrphanKind
    explanation: str
    """What is wrong and what to do, in words."""
    saga_state: SagaState | None = None
    """None when the journal knows no such saga."""
    effect_ms: int | None = None
    """When its record changed last; None when there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The end of a reconciliation."""

    effects: int
    """How many were compared."""
    orphans: int
    participants: tuple[str, ...]
    """Who was asked."""
    unreachable: Mapping[str, str]
    """Who, and what else, could not be compared, and words about each with the reason."""


Finding = Orphan | Summary
