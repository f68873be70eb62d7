"""Everything that is found wrong or doubtful in one definition, each with its place in the YAML."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from coordinator.definitions.base import DefinitionProblem, DefinitionRefused, DefinitionWarning
from coordinator.definitions.nodes import Node
from coordinator.definitions.text import Text

MAX_PROBLEMS = 100
_MAX_MESSAGE = 500


class Findings:
    """Collects problems and warnings by path, such as steps[2].request."""

    def __init__(self, source: str) -> None:
        self._text = Text(source)
        self._nodes: dict[str, Node] = {}
        self._problems: list[DefinitionProblem] = []
        self._warnings: list[DefinitionWarning] = []

    def located(self, path: str, node: Node) -> None:
        """Remember where a path is written."""
        self._nodes[path] = node

    def node(self, path: str) -> Node | None:
        """What is written at a path; None when nothing is."""
        return self._nodes.get(path)

    def problem(self, path: str, reason: str, message: str, *, offset: int | None = None) -> None:
        """Something is wrong; at the path, or where it would be, unless an offset says better."""
        at = self._offset(path) if offset is None else offset
        place = self._text.place(at)
        self._problems.append(
            DefinitionProblem(
                line=place.line,
                column=place.column,
                path=path,
                reason=reason,
                message=_cut(message),
                excerpt=self._text.excerpt(at),
            )
        )

    def warning(self, path: str, message: str, *, offset: int) -> None:
        """Something is allowed but probably not meant."""
        place = self._text.place(offset)
        self._warnings.append(
            DefinitionWarning(
                line=place.line, column=place.column, path=path, message=_cut(message)
            )
        )

    @property
    def warnings(self) -> tuple[DefinitionWarning, ...]:
        """In the order of the YAML."""
        return tuple(sorted(self._warnings, key=lambda w: (w.line, w.column)))

    def faulty(self, path: str) -> bool:
        """Whether a problem is known at a path, inside it, or of what it should be read from."""
        return any(
            _is_in(problem.path, path)
            or (problem.reason == "WRONG_SHAPE" and _is_in(path, problem.path))
            for problem in self._problems
        )

    def refuse(self) -> None:
        """End here if anything is wrong.

        Raises:
            DefinitionRefused: with the first hundred problems in the order of the YAML.
        """
        if self._problems:
            ordered = sorted(self._problems, key=lambda p: (p.line, p.column))
            raise DefinitionRefused(ordered[:MAX_PROBLEMS])

    def _offset(self, path: str) -> int:
        while path and path not in self._nodes:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self._nodes[path].offset if path in self._nodes else 0


def suggest(name: str, known: Iterable[str]) -> str:
    """Words that lead from a misspelt name to the right one."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else f"there are: {', '.join(names)}"


def _is_in(path: str, whole: str) -> bool:
    return not whole or path == whole or path.startswith((f"{whole}.", f"{whole}["))


def _cut(message: str) -> str:
    return message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}..."
