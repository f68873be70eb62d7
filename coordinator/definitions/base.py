"""The definitions' port: register what sagas run, and find it again.

Contract, for every implementation:

- A version is immutable and identified by its hash: over its text and the descriptors that it was
  checked against, which are stored with it. Neither a restart nor a load asks a participant.
- `register` and `validate` compile against what the running participants serve at that moment, and
  refuse with everything that is wrong at once.
- `newest` and `at_hand` see what any coordinator on the same store registered before they were
  called: `register` answers only when nobody takes an older version for the newest any more.
- What reads or writes the store raises `journal.base.JournalUnavailable` when it is away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from coordinator.core.model import Definition
from coordinator.definitions.lookup import DescriptorLookup


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionProblem:
    """One thing that is wrong with a definition."""

    line: int
    """In the YAML, from 1."""
    column: int
    """In the YAML, from 1, in characters."""
    path: str
    """Place in the definition, such as steps[2].request; empty for the whole."""
    reason: str
    """Machine-readable, such as TYPE_MISMATCH."""
    message: str
    """What is wrong, what was expected and what was given."""
    excerpt: str
    """The line of the YAML, and below it a caret under the place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionWarning:
    """A thing that is allowed but probably not meant."""

    line: int
    column: int
    path: str
    message: str
    """What may go wrong, and how to write it instead."""


class DefinitionRefused(Exception):
    """A definition that cannot be registered, with everything that is wrong with it."""

    def __init__(self, problems: Sequence[DefinitionProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{p.line}:{p.column}: {p.message}" for p in self.problems))


class InputRefused(Exception):
    """An input that no saga of this definition can be started with; never shows the input."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        """INPUT_TYPE_MISMATCH, INPUT_MALFORMED or KEY_NOT_BUILDABLE."""
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledDefinition:
    """One version of a definition, ready to run."""

    name: str
    hash: str
    """Hex SHA-256 over `source` and `descriptors`."""
    source: str
    """The YAML as it was registered."""
    definition: Definition
    """What the engine runs."""
    message: bytes
    """The same as a serialised saga.v1.Definition."""
    input_type: str
    """Full name of the message type that StartSaga takes."""
    check_input: Callable[[str, bytes], bytes]
    """From an Any's type URL and value to the canonical bytes of the input: equal for equal inputs.

    Raises:
        InputRefused: it is of another type, or its bytes do not parse.
    """
    keys_of: Callable[[bytes], dict[str, str]]
    """The searchable keys of an input.

    Raises:
        InputRefused: the expression of a key failed on this input.
    """
    descriptors: bytes
    """Serialised FileDescriptorSet: its step services, its input and what these import."""
    created_ms: int = 0
    """When this version was registered; 0 while it is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What came of a registration."""

    version: CompiledDefinition
    created: bool
    """False when this version was there already."""
    warnings: tuple[DefinitionWarning, ...]


class Definitions(Protocol):
    """Registered definitions."""

    async def register(self, source: str) -> Registration:
        """Compile against the running participants and store the version with their descriptors.

        Raises:
            DefinitionRefused: nothing is stored.
        """
        ...

    async def validate(self, source: str) -> tuple[DefinitionWarning, ...]:
        """Compile a definition like `register` and store nothing.

        Raises:
            DefinitionRefused: it could not be registered.
        """
        ...

    def at_hand(self, name: str, content_hash: str = "") -> CompiledDefinition | None:
        """The version of this hash, or the newest of this name when it is empty, without asking.

        None when the store has to be asked, by `load` or `newest`.
        """
        ...

    async def newest(self, name: str) -> CompiledDefinition | None:
        """The newest version of a definition; None when there is none.

        Raises:
            DefinitionRefused: it was stored by another release and does not compile in this one.
        """
        ...

    async def load(self, content_hash: str) -> CompiledDefinition | None:
        """One version by its hash; None when there is none.

        Raises:
            DefinitionRefused: it was stored by another release and does not compile in this one.
        """
        ...

    async def list(self, *, after: str = "", limit: int = 50) -> Sequence[CompiledDefinition]:
        """The newest version of each definition whose name is greater than `after`, by name.

        Raises:
            DefinitionRefused: one was stored by another release and does not compile in this one.
        """
        ...

    async def descriptors(self) -> DescriptorLookup:
        """Types that clients may send or see: of the newest definitions first, then our own.

        Through it grpcurl expands an Any whose type only a participant knows.
        """
        ...
