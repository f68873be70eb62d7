"""Whatever comes as a definition, the answer is a definition or its problems."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.definitions.base import DefinitionProblem, DefinitionRefused
from coordinator.definitions.compiler import compile_definition
from protos.saga.v1 import saga_pb2
from tests.unit.definitions.contracts import shop
from tests.unit.definitions.test_place_order import SOURCE

fuzz = settings(max_examples=80, deadline=None, derandomize=True)

SHOP = shop()
FIELDS = [
    field.name
    for message in (saga_pb2.Definition, saga_pb2.Step, saga_pb2.RetryPolicy)
    for field in message.DESCRIPTOR.fields
]
WORDS = st.sampled_from(
    [
        "place-order",
        "order.v1.PlaceOrderInput",
        "order.v1.CreateOrder",
        "order.v1.OrderService",
        "order.v1.CreateOrderRequest{order_id: input.order_id}",
        "input",
        "create",
        "30s",
        "-1s",
        "1e400s",
        "CARD_DECLINED",
    ]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=5)
KEYS = st.sampled_from(FIELDS) | st.text(max_size=3)
FORMS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=25,
)
YAML_BITS = st.text(":-#&*!|>'\"%@`{}[],?~ \t\r\n\x85\u2028\ufeff\x00\ud800\\abx0é😀", max_size=8)
CEL_BITS = st.text("{}[]():,?.'\"\\\x00😀1+", max_size=3) | st.sampled_from(
    ["input", ".items.map(i, ", ".?order_id", "order.v1.CreateOrderRequest{", "in", "dyn"]
)


def assert_answered(source: str) -> None:
    lines = source.count("\n") + source.count("\r") + 1
    for problem in problems(source):
        assert 1 <= problem.line <= lines
        assert problem.column >= 1
        assert problem.reason
        assert problem.message


def problems(source: str) -> tuple[DefinitionProblem, ...]:
    try:
        compile_definition(source, SHOP)
    except DefinitionRefused as refused:
        return refused.problems
    return ()


@fuzz
@given(st.text(max_size=200) | YAML_BITS)
def test_any_text_is_answered(source: str) -> None:
    assert_answered(source)


@fuzz
@given(FORMS)
def test_any_form_is_answered(form: object) -> None:
    assert_answered(json.dumps(form))
    assert_answered(json.dumps(form, ensure_ascii=False))


@fuzz
@given(st.data())
def test_any_change_of_a_good_definition_is_answered(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(SOURCE)))
    end = data.draw(st.integers(start, min(start + 60, len(SOURCE))))
    assert_answered(SOURCE[:start] + data.draw(YAML_BITS) + SOURCE[end:])


@fuzz
@given(st.lists(CEL_BITS, max_size=12).map(" ".join), st.sampled_from(["'", '"', "|\n   ", ""]))
def test_any_expression_is_answered(expression: str, style: str) -> None:
    before, after = SOURCE.split("request: |", 1)
    end = style if style in ("'", '"') else ""
    assert_answered(f"{before}request: {style}{expression}{end}\n  x: |{after}")
