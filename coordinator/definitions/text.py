"""A YAML text and its places: from offsets to lines, columns and excerpts with a caret."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass

_LINE_END = re.compile(r"\r\n|\r|\n")
_EXCERPT_BEFORE, _EXCERPT_AFTER = 80, 40


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a text. Both count from 1; columns count characters."""

    line: int
    column: int


class Text:
    """A text that problems point into, by offset in characters."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts = [0, *(end.end() for end in _LINE_END.finditer(text))]

    def place(self, offset: int) -> Place:
        """Line and column of an offset."""
        line = bisect_right(self._starts, offset)
        return Place(line, offset - self._starts[line - 1] + 1)

    def excerpt(self, offset: int) -> str:
        """The line of an offset, cut where it is long, and a caret under the place."""
        place = self.place(offset)
        line = _LINE_END.split(self._text[self._starts[place.line - 1] :], maxsplit=1)[0]
        first = max(0, place.column - 1 - _EXCERPT_BEFORE)
        shown = line[first : place.column - 1 + _EXCERPT_AFTER]
        padding = "".join(map(_blank, line[first : place.column - 1]))
        return f"{shown}\n{padding}^"


def _blank(character: str) -> str:
    """White space as wide as a character, so that carets stand where they should."""
    if character == "\t":
        return "\t"
    return "\u3000" if unicodedata.east_asian_width(character) in "WF" else " "
