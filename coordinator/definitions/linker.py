"""Ties a definition's names to descriptors: services to steps, expressions to types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from msgspec.structs import replace

from coordinator.core.model import COMPENSATION_RETRY, RetryPolicy, Step
from coordinator.definitions.alignment import offset_in_yaml
from coordinator.definitions.checked import Copy
from coordinator.definitions.checks import is_step_name
from coordinator.definitions.expressions import (
    TEXT,
    Expression,
    ExpressionRefused,
    RequestBuilder,
    compile_expression,
)
from coordinator.definitions.findings import Findings
from coordinator.definitions.nodes import Scalar
from coordinator.definitions.scope import Scope
from coordinator.definitions.steps import NotAStep, StepTypes, step_types
from coordinator.definitions.values import retry_policy
from protos.saga.v1 import saga_pb2


@dataclass(frozen=True, slots=True)
class Linked:
    """What came of a definition; as much as it has, where there are problems."""

    keys: dict[str, Expression]
    steps: tuple[Step, ...]


def link(definition: saga_pb2.Definition, pool: DescriptorPool, findings: Findings) -> Linked:
    """Link a definition against the types of a pool; what does not fit goes to the findings."""
    linker = _Linker(pool, findings)
    input_type = linker.input_type(definition.input)
    keys = linker.keys(definition, input_type)
    return Linked(dict(keys), tuple(linker.steps(definition, input_type)))


class _Linker:
    """One method for each kind of name."""

    def __init__(self, pool: DescriptorPool, findings: Findings) -> None:
        self._pool = pool
        self._findings = findings

    def input_type(self, name: str) -> Descriptor | None:
        try:
            return self._pool.FindMessageTypeByName(name)
        except KeyError:
            self._unless_known("input", "INPUT_NOT_FOUND", f"{name} is no message type")
            return None

    def keys(
        self, definition: saga_pb2.Definition, input_type: Descriptor | None
    ) -> Iterator[tuple[str, Expression]]:
        scope = Scope(pool=self._pool, variables={"input": input_type})
        for name, text in sorted(definition.keys.items()):
            expression = self._expression(f"keys.{name}", text, scope, gives=TEXT)
            if expression is not None:
                yield name, expression

    def steps(
        self, definition: saga_pb2.Definition, input_type: Descriptor | None
    ) -> Iterator[Step]:
        variables = {"input": input_type}
        names = [step.name for step in definition.steps if is_step_name(step.name)]
        for number, step in enumerate(definition.steps):
            path = f"steps[{number}]"
            types = self._types(step.service, f"{path}.service")
            later = frozenset(names) - variables.keys()
            scope = Scope(pool=self._pool, variables=dict(variables), later=later)
            gives = types.request.full_name if types else None
            expression = self._expression(f"{path}.request", step.request, scope, gives=gives)
            if expression is not None:
                yield _step(step, expression)
            if is_step_name(step.name):
                variables.setdefault(step.name, types.response if types else None)

    def _types(self, service: str, path: str) -> StepTypes | None:
        try:
            return step_types(self._pool.FindServiceByName(service))
        except KeyError:
            message = f"there is no descriptor of {service}"
            self._unless_known(path, "SERVICE_NOT_FOUND", message)
        except NotAStep as error:
            self._findings.problem(path, "NOT_A_STEP", str(error))
        return None

    def _unless_known(self, path: str, reason: str, message: str) -> None:
        """Something is missing; whoever looked for its descriptors may have said so better."""
        if not self._findings.faulty(path):
            self._findings.problem(path, reason, message)

    def _expression(
        self, path: str, text: str, scope: Scope, *, gives: str | None
    ) -> Expression | None:
        node = self._findings.node(path)
        if not isinstance(node, Scalar) or self._findings.faulty(path):
            return None
        try:
            expression = compile_expression(text, scope, gives=gives)
        except ExpressionRefused as error:
            for found in error.complaints:
                offset = offset_in_yaml(node, found.position)
                self._findings.problem(path, found.reason, found.message, offset=offset)
            return None
        for copy in filter(self._loses, expression.checked.copies()):
            offset = offset_in_yaml(node, copy.position)
            self._findings.warning(path, _warning(copy), offset=offset)
        return expression

    def _loses(self, copy: Copy) -> bool:
        """Whether a field that says in the proto that it can be unset makes another one set."""
        read, written = self._field(*copy.source), self._field(*copy.target)
        if not (read and written and read.has_presence and written.has_presence):
            return False
        return read.containing_oneof is not None or read.message_type is None

    def _field(self, message: str, name: str) -> FieldDescriptor | None:
        try:
            return self._pool.FindMessageTypeByName(message).fields_by_name[name]
        except KeyError:
            return None


def _warning(copy: Copy) -> str:
    read, written = copy.source[1], copy.target[1]
    return (
        f"where {copy.operand}.{read} is unset, {written} becomes set and empty;"
        f" write ?{written}: {copy.operand}.?{read} to leave it unset"
    )


def _step(step: saga_pb2.Step, expression: Expression) -> Step:
    linked = Step(
        name=step.name,
        service=step.service,
        build=RequestBuilder(expression),
        retry=retry_policy(step.retry, RetryPolicy()),
        compensation_retry=retry_policy(step.compensation_retry, COMPENSATION_RETRY),
    )
    if step.HasField("timeout"):
        return replace(linked, timeout_ms=step.timeout.ToMilliseconds())
    return linked
