"""A script unrolled into a table: (place, result) -> place.

What a script (see `mesh.barrier.mongo_operations.Script`) does next depends only on where it stands
and on the result it is sent. A place is recognised by the frames of its suspended generators, line
of code and local variables; a test in `test_every_interleaving.py` proves on a small world that
nothing is lost by it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import GeneratorType
from typing import Any

from mesh.barrier.mongo_operations import Operation, Script
from mesh.errors import MeshError, Rejected

MakeScript = Callable[[], Script[Any]]
Recognise = Callable[[Script[Any], Sequence[object]], object]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an actor's client was told."""

    word: str
    """DONE with a response, OK, REJECTED, SHIPPED, a refusal's reason, or what else came out."""
    response: bytes = b""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a script stands: before `operation`, or at its end with `answer`."""

    operation: Operation | None
    name: str
    """The operation as text, equal for equal operations."""
    answer: Answer | None
    history: tuple[object, ...]
    """One sequence of results that leads here."""


def by_frames(script: Script[Any], _: Sequence[object]) -> object:
    """Places are the same when code and variables are: few places, quick."""
    frames: list[object] = []
    inner: object = script
    while isinstance(inner, GeneratorType) and inner.gi_frame is not None:
        local = sorted((name, repr(value)) for name, value in inner.gi_frame.f_locals.items())
        frames.append((inner.gi_code.co_name, inner.gi_frame.f_lasti, tuple(local)))
        inner = inner.gi_yieldfrom
    return tuple(frames)


def by_history(_: Script[Any], history: Sequence[object]) -> object:
    """Places are the same only when everything that led there is: certain, and endless in loops."""
    return repr(history)


class Unrolled:
    """The places of one script, found as they are asked for. It starts at place 0."""

    def __init__(self, make: MakeScript, recognise: Recognise) -> None:
        self._make = make
        self._recognise = recognise
        self._numbers: dict[object, int] = {}
        self._moves: dict[tuple[int, str], int] = {}
        self.places: list[Place] = []
        self._place(())

    def move(self, place: int, name: str, result: object) -> int:
        """The place after the operation there gave this result, whose text is `name`."""
        if (place, name) not in self._moves:
            self._moves[place, name] = self._place((*self.places[place].history, result))
        return self._moves[place, name]

    def _place(self, history: tuple[object, ...]) -> int:
        script = self._make()
        operation, answer = _replay(script, history)
        where = (answer, repr(operation), self._recognise(script, history))
        if where not in self._numbers:
            self._numbers[where] = len(self.places)
            self.places.append(Place(operation, repr(operation), answer, history))
        return self._numbers[where]


def _replay(
    script: Script[Any], history: Sequence[object]
) -> tuple[Operation | None, Answer | None]:
    try:
        operation = next(script)
        for result in history:
            operation = script.send(result)
    except StopIteration as end:
        return None, _answer(end.value)
    except Rejected:
        return None, Answer("REJECTED")
    except MeshError as refusal:
        return None, Answer(refusal.reason)
    return operation, None


def _answer(value: object) -> Answer:
    match value:
        case None:
            return Answer("OK")
        case bytes():
            return Answer("DONE", value)
        case Counter():
            return Answer("SHIPPED")
        case _:
            return Answer(type(value).__name__)
