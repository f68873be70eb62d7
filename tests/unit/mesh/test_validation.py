from __future__ import annotations

import pytest

from mesh.errors import FieldViolation, InvalidRequest
from mesh.validation import MAX_VIOLATIONS, refuse_if_any


def test_more_violations_than_fit_an_answer_are_counted() -> None:
    violations = [FieldViolation(f"items[{n}]", "must be one") for n in range(MAX_VIOLATIONS + 3)]
    with pytest.raises(InvalidRequest) as raised:
        refuse_if_any(violations)
    assert raised.value.violations[:-1] == tuple(violations[:MAX_VIOLATIONS])
    assert raised.value.message.endswith("items[19]: must be one; and 3 more violations")
