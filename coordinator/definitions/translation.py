"""From the tree of a checked CEL expression to Python's, for expressions that only copy.

`input.amount` becomes an attribute, `list.map(x, ...)` a list comprehension, and a message literal
the dict of its fields, which protobuf's constructors take. Trees, not texts: no name that somebody
chose can become anything but a name.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from coordinator.definitions.checked import CheckedExpression, Made
from coordinator.definitions.copyable import is_copyable, is_plain, is_readable

MAX_LOOPS = 8
"""One inside of the other. CPython 3.12 and 3.13 crash when they compile more than 20."""


class NotCopying(Exception):
    """The expression does more than to copy, or copies what CEL has to."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the expression in Python, and of which message type it is, or its elements are."""

    code: ast.expr
    message: Descriptor | None = None


_Scope = Mapping[str, _Part]
"""Variables, by their names in CEL."""


class Translation:
    """Of an expression that reads these variables.

    Raises:
        NotCopying: it does more.
    """

    def __init__(
        self, checked: CheckedExpression, pool: DescriptorPool, reads: Mapping[str, Descriptor]
    ) -> None:
        _demand(all(map(is_readable, reads.values())))
        self._checked = checked
        self._pool = pool
        self._most_variables = len(reads) + MAX_LOOPS
        self.copies_messages = False
        """Whether messages are copied whole, with whatever is in them."""
        self.reads_lists = False
        """Whether it goes through lists, element by element."""
        self.function = self._function(reads)
        """From the budget for elements of lists, and what is read, to what the expression gives."""

    def _function(self, reads: Mapping[str, Descriptor]) -> Callable[..., Any]:
        scope = {name: _variable(name, message) for name, message in reads.items()}
        whole = self._part(self._checked.root, scope)
        if whole.message is None:
            return _function(scope, whole.code)
        # Not a part of what was read: unknown fields are taken out of it, to see if there are any.
        _demand(isinstance(whole.code, ast.Dict))
        made = _call(_name("made"), keywords=[ast.keyword(value=whole.code)])
        return _function(scope, made, made=GetMessageClass(whole.message))

    def _part(self, expression: Made, scope: _Scope) -> _Part:
        constant = self._checked.constant(expression)
        if constant is not None:
            return _Part(ast.Constant(constant))
        if expression.HasField("struct"):
            return self._literal(expression, scope)
        if expression.HasField("comprehension"):
            return self._list(expression.comprehension, scope)
        return self._copied(_path(expression, scope))

    def _literal(self, expression: Made, scope: _Scope) -> _Part:
        message = self._type(self._checked.message(expression))
        fields: dict[str, ast.expr] = {}
        for entry in expression.struct.entries:
            _demand(entry.field not in fields and is_plain(_field(message, entry.field)))
            part = (self._optional if entry.optional else self._part)(entry.value, scope)
            fields[entry.field] = part.code
        names: list[ast.expr | None] = [ast.Constant(name) for name in fields]
        return _Part(ast.Dict(names, list(fields.values())), message)

    def _optional(self, expression: Made, scope: _Scope) -> _Part:
        """`a.?b`; where b is unset None, which a constructor takes for nothing."""
        _demand(expression.call.function == "_?._")
        operand, name = expression.call.args
        whole, read = _path(operand, scope), name.constant.text
        part = self._copied(_selected(whole, read))
        _demand(_field(whole.message, read).has_presence)
        is_set = _call(_attribute(whole.code, "HasField"), ast.Constant(read))
        return replace(part, code=ast.IfExp(is_set, part.code, ast.Constant(None)))

    def _list(self, loop: Made, scope: _Scope) -> _Part:
        _demand(loop.variable not in scope and len(scope) < self._most_variables)
        elements = _path(loop.range, scope)
        variable = _variable(loop.variable, elements.message)
        element = self._part(_mapped(loop), {**scope, loop.variable: variable})
        self.reads_lists = True
        each = ast.comprehension(
            target=ast.Name(f"_{loop.variable}", ast.Store()),
            iter=_call(_attribute(_name("budget"), "spend"), elements.code),
            ifs=[],
            is_async=0,
        )
        return _Part(ast.ListComp(element.code, [each]), element.message)

    def _copied(self, part: _Part) -> _Part:
        if part.message is not None:
            _demand(is_copyable(part.message))
            self.copies_messages = True
        return part

    def _type(self, name: str) -> Descriptor:
        try:
            message = self._pool.FindMessageTypeByName(name)
        except KeyError:
            raise NotCopying from None
        _demand(is_readable(message))
        return message


def _path(expression: Made, scope: _Scope) -> _Part:
    """A variable, or a field of what a path leads to."""
    if expression.ident.name in scope:
        return scope[expression.ident.name]
    _demand(expression.HasField("select") and not expression.select.test_only)
    return _selected(_path(expression.select.operand, scope), expression.select.field)


def _selected(operand: _Part, name: str) -> _Part:
    field = _field(operand.message, name)
    _demand(is_plain(field))
    return _Part(_attribute(operand.code, name), field.message_type)


def _field(message: Descriptor | None, name: str) -> FieldDescriptor:
    field = message.fields_by_name.get(name) if message is not None else None
    if field is None:
        raise NotCopying
    return field


def _mapped(loop: Made) -> Made:
    """The x of `list.map(variable, x)`, for which CEL has a loop that adds `[x]` to its result."""
    addition = loop.step.call
    _demand(
        not loop.second_variable
        and loop.initial.HasField("list")
        and not loop.initial.list.elements
        and loop.condition.constant.bool
        and addition.function == "_+_"
        and addition.args[0].ident.name == loop.result_variable == loop.result.ident.name
        and len(addition.args[1].list.elements) == 1
        and not addition.args[1].list.optional
    )
    return addition.args[1].list.elements[0]


def _demand(condition: bool) -> None:  # noqa: FBT001 - it reads like an assertion
    if not condition:
        raise NotCopying


# --- Python's tree ------------------------------------------------------------


def _variable(name: str, message: Descriptor | None) -> _Part:
    # With a name of its own: that of a step may be a word of Python.
    return _Part(_name(f"_{name}"), message)


def _name(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())


def _attribute(value: ast.expr, name: str) -> ast.Attribute:
    return ast.Attribute(value, name, ast.Load())


def _call(
    function: ast.expr, *arguments: ast.expr, keywords: Sequence[ast.keyword] = ()
) -> ast.Call:
    return ast.Call(function, list(arguments), list(keywords))


def _function(variables: _Scope, code: ast.expr, **names: object) -> Callable[..., Any]:
    parameters = [ast.arg("budget"), *(ast.arg(f"_{name}") for name in variables)]
    arguments = ast.arguments(
        posonlyargs=[], args=parameters, kwonlyargs=[], kw_defaults=[], defaults=[]
    )
    tree = ast.fix_missing_locations(ast.Expression(ast.Lambda(arguments, code)))
    function: Callable[..., Any] = eval(compile(tree, "<expression>", "eval"), names)  # noqa: S307
    return function
