"""From CEL's compiler messages to reasons and words that lead to the mistake."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.descriptor_pool import DescriptorPool

from coordinator.definitions.findings import suggest
from coordinator.definitions.scope import Scope

_ERROR = re.compile(
    r"^(?:\w+: )?ERROR: <input>:(-?\d+):(-?\d+): (.*?)(?=\n \||\n[A-Z]+: <input>| \[\w+\]\Z|\Z)",
    re.MULTILINE | re.DOTALL,
)
_UNDECLARED = re.compile(r"undeclared reference to '(.*)' \(in container ''\)", re.DOTALL)
_NO_FIELD = re.compile(r"undefined field '(.*)' not found in struct '(.*)'", re.DOTALL)
_REASONS = {
    "Syntax error": "SYNTAX",
    "reserved identifier": "SYNTAX",
    "expected type of field": "TYPE_MISMATCH",
    "found no matching overload": "TYPE_MISMATCH",
    "expression of type": "TYPE_MISMATCH",
}


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that is wrong with an expression."""

    position: int
    """In its text."""
    reason: str
    message: str


def complaints_of(error: str, text: str, scope: Scope) -> list[Complaint]:
    """Every complaint in the compiler's message about a text; at least one."""
    return list(_each(error, text, scope)) or [Complaint(0, "EXPRESSION_INVALID", _whole(error))]


def _each(error: str, text: str, scope: Scope) -> Iterator[Complaint]:
    for found in _ERROR.finditer(error):
        line, column = int(found[1]), int(found[2])
        yield Complaint(_position(text, line, column), *_explained(found[3], scope))


def _position(text: str, line: int, column: int) -> int:
    lines = text.split("\n")[: max(line - 1, 0)]
    return sum(len(before) + 1 for before in lines) + max(column - 1, 0)


def _explained(message: str, scope: Scope) -> tuple[str, str]:
    """Reason and words."""
    if found := _UNDECLARED.fullmatch(message):
        return _undeclared(found[1], scope)
    if found := _NO_FIELD.fullmatch(message):
        return "UNKNOWN_FIELD", _no_field(found[1], found[2], scope.pool)
    start = next((start for start in _REASONS if message.startswith(start)), None)
    return _REASONS[start] if start else "EXPRESSION_INVALID", message


def _undeclared(name: str, scope: Scope) -> tuple[str, str]:
    root = name.partition(".")[0]
    known = ", ".join(sorted(scope.variables))
    if root in scope.later:
        message = f"{root} has not answered yet when this is built; known by then: {known}"
        return "STEP_NOT_BEFORE", message
    if "." in name:
        message = f"{name} is no type that the step services or the input use"
        return "UNKNOWN_TYPE", message
    return "UNKNOWN_NAME", f"{name} is not known here; {suggest(name, sorted(scope.variables))}"


def _no_field(name: str, message: str, pool: DescriptorPool) -> str:
    try:
        known = [field.name for field in pool.FindMessageTypeByName(message).fields]
    except KeyError:
        known = []
    return f"{message} has no field {name}; {suggest(name, known)}"


def _whole(error: str) -> str:
    """The message without the codes around it."""
    return re.sub(r"\A[A-Z_]+: | \[[A-Z_]+\]\Z", "", error)
