"""Expressions that only copy, without CEL: the same result for a fraction of the cost.

Nearly every request is a message literal whose fields are copied from the input or from responses.
CEL gets each message by its bytes, builds the result in C++, and gives that back by its bytes.
Where nothing is computed, the constructor of protobuf for Python makes the same message. CEL stays
the judge: an expression comes here after CEL has compiled and checked it, and what is not listed
here, or does not fit at run time, CEL evaluates.

An expression that only copies is made of constants; of fields of variables, however far down
(`input.customer.name`); of literals with these as fields, also `?a: input.?b`; and of
`list.map(x, ...)` of these, over a field. It gives the same bytes because of this:

- Unset fields. Both read the default. Both set what it is assigned to: where presence counts, that
  is then set and empty. `?a` stays unset in both. Of a oneof, the last one written wins.
- Numbers. The checker has matched types, but has one for 32 and 64 bits. What is too large for its
  field is a ValueError here; then CEL is asked, and fails in its words. A signalling NaN comes out
  quiet of CEL; here as well, but not in a list of floats, whose bits are copied. So CEL has those.
- What is read. CEL parses what protobuf for Python has parsed and written again. Only unknown
  fields come out differently: C++ writes their numbers in the shortest form, Python as they came;
  and a map entry with one is an entry in C++, but in Python is unknown itself. So CEL has all maps,
  and all messages that are copied whole and have unknown fields in them.
- Types. Those of google.protobuf are values of their own in CEL (an unset wrapper is null, an Any
  is unpacked), so CEL has them; inside of messages that are copied whole they are like any other.
  What is not proto3 has extensions, closed enums and required fields, and is CEL's.
- Limits. Both parse messages up to 100 deep. CEL lets literals nest up to 32 deep; what is copied
  whole, and so looked through for unknown fields, holds no more than 64 types and never its own.
  Both go through `MAX_ELEMENTS` of lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import TypeVar

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from coordinator.core.model import RequestNotBuildable
from coordinator.definitions.checked import CheckedExpression
from coordinator.definitions.translation import NotCopying, Translation

MAX_ELEMENTS = 9_999
"""Of all lists that one evaluation goes through."""
_TOO_MANY_ELEMENTS = "the expression fails on this input: Iteration budget exceeded [INTERNAL]"

SizedT = TypeVar("SizedT", bound=Sized)


class Copier:
    """An expression that only copies, as a function of the messages that it reads."""

    def __init__(self, translation: Translation) -> None:
        self._make = translation.function
        self._copies_messages = translation.copies_messages
        self._reads_lists = translation.reads_lists

    def __call__(self, messages: Sequence[Message]) -> object:
        """What it gives, or None where CEL has to be asked.

        Raises:
            RequestNotBuildable: it goes through more elements than CEL would.
        """
        budget = _Budget() if self._reads_lists else None
        try:
            made = self._make(budget, *messages)
        except ValueError:
            return None
        return None if self._copies_messages and _has_unknown_fields(made) else made


def copier_of(
    checked: CheckedExpression, pool: DescriptorPool, reads: Mapping[str, Descriptor]
) -> Copier | None:
    """The copier of an expression that reads these variables; None if it does more than copy."""
    try:
        return Copier(Translation(checked, pool, reads))
    except NotCopying:
        return None


class _Budget:
    """How many elements of lists an evaluation may still go through."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MAX_ELEMENTS

    def spend(self, elements: SizedT) -> SizedT:
        self._left -= len(elements)
        if self._left < 0:
            # In CEL's words, but without the seconds that CEL takes to get so far.
            raise RequestNotBuildable(_TOO_MANY_ELEMENTS)
        return elements


def _has_unknown_fields(message: Message) -> bool:
    size = message.ByteSize()
    message.DiscardUnknownFields()
    return message.ByteSize() != size
