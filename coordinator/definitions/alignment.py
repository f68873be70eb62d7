"""Where a character of a YAML scalar's text stands in the YAML.

YAML changes nothing of a scalar but white space and escapes: the visible characters of the text are
those of the YAML, in the same order. So the n-th visible character of one is the n-th of the other,
in every style, and a position between visible characters is just after the one before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from coordinator.definitions.nodes import Scalar

_ANCHOR = re.compile(r"(?:&[^ \t\r\n,\[\]{}]*\s+)?")
_OPENING = re.compile(r"""[|>][^\r\n\x85\u2028\u2029]*|["']|""")
_CHARACTERS = {
    '"': re.compile(r"""\\(?:x.{2}|u.{4}|U.{8}|\r\n|.)|[^\\"]""", re.DOTALL),
    "'": re.compile(r"''|[^']"),
}
_PLAIN = re.compile(r".", re.DOTALL)
_ESCAPED_SPACE = frozenset("tnrvfNLP_ \t\r\n")


def offset_in_yaml(scalar: Scalar, position: int) -> int:
    """The offset in the YAML of a position in the scalar's text; its end is a position too."""
    visible = list(_visible(scalar.raw))
    before = sum(not character.isspace() for character in scalar.text[:position])
    if not visible:
        return scalar.offset
    # Within bounds, also where a line break of an odd kind hides a character.
    if before == 0 or scalar.text[position : position + 1].strip():
        return scalar.offset + visible[min(before, len(visible) - 1)]
    return scalar.offset + visible[min(before, len(visible)) - 1] + 1


def _visible(raw: str) -> Iterator[int]:
    """Offsets of what says a visible character."""
    start = _after(_ANCHOR, raw, 0)
    characters = _CHARACTERS.get(raw[start : start + 1], _PLAIN)
    for character in characters.finditer(raw, _after(_OPENING, raw, start)):
        if not _says_space(character.group()):
            yield character.start()


def _after(pattern: re.Pattern[str], raw: str, start: int) -> int:
    found = pattern.match(raw, start)
    return found.end() if found else start


def _says_space(written: str) -> bool:
    if len(written) == 1 or written == "''":
        return written.isspace()
    if written[1] in "xuU":
        return written.encode().decode("unicode_escape").isspace()
    return written[1] in _ESCAPED_SPACE
