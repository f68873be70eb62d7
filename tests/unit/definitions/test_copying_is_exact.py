"""What is copied is what CEL gives, byte for byte and failure for failure."""

from __future__ import annotations

from hypothesis import given, reject, settings
from hypothesis import strategies as st

from coordinator.definitions.expressions import ExpressionRefused
from tests.unit.definitions.everything import ALL, Both, expressions
from tests.unit.definitions.wire import messages

Case = tuple[str, list[tuple[bytes, bytes]]]
"""An expression, and some inputs with responses."""


def cases() -> st.SearchStrategy[Case]:
    return expressions().flatmap(
        lambda text: st.tuples(
            st.just(text),
            st.lists(st.tuples(*[messages(ALL, of=text)] * 2), min_size=1, max_size=4),
        )
    )


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cases())
def test_an_expression_gives_what_cel_gives_however_it_is_evaluated(case: Case) -> None:
    text, data = case
    try:
        both = Both(text)
    except ExpressionRefused:
        reject()
    for input_bytes, response in data:
        both.built(input_bytes, {"before": response})
