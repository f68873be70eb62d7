"""Explores every interleaving of several scripts on one database, with crashes and stock changes.

A state of the world is the database and the place of every actor. From each state every actor may
do its next operation, every actor may crash (back to its start, as the one that repeats the call),
and the stock of any product may be set to any of the given levels. States seen before are not
explored again, so crashes and changes need no limit: the search covers any number of them. A crash
that nobody repeats is a restarted actor that is never given its turn.

Where a world says so, an update that was made may be told False, as are those that travel in one
command with one that matches nothing.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from mesh.barrier.mongo_operations import STOCK, Update
from tests.unit.mongo_barrier.documents import Database, changed, perform
from tests.unit.mongo_barrier.unrolled import Answer, MakeScript, Recognise, Unrolled, by_frames

LONGEST_RUN_ALONE = 80

State = tuple[int, ...]
"""Number of the database, then the place of each actor."""


class Guilty(AssertionError):
    """A state that must not be; the message tells the way there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Who acts on what, what may happen meanwhile, and what must always be true."""

    actors: Mapping[str, MakeScript]
    """Neighbours with equal scripts are alike: who of them stands where makes no difference."""
    database: Database
    levels: Sequence[tuple[str, int]] = ()
    """Product and how many of it somebody may make available at any moment."""
    fault: Callable[[Database, Sequence[Answer]], str]
    """What is wrong with a database when these answers were given; empty when nothing."""
    conserved: Callable[[Database], object]
    """What no operation of an actor may change."""
    doubtful: bool = False
    """Whether an update may be told False although it was made."""


@dataclass(frozen=True, slots=True)
class Explored:
    """What a search has seen."""

    states: int
    ends: frozenset[tuple[str, tuple[Answer, ...]]]
    """Every database, as text, with the answers of all actors."""


def explore(world: World, recognise: Recognise = by_frames) -> Explored:
    """Visit every state that can be reached.

    Raises:
        Guilty: one of them must not be, or an actor cannot finish from it without the others.
    """
    return _Search(world, recognise).run()


class _Search:
    def __init__(self, world: World, recognise: Recognise) -> None:
        self._world = world
        self._names = list(world.actors)
        self._crashes = [f"{name} crashes" for name in self._names]
        unrolled = {make: Unrolled(make, recognise) for make in world.actors.values()}
        self._scripts = [unrolled[make] for make in world.actors.values()]
        self._alike = [len(list(group)) for _, group in groupby(self._scripts)]
        self._databases: list[Database] = []
        self._numbers: dict[str, int] = {}
        self._performed: dict[tuple[int, str], tuple[int, str, Any]] = {}
        self._levelled: dict[int, list[int]] = {}
        self._judged: set[tuple[int, tuple[Answer, ...]]] = set()
        self._ends_alone: set[tuple[int, int, int]] = set()
        self._came_from: dict[State, tuple[State, str]] = {}

    def run(self) -> Explored:
        start = (self._number(self._world.database), *(0 for _ in self._scripts))
        seen, waiting, ends = {start}, deque([start]), set()
        while waiting:
            state = waiting.popleft()
            answers = self._judge(state)
            if len(answers) == len(self._scripts):
                ends.add((state[0], answers))
            for successor, label in self._successors(state):
                after = self._ordered(successor)
                if after not in seen:
                    seen.add(after)
                    self._came_from[after] = (state, label)
                    waiting.append(after)
        texts = frozenset((_text(self._databases[number]), answers) for number, answers in ends)
        return Explored(len(seen), texts)

    def _successors(self, state: State) -> Iterator[tuple[State, str]]:
        for actor, place in enumerate(state[1:]):
            if self._scripts[actor].places[place].operation is None:
                continue
            yield self._act(state, actor), self._names[actor]
            if self._world.doubtful and self._is_update_made(state, actor):
                yield self._act(state, actor, told=False), f"{self._names[actor]}, told False"
            if place:
                yield _with(state, actor, 0), self._crashes[actor]
        for number in self._set_levels(state[0]):
            yield (number, *state[1:]), "stock is set"

    def _ordered(self, state: State) -> State:
        places, first = [state[0]], 1
        for size in self._alike:
            places += sorted(state[first : first + size])
            first += size
        return tuple(places)

    def _is_update_made(self, state: State, actor: int) -> bool:
        operation = self._scripts[actor].places[state[actor + 1]].operation
        return isinstance(operation, Update) and self._perform(state, actor)[2] is True

    def _act(self, state: State, actor: int, *, told: bool = True) -> State:
        database, name, result = self._perform(state, actor)
        if not told:
            name, result = "False", False
        place = self._scripts[actor].move(state[actor + 1], name, result)
        return _with((database, *state[1:]), actor, place)

    def _perform(self, state: State, actor: int) -> tuple[int, str, Any]:
        here = self._scripts[actor].places[state[actor + 1]]
        key = (state[0], here.name)
        if key not in self._performed:
            assert here.operation is not None
            before = self._databases[state[0]]
            after, result = perform(before, here.operation)
            if self._world.conserved(before) != self._world.conserved(after):
                raise self._guilty(state, f"{here.name} does not conserve the stock")
            self._performed[key] = (self._number(after), repr(result), result)
        return self._performed[key]

    def _set_levels(self, number: int) -> list[int]:
        if number not in self._levelled:
            before = self._databases[number]
            levels = self._world.levels
            self._levelled[number] = [self._number(set_stock(before, *level)) for level in levels]
        return self._levelled[number]

    def _judge(self, state: State) -> tuple[Answer, ...]:
        """The answers given so far, once nothing is found wrong with this state."""
        places = [s.places[place] for s, place in zip(self._scripts, state[1:], strict=True)]
        answers = tuple(place.answer for place in places if place.answer is not None)
        if (state[0], answers) not in self._judged:
            fault = self._world.fault(self._databases[state[0]], answers)
            if fault:
                raise self._guilty(state, fault)
            self._judged.add((state[0], answers))
        for actor in range(len(self._scripts)):
            self._run_alone(state, actor)
        return answers

    def _run_alone(self, state: State, actor: int) -> None:
        """Nobody may ever have to wait for somebody else, who may be dead."""
        path, here = [], state
        while (here[0], actor, here[actor + 1]) not in self._ends_alone:
            path.append((here[0], actor, here[actor + 1]))
            if self._scripts[actor].places[here[actor + 1]].operation is None:
                break
            if len(path) > LONGEST_RUN_ALONE:
                raise self._guilty(state, f"{self._names[actor]} alone comes to no end")
            here = self._act(here, actor)
        self._ends_alone.update(path)

    def _number(self, database: Database) -> int:
        text = _text(database)
        if text not in self._numbers:
            self._numbers[text] = len(self._databases)
            self._databases.append(database)
        return self._numbers[text]

    def _guilty(self, state: State, fault: str) -> Guilty:
        steps = []
        while state in self._came_from:
            before, label = self._came_from[state]
            steps.append(
                f"{label}: {_difference(*(self._databases[s[0]] for s in (before, state)))}"
            )
            state = before
        return Guilty("\n".join([fault, *reversed(steps)]))


def set_stock(database: Database, product: str, available: int) -> Database:
    """The database after somebody said how many are available; creates the product."""
    empty = {"_id": product, "reserved": 0, "reservations": {}}
    stock = database.get((STOCK, product), empty)
    return {**database, (STOCK, product): changed(stock, {"$set": {"available": available}})}


def _with(state: State, actor: int, place: int) -> State:
    return (*state[: actor + 1], place, *state[actor + 2 :])


def _difference(before: Database, after: Database) -> str:
    return _text({key: after[key] for key in after if after[key] != before.get(key)})


def _text(database: Database) -> str:
    documents = {f"{name} {id_}": document for (name, id_), document in database.items()}
    return json.dumps(documents, sort_keys=True, default=repr)
