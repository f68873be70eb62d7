"""How writes of many calls share commands, and who is told what came of them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    PyMongoError,
    WriteConcernError,
    WriteError,
)

from mesh.barrier import mongo_batches
from mesh.barrier.mongo_batches import Batches, Collection, Outcome, inserting, updating
from mesh.barrier.mongo_operations import Insert, Update

MADE, MISSED = True, False
SPAN = contextvars.ContextVar("span", default="nobody's")


def insert(number: int) -> Insert:
    return Insert("stock", {"_id": f"product-{number}"})


class Server:
    """Answers a command when it is told to."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.spans: list[str] = []
        self._answers: asyncio.Queue[Sequence[Outcome] | PyMongoError] = asyncio.Queue()

    async def send(self, writes: Sequence[Insert]) -> Sequence[Outcome]:
        self.commands.append([str(write.document["_id"])[8:] for write in writes])
        self.spans.append(SPAN.get())
        answer = await self._answers.get()
        if isinstance(answer, PyMongoError):
            raise answer
        return answer

    def answer(self, *outcomes: Outcome) -> None:
        self._answers.put_nowait(outcomes)

    def fail(self) -> None:
        self._answers.put_nowait(AutoReconnect("gone"))


async def begun(batches: Batches[Insert], *numbers: int) -> list[asyncio.Task[bool]]:
    tasks = [asyncio.create_task(batches.perform(insert(number))) for number in numbers]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def test_the_first_is_sent_at_once_and_what_comes_meanwhile_is_the_next_command() -> None:
    server = Server()
    batches = Batches(server.send)
    tasks = await begun(batches, 1)
    tasks += await begun(batches, 2, 3)
    assert server.commands == [["1"]]

    server.answer(MADE)
    server.answer(MADE, MISSED)

    assert await asyncio.gather(*tasks) == [True, True, False]
    assert server.commands == [["1"], ["2", "3"]]


async def test_a_command_has_no_more_than_so_many_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongo_batches, "LARGEST", 2)
    server = Server()
    tasks = await begun(Batches(server.send), 1, 2, 3)
    server.answer(MADE, MADE)
    server.answer(MADE)

    await asyncio.gather(*tasks)

    assert server.commands == [["1", "2"], ["3"]]


async def test_a_command_that_fails_is_unknown_to_its_own_writes_and_to_no_others() -> None:
    server = Server()
    batches = Batches(server.send)
    broken = await begun(batches, 1)
    later = await begun(batches, 2)
    server.fail()
    server.answer(MADE)

    with pytest.raises(AutoReconnect):
        await broken[0]
    assert await later[0]

    again = await begun(batches, 3)
    server.answer(MADE)
    assert await again[0]


async def test_a_write_that_is_refused_is_refused_to_its_caller_alone() -> None:
    server = Server()
    batches = Batches(server.send)
    tasks = await begun(batches, 1, 2)
    server.answer(WriteError("no", 121), MADE)

    with pytest.raises(WriteError):
        await tasks[0]
    assert await tasks[1]


async def test_who_gives_up_before_it_is_sent_is_not_sent_and_who_gives_up_later_harms_nobody() -> (
    None
):
    server = Server()
    batches = Batches(server.send)
    first, second = await begun(batches, 1, 2)
    third, fourth = await begun(batches, 3, 4)
    for given_up in (first, third):
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
    server.answer(MADE, MISSED)
    server.answer(MADE)

    assert [await second, await fourth] == [False, True]
    assert server.commands == [["1", "2"], ["4"]]


async def test_when_all_of_a_command_have_given_up_none_is_sent() -> None:
    server = Server()
    batches = Batches(server.send)
    (first,) = await begun(batches, 1)
    (second,) = await begun(batches, 2)
    second.cancel()
    server.answer(MADE)
    await first

    (third,) = await begun(batches, 3)
    server.answer(MADE)

    assert await third
    assert server.commands == [["1"], ["3"]]


async def test_a_command_belongs_to_the_trace_of_none_of_its_callers() -> None:
    server = Server()
    SPAN.set("the first caller's")
    (task,) = await begun(Batches(server.send), 1)
    server.answer(MADE)
    await task

    assert server.spans == ["nobody's"]


class Answering:
    """A collection whose bulk_write answers this."""

    def __init__(self, **told: Any) -> None:  # noqa: ANN401 - as pymongo has it
        nothing: Mapping[str, Any] = {"nInserted": 0, "nMatched": 0}
        self._told = {"writeErrors": [], "writeConcernErrors": [], **nothing, **told}

    async def bulk_write(self, *_: object, ordered: bool) -> object:
        assert not ordered
        raise BulkWriteError(self._told)


def answering(**told: Any) -> Collection:  # noqa: ANN401 - as above
    return cast("Collection", Answering(**told))


def refused(place: int, code: int) -> Mapping[str, Any]:
    return {"index": place, "code": code, "errmsg": "secret", "op": {"_id": "secret"}}


TWO_UPDATES = [Update("stock", {"_id": str(number)}, {"$set": {"n": 1}}) for number in range(2)]
TWO_INSERTS = [insert(1), insert(2)]


async def test_an_id_that_is_taken_is_told_to_the_one_that_asked_for_it() -> None:
    send = inserting(answering(nInserted=1, writeErrors=[refused(1, 11000)]))

    assert await send(TWO_INSERTS) == [True, False]


async def test_any_other_refusal_is_an_error_that_repeats_nothing_of_what_was_written() -> None:
    for send, told in (
        (inserting(answering(nInserted=1, writeErrors=[refused(0, 121)])), TWO_INSERTS),
        (updating(answering(nMatched=1, writeErrors=[refused(0, 121)])), TWO_UPDATES),
    ):
        first, second = await send(cast("Any", told))

        assert isinstance(first, WriteError)
        assert first.code == 121
        assert "secret" not in f"{first!r} {first.details}"
        assert first.__context__ is None
        assert second is True


async def test_what_the_majority_has_not_confirmed_is_unknown_to_all() -> None:
    told = {"writeConcernErrors": [{"code": 64, "errmsg": "secret"}]}
    for send, writes in (
        (inserting(answering(nInserted=2, **told)), TWO_INSERTS),
        (updating(answering(nMatched=2, **told)), TWO_UPDATES),
    ):
        with pytest.raises(WriteConcernError) as unknown:
            await send(cast("Any", writes))
        assert "secret" not in repr(unknown.value)
        assert unknown.value.__context__ is None


async def test_inserts_that_nobody_speaks_of_are_unknown() -> None:
    send = inserting(answering(nInserted=0, writeErrors=[refused(0, 11000)]))

    with pytest.raises(AutoReconnect):
        await send(TWO_INSERTS)


async def test_unless_all_updates_have_matched_none_is_told_that_it_has() -> None:
    assert await updating(answering(nMatched=1, writeErrors=[]))(TWO_UPDATES) == [False, False]
    assert await updating(answering(nMatched=2))(TWO_UPDATES) == [True, True]
