"""What an expression of a definition may name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pool import DescriptorPool


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Types by their full names, variables, and what would be a variable further down."""

    pool: DescriptorPool
    """The types of this definition and no others."""
    variables: Mapping[str, Descriptor | None]
    """Names with their types; None where the type is not known, which is a problem that somebody
    else reports: then nothing is said about what might follow from it."""
    later: frozenset[str] = frozenset()
    """Names of steps whose responses are not there yet."""

    @property
    def complete(self) -> bool:
        """Whether the type of every name is known."""
        return None not in self.variables.values()
