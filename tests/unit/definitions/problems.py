"""What is wrong with a definition, and where: for tests of every kind of bad one.

In the YAML of a case, « stands before the place and is taken out.
"""

from __future__ import annotations

import pytest

from coordinator.definitions.base import DefinitionProblem, DefinitionRefused
from coordinator.definitions.compiler import compile_definition
from coordinator.definitions.services import Offer
from tests.unit.definitions.contracts import shop

HEAD = "name: place-order\ninput: order.v1.PlaceOrderInput\n"
CONFIRM = (
    "- {name: confirm, service: order.v1.ConfirmOrder, request: 'order.v1.ConfirmOrderRequest{}'}"
)
CREATE = f"""{HEAD}steps:
- name: create
  service: order.v1.CreateOrder
  request: """


def problems(source: str, offer: Offer | None = None) -> tuple[DefinitionProblem, ...]:
    with pytest.raises(DefinitionRefused) as refused:
        compile_definition(source, offer or shop())
    return refused.value.problems


def only_problem(marked: str, offer: Offer | None = None) -> DefinitionProblem:
    """The one problem of a YAML, checked to be where « stands."""
    before, _, after = marked.partition("«")
    (problem,) = problems(before + after, offer)
    line = before.count("\n") + 1
    column = len(before) - (before.rfind("\n") + 1) + 1
    assert (problem.line, problem.column) == (line, column), problem
    assert_caret(problem, before + after)
    return problem


def assert_caret(problem: DefinitionProblem, source: str) -> None:
    """The caret stands under the character at the problem's line and column."""
    shown, caret = problem.excerpt.split("\n")
    line = [*source.split("\n"), ""][problem.line - 1]
    start = line.index(shown)
    assert caret.strip() == "^"
    assert start + caret.index("^") + 1 == problem.column


def with_steps(steps: str) -> str:
    return f"{HEAD}steps:\n{steps}\n"
