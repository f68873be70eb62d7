"""CEL: compiling the expressions of a definition and evaluating them for a saga.

An expression compiles against a descriptor pool of its definition's own, with `input` and the
responses of earlier steps in scope, and must give exactly one type, known beforehand. Evaluation is
pure: the same bytes in, the same bytes out. CEL reports a failed evaluation in two ways, by a value
of type ERROR and by a RuntimeError; `Expression` is the one place that knows both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from cel_expr_python import cel
from cel_expr_python.ext import ext_optional
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from coordinator.core.model import RequestNotBuildable
from coordinator.definitions.checked import CheckedExpression
from coordinator.definitions.complaints import Complaint, complaints_of
from coordinator.definitions.copying import copier_of
from coordinator.definitions.scope import Scope

MAX_REQUEST_BYTES = 1 << 20
TEXT = "string"

_GIVES_NULL = "the expression gives null for this input"
_GIVES_UNREADABLE = "the expression gives a message that cannot be read; is it nested too deep?"

_CEL_NAME = re.compile(r"(?<![.\w])[A-Z]+(?![.\w])")


class ExpressionRefused(Exception):
    """An expression that does not compile, with everything that is wrong with it."""

    def __init__(self, *complaints: Complaint) -> None:
        super().__init__("; ".join(complaint.message for complaint in complaints))
        self.complaints = complaints


class Expression:
    """A compiled expression."""

    def __init__(self, program: cel.Expression, scope: Scope) -> None:
        self._program = program
        self.checked = CheckedExpression(program.serialize())
        reads = {
            name: message
            for name, message in scope.variables.items()
            if message is not None and name in self.checked.identifiers
        }
        self._reads = {name: GetMessageClass(message) for name, message in reads.items()}
        self._copier = copier_of(self.checked, scope.pool, reads)
        self.constant = not reads
        """Whether it gives the same for every saga, because it reads nothing of any."""

    def message(self, values: Mapping[str, bytes]) -> Message:
        """The message that it gives for these serialised values of its names.

        Raises:
            RequestNotBuildable: it fails on them; says why without showing any of them.
        """
        value = self._value(values)
        if isinstance(value, Message):
            return value
        raise RequestNotBuildable(_GIVES_NULL)

    def text(self, values: Mapping[str, bytes]) -> str:
        """Like `message`, for an expression that gives text."""
        value = self._value(values)
        if isinstance(value, str):
            return value
        raise RequestNotBuildable(_GIVES_NULL)

    def _value(self, values: Mapping[str, bytes]) -> object:
        messages = self._parsed(values)
        copied = self._copier(messages) if self._copier else None
        return self._by_cel(messages) if copied is None else copied

    def _parsed(self, values: Mapping[str, bytes]) -> list[Message]:
        messages = []
        for name, form in self._reads.items():
            try:
                messages.append(form.FromString(values[name]))
            except KeyError:
                raise RequestNotBuildable(f"{name} has no response") from None
            except DecodeError:
                raise RequestNotBuildable(f"{name} is no {form.DESCRIPTOR.full_name}") from None
        return messages

    def _by_cel(self, messages: list[Message]) -> object:
        data = dict(zip(self._reads, messages, strict=True))
        try:
            result = self._program.eval(data=data)
            value: object = result.value()
        except RuntimeError as error:
            raise RequestNotBuildable(_without_values(str(error))) from None
        except TypeError:
            # CEL has written what protobuf for Python does not parse.
            raise RequestNotBuildable(_GIVES_UNREADABLE) from None
        if result.type() == cel.Type.ERROR:
            raise RequestNotBuildable(_without_values(str(value)))
        return value


@dataclass(frozen=True)
class RequestBuilder:
    """Builds the bytes of a Do request: `core.model.RequestBuilder`."""

    expression: Expression

    def __call__(self, input_bytes: bytes, responses: Mapping[str, bytes], /) -> bytes:
        """Return the request, serialised deterministically.

        Raises:
            RequestNotBuildable: the expression fails on this data, or gives over 1 MiB.
        """
        if self.expression.constant:
            return self._constant
        return self._build({**responses, "input": input_bytes})

    @cached_property
    def _constant(self) -> bytes:
        return self._build({})

    def _build(self, values: Mapping[str, bytes]) -> bytes:
        message = self.expression.message(values)
        request = message.SerializeToString(deterministic=True)
        if len(request) > MAX_REQUEST_BYTES:
            raise RequestNotBuildable(f"the request has {len(request)} bytes; at most 1 MiB")
        return request


def compile_expression(text: str, scope: Scope, *, gives: str | None) -> Expression:
    """Compile an expression that must give exactly this type.

    `gives` is the full name of a message type, or `TEXT`; None when it is not known.

    Raises:
        ExpressionRefused: with every complaint.
    """
    start = len(text) - len(text.lstrip())
    try:
        program = _environment(scope).compile(text)
    except RuntimeError as error:
        found = complaints_of(str(error), text, scope)
        raise ExpressionRefused(*_worth_saying(found, scope, gives, start)) from None
    given = _shown(program.return_type())
    if gives not in (None, given) and (scope.complete or given != "dyn"):
        message = f"expected {gives}, given {given}"
        raise ExpressionRefused(Complaint(start, "TYPE_MISMATCH", message))
    return Expression(program, scope)


def _worth_saying(
    found: Iterable[Complaint], scope: Scope, gives: str | None, start: int
) -> Iterator[Complaint]:
    """Nothing about unknown types where types are missing; of the whole, the type expected."""
    for complaint in found:
        if complaint.reason != "UNKNOWN_TYPE":
            yield complaint
        elif gives is not None and scope.complete:
            whole = complaint.position == start
            expected = f"expected {gives}: " if whole else ""
            yield replace(complaint, message=expected + complaint.message)


def _environment(scope: Scope) -> cel.Env:
    types = {
        name: cel.Type(message.full_name) if message else cel.Type.DYN
        for name, message in scope.variables.items()
    }
    return cel.NewEnv(scope.pool, variables=types, extensions=[ext_optional.ExtOptional()])


def _shown(kind: cel.Type) -> str:
    """The name of a type as it is written in expressions."""
    if kind.is_message():
        return kind.name()
    return _CEL_NAME.sub(lambda name: name.group().lower(), kind.name())


def _without_values(message: str) -> str:
    """The fixed words of CEL's message: after its code and before what it quotes."""
    _, _, words = message.partition(": ")
    return f"the expression fails on this input: {words.partition(':')[0].strip()}"
