"""What is written together with a change of the barrier's row, in the same statement.

    _TELL = AlongStatement(
        "tell_readers",
        "INSERT INTO payment (payment_id, state) SELECT %(payment_id)s, %(told)s FROM moved",
        {"payment_id": "text", "told": "text"},
    )
    await record.advance(note, along=_TELL(payment_id="p-1", told="PENDING"))

`moved` has one row when the barrier's row has changed, and none when somebody else was faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mesh.statement import Question, Statement, Value

_SHARED = {"saga_id", "step"}


class AlongStatement:
    """A statement that takes what it writes `FROM moved`; its parameters as `Statement` has them.

    Their names are its own, but for `saga_id` and `step`, which are the call's.
    """

    def __init__(self, name: str, text: str, types: Mapping[str, str]) -> None:
        self._name = name
        self._text = text
        self._types = types
        self._after: dict[bytes, Statement] = {}

    def __call__(self, **values: Value) -> Along:
        """The statement with these values."""
        return Along(self, values)

    def after(self, change: Statement) -> Statement:
        """Both in one; the answer has a row when the change was made.

        Raises:
            ValueError: a name of ours is one of the change's parameters.
        """
        if change.name not in self._after:
            self._after[change.name] = self._joined(change)
        return self._after[change.name]

    def _joined(self, change: Statement) -> Statement:
        if taken := sorted(change.types.keys() & self._types.keys() - _SHARED):
            raise ValueError(f"{self._name}: {', '.join(taken)} are parameters of the barrier")
        text = f"WITH moved AS ({change.source}), along AS ({self._text}) SELECT FROM moved"
        name = f"{change.name.decode()}_{self._name}"
        return Statement(name, text, {**change.types, **self._types})


@dataclass(frozen=True, slots=True)
class Along:
    """An `AlongStatement` with its values."""

    _statement: AlongStatement
    _values: Mapping[str, Value]

    def after(self, change: Statement, values: Mapping[str, Value]) -> Question:
        """The change with these values, and this."""
        return self._statement.after(change)(**{**self._values, **values})
