"""What is known about a run when it is over: everything that it can be judged by, offline too.

A history is a folder with `history.jsonl`, one record a line. What clients were told comes from the
clients; what became of it is read from the databases and the provider's ledger, past every service.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from tests.chaos.schedule import Fault

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What was asked for."""

    seed: int
    seconds: float
    rate: float
    stock: dict[str, int]
    """How many of each product there were at first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a client and its answer."""

    method: str
    to: str
    name: str
    """Of the order, see `Plan.name`."""
    at: float
    seconds: float
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a client knows about its order in the end."""

    name: str
    saga_id: str
    """Empty when no start was ever answered with success."""
    order_id: str
    total: int
    """What it costs, in minor units."""
    cart: dict[str, int]
    accepted_cancel: bool
    """Whether CancelSaga was answered with success."""
    watched: list[int]
    """Revisions that WatchSaga showed, in their order; empty for orders that nobody watched."""
    seen_state: str
    """The state of the last event that WatchSaga showed before it ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """A process that ended although nobody killed it; it was started again."""

    name: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """How long a saga stood still after its coordinator was killed or paused."""

    kind: str
    coordinator: str
    saga_id: str
    at: float
    """When the coordinator fell."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSaga:
    """A row of `saga`."""

    saga_id: str
    state: str
    order_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """A row of `saga_event`."""

    saga_id: str
    revision: int
    kind: str
    step: str
    attempt: int
    reason: str
    """Of the failure that it tells of; empty when it tells of none."""
    commands: list[tuple[str, str, int]]
    """Step, direction (DO, COMPENSATE) and attempt of each call decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredOrder:
    """A row of `orders` with its items."""

    order_id: str
    saga_id: str
    state: str
    total: int
    cart: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPlacement:
    """A row of `placement`: what PlaceOrder has promised."""

    order_id: str
    saga_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredShipment:
    """A row of `shipment`."""

    order_id: str
    saga_id: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBarrier:
    """What a participant remembers of one step of one saga."""

    participant: str
    saga_id: str
    step: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """One payment as the provider has it, in minor units."""

    saga_id: str
    captured: int
    refunded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStock:
    """One product, before and after the warehouse shipped what was sold."""

    product: str
    available: int
    reserved: int
    available_after: int
    reserved_after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """The end of a reconciliation."""

    effects: int
    """How many were compared."""
    orphans: int
    unreachable: list[str]
    """What could not be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """What reconciliation found."""

    participant: str
    saga_id: str
    step: str
    kind: str


Record = (
    Run
    | Fault
    | Call
    | Told
    | Exit
    | Recovery
    | StoredSaga
    | StoredEvent
    | StoredOrder
    | StoredPlacement
    | StoredShipment
    | StoredBarrier
    | LedgerLine
    | StoredStock
    | Reconciliation
    | Orphan
)
_ADAPTERS: dict[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind) for kind in Record.__args__
}


@dataclass(frozen=True, slots=True)
class History:
    """All records of a run."""

    records: tuple[Record, ...]

    def all(self, kind: type[T]) -> list[T]:
        """The records of one kind, in the order written."""
        return [record for record in self.records if isinstance(record, kind)]

    @property
    def run(self) -> Run:
        """What was asked for."""
        return self.all(Run)[0]


def save(folder: Path, history: History) -> None:
    """Write a history into a folder."""
    with (folder / "history.jsonl").open("w") as file:
        for record in history.records:
            file.write(json.dumps({"record": type(record).__name__, **asdict(record)}) + "\n")


def load(folder: Path) -> History:
    """Read a history from a folder."""
    return History(tuple(_read((folder / "history.jsonl").read_text().splitlines())))


def _read(lines: Iterable[str]) -> Iterator[Record]:
    for line in lines:
        fields = json.loads(line)
        yield _ADAPTERS[fields.pop("record")].validate_python(fields)
