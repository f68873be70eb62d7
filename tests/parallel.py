"""How the tests share the cores when they run in parallel (`pytest -n 2`).

A worker is given whole files, so that what a file sets up is set up once; all of `e2e/` is one
piece, because its tests share a mesh of eight processes. The simulated worlds need nothing but
time: batches of them are pieces of their own and come last, so that all workers end together.
Chaos comes beside them: it takes what they leave, and holds up nobody who looks at a clock.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_LONGEST = ("e2e", "crash_points")
_BESIDE = "chaos"
_FILLER = "simulation"


def room(nodeid: str) -> str:
    """The folder of tests/ that a test is in."""
    return PurePosixPath(nodeid.partition("::")[0]).parts[1]


def turn(item: pytest.Item) -> int:
    """When an item's piece is given out: the longest first, the smallest last."""
    where = room(item.nodeid)
    if where in _LONGEST:
        return _LONGEST.index(where)
    return len(_LONGEST) + (where == _BESIDE) + 2 * (where == _FILLER)


class Pieces(LoadScopeScheduling):
    """Gives out pieces in the order of `turn`."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        where = room(nodeid)
        if where == _FILLER:
            return nodeid
        return where if where == "e2e" else nodeid.partition("::")[0]
