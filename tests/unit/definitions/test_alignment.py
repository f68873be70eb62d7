from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import (
    DoubleQuotedScalarString,
    FoldedScalarString,
    LiteralScalarString,
    PlainScalarString,
    ScalarString,
    SingleQuotedScalarString,
)

from coordinator.definitions.alignment import offset_in_yaml
from coordinator.definitions.nodes import Mapping, Scalar, read_nodes

STYLES = (
    DoubleQuotedScalarString,
    FoldedScalarString,
    LiteralScalarString,
    PlainScalarString,
    SingleQuotedScalarString,
)
TEXTS = st.text("ab{}:'\"\\#é😀\u3000 \t\n", max_size=60)


def scalar_of(yaml: str) -> Scalar:
    root = read_nodes(yaml)
    assert isinstance(root, Mapping)
    value = root.entries[0][1]
    assert isinstance(value, Scalar)
    return value


@settings(deadline=None, derandomize=True)
@given(st.sampled_from(STYLES), TEXTS)
def test_every_visible_character_is_found_in_every_style(
    style: type[ScalarString], text: str
) -> None:
    stream = io.StringIO()
    YAML().dump({"key": style(text)}, stream)
    yaml = stream.getvalue()
    scalar = scalar_of(yaml)
    for position, character in enumerate(scalar.text):
        written = yaml[offset_in_yaml(scalar, position)]
        assert character.isspace() or written in (character, "\\")


@pytest.mark.parametrize(
    "yaml",
    [
        "key: plain text over\n   two lines «here",
        "key: &name plain «here",
        "key: 'it''s «here'",
        'key: "\\x41\\t\\u00e9 \\\n   over two lines \\" «here"',
        "key: |2-  # the text\n   more indented\n\n  «here",
        "key: >\n  folded\n  into\n\n  one «here\n",
        "key: >-\r\n  folded\r\n  into one «here\r\n",
    ],
)
def test_a_place_in_the_text_is_its_place_in_the_yaml(yaml: str) -> None:
    offset = yaml.index("«")
    scalar = scalar_of(yaml.replace("«", ""))
    position = scalar.text.index("here")
    assert offset_in_yaml(scalar, position) == offset
    assert offset_in_yaml(scalar, len(scalar.text.rstrip())) == offset + len("here")


@pytest.mark.parametrize("yaml", ["key: ''", 'key: ""', "key: '  '", "key: |\n\n"])
def test_an_empty_text_is_where_its_scalar_begins(yaml: str) -> None:
    scalar = scalar_of(yaml)
    assert offset_in_yaml(scalar, 0) == offset_in_yaml(scalar, len(scalar.text)) == 5
