"""The obvious shorter versions of the algorithm. Every one of them looks right, and is wrong."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, Sequence
from typing import cast

from mesh.barrier.mongo_algorithm import Algorithm, Demand, Shortage, State
from mesh.barrier.mongo_operations import (
    BARRIER,
    STOCK,
    Document,
    Find,
    KeyState,
    Script,
    Update,
    give_back,
    hold,
    take_out,
)
from mesh.step import StepCall


class NoTombstoneInTheBarrier(Algorithm):
    """Compensate finds nothing, so there is nothing to undo, so it stores nothing."""

    def compensate(self, call: StepCall, *, answered: bool) -> Script[None]:
        if (yield Find(BARRIER, call.key)) is not None:
            yield from super().compensate(call, answered=answered)


class NoTombstoneInTheStock(Algorithm):
    """Compensate gives back what is held, and leaves products alone where nothing is."""

    def _release(self, key: str, product: str, quantity: int) -> Script[None]:
        yield give_back(key, product, quantity, self._clock())


class NoTombstoneForUnknownProducts(Algorithm):
    """A product that does not exist cannot be held."""

    def _release(self, key: str, product: str, quantity: int) -> Script[None]:
        if (yield Find(STOCK, product)) is not None:
            yield from super()._release(key, product, quantity)


class RemovesTheKey(Algorithm):
    """Giving back removes the key instead of marking it."""

    def _release(self, key: str, product: str, quantity: int) -> Script[None]:
        released = give_back(key, product, quantity, self._clock())
        change = {"$inc": released.change["$inc"], "$unset": {f"reservations.{key}": ""}}
        yield Update(STOCK, released.where, change)


class GivesBackBeforeDeciding(Algorithm):
    """The Do that finds a shortage first tidies up after itself, then says REJECTED."""

    def _decide(self, demand: Demand, record: Document) -> Script[Document]:
        call = demand.call
        for item in record["items"]:
            held = yield from self._hold(call, item["product"], item["quantity"])
            if isinstance(held, Shortage):
                yield from self._give_all_back(record)
                rejection = demand.rejection(held)
                return (yield from self._move(call, record, State.REJECTED, rejection=rejection))
        return (yield from self._move(call, record, State.DONE, response=demand.response))


class RejectsInOneStep(Algorithm):
    """REJECTED at once, then give back: no REJECTING in between."""

    def _decide(self, demand: Demand, record: Document) -> Script[Document]:
        call = demand.call
        for item in record["items"]:
            held = yield from self._hold(call, item["product"], item["quantity"])
            if held is KeyState.RELEASED:
                return (yield from self._read(call))
            if isinstance(held, Shortage):
                rejection = demand.rejection(held)
                rejected = yield from self._move(call, record, State.REJECTED, rejection=rejection)
                yield from self._give_all_back(record)
                return rejected
        return (yield from self._move(call, record, State.DONE, response=demand.response))


class CompensatesInOneStep(Algorithm):
    """COMPENSATED at once, then give back: whoever asks again is told that it is done."""

    def compensate(self, call: StepCall, *, answered: bool) -> Script[None]:
        record = yield from self._open(call, {"_id": call.key, "state": State.COMPENSATED})
        while record["state"] != State.COMPENSATED:
            before = record
            record = yield from self._move(call, record, State.COMPENSATED)
            yield from self._give_all_back(before)


class DecidesWithoutComparing(Algorithm):
    """Everything is held, so it is done: no need to look at the record again."""

    def _move(
        self, call: StepCall, record: Document, state: State, **outcome: bytes
    ) -> Script[Document]:
        change = {"state": state, "time_ms": self._clock(), **outcome}
        yield Update(BARRIER, {"_id": call.key}, {"$set": change})
        return {**record, **change}


class HoldsAgain(Algorithm):
    """Trusts that nobody else works on this step, and holds without looking for its key."""

    def _hold(self, call: StepCall, product: str, quantity: int) -> Script[KeyState | Shortage]:
        held = hold(call.key, product, quantity, self._clock())
        known = {"_id": product, "available": held.where["available"]}
        if (yield Update(STOCK, known, held.change)):
            return KeyState.HELD
        return Shortage(product, quantity, 0)


def takes_out_without_a_tombstone(key: str, product: str, quantity: int, now_ms: int) -> Update:
    """Shipping removes the key, as there is nothing to give back any more."""
    taken = take_out(key, product, quantity, now_ms)
    change = {"$inc": taken.change["$inc"], "$unset": {f"reservations.{key}": ""}}
    return Update(STOCK, taken.where, change)


def takes_out_whatever_is_there(key: str, product: str, quantity: int, now_ms: int) -> Update:
    """Trusts that nobody has taken it out before."""
    taken = take_out(key, product, quantity, now_ms)
    return Update(STOCK, {"_id": product}, taken.change)


def ships_without_comparing(key: str, source: State, target: State) -> Update:
    """It read DONE a moment ago."""
    return Update(BARRIER, {"_id": key}, {"$set": {"state": target}})


class Lines(Mapping[str, int]):
    """The lines of an order as they are, two of one product not added up."""

    def __init__(self, lines: Sequence[tuple[str, int]]) -> None:
        self._lines = lines

    def items(self) -> ItemsView[str, int]:
        return cast("ItemsView[str, int]", self._lines)

    def __getitem__(self, product: str) -> int:
        return dict(self._lines)[product]

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._lines))

    def __len__(self) -> int:
        return len(self._lines)
