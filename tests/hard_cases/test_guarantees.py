"""What docs/guarantees.md says is shown by tests is shown by tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text()
CASES = [f"S{number}" for number in range(1, 18)]


def known_tests() -> set[str]:
    """Names of all tests there are."""
    sources = (ROOT / "tests").rglob("test_*.py")
    return {name for it in sources for name in re.findall(r"def (test_\w+)", it.read_text())}


def test_every_test_that_the_guarantees_name_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", GUARANTEES))

    assert named - known_tests() == set()


def test_every_test_of_a_hard_case_is_named_in_the_guarantees() -> None:
    cases = {name for name in known_tests() if re.match(r"test_s\d\d", name)}

    assert cases - set(re.findall(r"`(test_\w+)`", GUARANTEES)) == set()


def test_every_folder_and_file_that_the_guarantees_name_exists() -> None:
    for path in re.findall(r"`(tests/[\w/.]+)`", GUARANTEES):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("case", CASES)
def test_every_hard_case_has_a_line_with_a_test_of_its_own(case: str) -> None:
    (line,) = [line for line in GUARANTEES.splitlines() if line.startswith(f"| {case} ")]

    assert f"`test_s{int(case[1:]):02d}_" in line
