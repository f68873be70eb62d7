"""Texts that are no definition, or too much of one."""

from __future__ import annotations

import pytest

from coordinator.definitions.compiler import compile_definition
from tests.unit.definitions.contracts import shop
from tests.unit.definitions.problems import CONFIRM, only_problem, problems, with_steps


@pytest.mark.parametrize(
    ("reason", "path", "message", "source"),
    [
        ("YAML_EMPTY", "", "no definition", "«# nothing yet\n"),
        ("YAML_INVALID", "", "expected the node content", "name: «]"),
        ("YAML_INVALID", "", "a second one begins", "name: a\n«---\nname: b"),
        ("YAML_INVALID", "", "no anchor &x", "name: «*x"),
        ("YAML_INVALID", "", "no anchor &x", "name: &x [«*x]"),
        ("YAML_INVALID", "", "escape that stands for no", 'name: «"\\ud800"'),
        ("YAML_INVALID", "", "that YAML forbids", "name: a«\x07b"),
        ("YAML_INVALID", "", "after `request: |`", "request: a.B{c«: d}"),
        ("YAML_TAG", "", "tags", "name: «!!str x"),
        ("YAML_TOO_DEEP", "", "16 levels", "[" * 17 + "«["),
        ("WRONG_SHAPE", "", "expected fields with values, given a list", "«[]"),
        ("WRONG_SHAPE", "", "given 'text'", "«text"),
    ],
)
def test_a_text_that_is_no_yaml_mapping_is_refused(
    reason: str, path: str, message: str, source: str
) -> None:
    problem = only_problem(source) if source != "«[]" else problems("[]")[0]
    assert (problem.reason, problem.path) == (reason, path)
    assert message in problem.message


def test_a_source_over_256_kib_is_refused() -> None:
    (problem,) = problems("#" * (256 * 1024 + 1))
    assert problem.reason == "SOURCE_TOO_LARGE"


def test_aliases_that_multiply_are_stopped() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    (problem,) = problems(bomb)
    assert problem.reason == "YAML_TOO_LARGE"


def test_an_alias_stands_for_what_it_names() -> None:
    source = with_steps(
        f"{CONFIRM[:-1]}, retry: &again {{max_attempts: 3}}}}\n"
        f"{CONFIRM[:-1].replace('name: confirm', 'name: twice')}, retry: *again}}"
    )
    steps = compile_definition(source, shop()).version.definition.steps
    assert [step.retry.max_attempts for step in steps] == [3, 3]
