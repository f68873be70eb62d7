"""YAML as plain nodes that know their places.

Built from the parser's events rather than by a YAML loader: hostile texts (aliases that multiply,
endless nesting, tags that name classes) end at a limit, and every node keeps the place it came
from. Plain scalars mean what they mean in JSON: `5`, `2.0`, `true` and `null` are values, anything
else is text, so that `on` or `1e` never turn into something the author did not write.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

MAX_NODES = 10_000
MAX_DEPTH = 16

Value = str | int | float | bool | None


class Unreadable(Exception):
    """The text is no YAML that a definition could be written in."""

    def __init__(self, offset: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value."""

    offset: int
    raw: str
    """As it is written in the YAML, with quotes, escapes and line breaks."""
    text: str
    """What it says."""
    value: Value
    """What it means in JSON."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    offset: int
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and values in the order written; a key may be there twice."""

    offset: int
    entries: tuple[tuple[Node, Node], ...]


Node = Scalar | Sequence | Mapping


def read_nodes(text: str) -> Node:
    """The one document of a YAML text.

    Raises:
        Unreadable: with the place and the reason.
    """
    try:
        text.encode()
        return _Composer(text).document()
    except UnicodeEncodeError as error:
        raise _invalid(error.start, "a character that Unicode does not allow in text") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _invalid(mark.index if mark else 0, _explained(error)) from error
    except YAMLError as error:
        raise _invalid(getattr(error, "position", 0), "a character that YAML forbids") from error
    except (ValueError, OverflowError, AssertionError) as error:
        # The parser lets these through for escapes and %YAML versions out of range.
        raise _invalid(0, f"not YAML: {error}") from error


def _explained(error: MarkedYAMLError) -> str:
    message = str(error.problem or "not YAML")
    if message.startswith("mapping values"):
        return f"{message}; write an expression on lines of its own, after `request: |`"
    return message


def _invalid(offset: int, message: str) -> Unreadable:
    return Unreadable(offset, "YAML_INVALID", message)


_Content = ScalarEvent | SequenceStartEvent | MappingStartEvent


class _Composer:
    """Builds nodes from events, within the limits."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._events: Iterator[AliasEvent | _Content] = iter(
            YAML(typ="safe", pure=True).parse(text)
        )
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._count = 0

    def document(self) -> Node:
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                node = self._node(next(self._events), 0)
                self._expect_end()
                return node
        raise Unreadable(0, "YAML_EMPTY", "there is no definition in this text")

    def _expect_end(self) -> None:
        next(self._events)
        event = next(self._events)
        if not isinstance(event, StreamEndEvent):
            raise _invalid(event.start_mark.index, "one definition at a time: a second one begins")

    def _node(self, event: AliasEvent | _Content, depth: int) -> Node:
        offset = event.start_mark.index
        if isinstance(event, AliasEvent):
            return self._alias(event.anchor, offset)
        if event.tag is not None:
            raise Unreadable(
                offset, "YAML_TAG", "tags (!) mean nothing here: write the value alone"
            )
        before = self._count
        self._add(1, offset)
        if depth > MAX_DEPTH:
            raise Unreadable(offset, "YAML_TOO_DEEP", f"nested deeper than {MAX_DEPTH} levels")
        node = self._content(event, offset, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node, self._count - before
        return node

    def _content(self, event: _Content, offset: int, depth: int) -> Node:
        if isinstance(event, ScalarEvent):
            return self._scalar(event, offset)
        if isinstance(event, SequenceStartEvent):
            items = tuple(self._node(item, depth + 1) for item in self._until(SequenceEndEvent))
            return Sequence(offset, items)
        keys = self._until(MappingEndEvent)
        entries = (
            (self._node(k, depth + 1), self._node(next(self._events), depth + 1)) for k in keys
        )
        return Mapping(offset, tuple(entries))

    def _until(self, *ends: type) -> Iterator[AliasEvent | _Content]:
        for event in self._events:
            if isinstance(event, ends):
                return
            yield event

    def _alias(self, name: str, offset: int) -> Node:
        if name not in self._anchors:
            raise _invalid(offset, f"no anchor &{name} is complete before this alias")
        node, size = self._anchors[name]
        self._add(size, offset)
        return node

    def _add(self, size: int, offset: int) -> None:
        self._count += size
        if self._count > MAX_NODES:
            message = f"more than {MAX_NODES} values, counting each alias as what it stands for"
            raise Unreadable(offset, "YAML_TOO_LARGE", message)

    def _scalar(self, event: ScalarEvent, offset: int) -> Scalar:
        try:
            event.value.encode()
        except UnicodeEncodeError:
            raise _invalid(offset, "an escape that stands for no character") from None
        raw = self._text[offset : event.end_mark.index]
        value = event.value if event.style else _json_value(event.value)
        return Scalar(offset, raw, event.value, value)


def _json_value(plain: str) -> Value:
    if not plain:
        return None
    try:
        value: Value = json.loads(plain)
    except ValueError:
        return plain
    return value
